"""The results as a table in the terminal, as JSON, and as Markdown."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.throughput.measure import Measured, Ratio, is_disturbed
from benchmarks.throughput.scaling import ScalingTable, scaling_rows
from benchmarks.throughput.setting import Setting
from benchmarks.throughput.tables import TABLES

Section = tuple[str, list[str], list[list[str]]]  # title, columns, rows
NO_BF16 = "bfloat16 has no hardware support on this CPU: its rows and bars are left out"


def print_tables(results: list[Measured], machine: dict[str, Any]) -> None:
    """Everything, in the terminal."""
    console = Console()
    for measured in results:
        for title, columns, rows in sections(measured):
            table = RichTable(*columns, title=title)
            for row in rows:
                table.add_row(*row)
            console.print(table)
    for line in machine_lines(machine):
        console.print(line, highlight=False)


def sections(measured: Measured) -> list[Section]:
    """What is shown of a table: its contenders, and their ratios; or, where it has no bars, one table of its own kind."""
    table = TABLES[measured.table]
    if isinstance(table, ScalingTable):
        return [scaling_rows(measured, table)]
    return [contender_rows(measured), bar_rows(measured)]


def contender_rows(measured: Measured) -> Section:
    """Title, columns and rows: one for each contender."""
    table = TABLES[measured.table]
    columns = ["contender", table.shown, "peak MB", "rounds kept", "notes"]
    rows = []
    for name, contender in table.contenders.items():
        if name in measured.skipped:
            rows.append([contender.label, "-", "-", "-", measured.skipped[name]])
        elif any(name in samples for samples in measured.rounds):
            samples = measured.samples(name, quiet=False)
            quiet = sum(not is_disturbed(sample) for sample in samples)
            rows.append(
                [
                    contender.label,
                    figure(measured.seconds(name), table.shown),
                    f"{measured.peak_mb(name):,.0f}",
                    f"{quiet} of {len(samples)}",
                    "; ".join(f"{key}: {value}" for key, value in measured.facts(name).items()),
                ]
            )
    return table.title, columns, rows


def figure(seconds: float, shown: str) -> str:
    """Seconds per unit as a table shows them: "tokens/s", "ms per ..." or "µs per ..."."""
    if shown == "tokens/s":
        return f"{1 / seconds:,.0f}"
    return f"{seconds * {'ms': 1e3, 'µs': 1e6}[shown.split()[0]]:,.1f}"


def bar_rows(measured: Measured) -> Section:
    """Title, columns and rows: one for each bar."""
    table = TABLES[measured.table]
    rows = []
    for bar in table.bars:
        ratio = measured.ratio(bar)
        reasons = [measured.skipped[name] for name in (bar.ours, bar.theirs) if name in measured.skipped]
        if ratio is None and not reasons:  # a side was not asked for
            continue
        ours, theirs = (table.contenders[name].label for name in (bar.ours, bar.theirs))
        sign = "at least" if bar.quantity == "speed" else "at most"
        rows.append(
            [
                f"{bar.quantity}: {ours} / {theirs}",
                "-" if ratio is None else ratio_text(ratio),
                "-" if bar.limit is None else f"{sign} {bar.limit}",
                reasons[0] if ratio is None else verdict(ratio),
                bar.lever,
            ]
        )
    return (
        "Ratios: median of the rounds' ratios (lowest to highest), and what they come from",
        ["what", "ratio", "bar", "verdict", "lever"],
        rows,
    )


def ratio_text(ratio: Ratio) -> str:
    """The ratio, and of times its lowest and highest."""
    spread = "" if ratio.bar.quantity == "memory" else f" ({ratio.lowest:.2f} to {ratio.highest:.2f})"
    return f"{ratio.value:.2f}{spread}"


def verdict(ratio: Ratio) -> str:
    """Pass or fail, and what else the reader has to know."""
    word = "-" if ratio.bar.limit is None else "pass" if ratio.passes else "fail"
    return word if ratio.n_rounds else word + ", every round disturbed"


def machine_lines(machine: dict[str, Any]) -> list[str]:
    """The machine in words."""
    flags = ", ".join(f"{flag} {'yes' if there else 'no'}" for flag, there in machine["flags"].items())
    usable = machine["usable_cores"]
    pinned = f", pinned to {usable} of them" if usable < machine["cores"] else ""
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores{pinned}, {machine['memory_gb']} GB; {flags}",
        f"{machine['threads']} threads; load average at the start {machine['load_average']}",
        ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        + f", Python {machine['python']}",
    ]
    return lines if machine["bf16_in_hardware"] else [*lines, NO_BF16 + "."]


def write(results: list[Measured], machine: dict[str, Any], folder: Path) -> None:
    """``results.json``, with every sample, and ``results.md``."""
    record = {
        "setting": vars(Setting()),
        "machine": machine,
        "tables": {m.table: {"rounds": m.rounds, "skipped": m.skipped} for m in results},
        "ratios": [
            {"ours": r.bar.ours, "theirs": r.bar.theirs, "quantity": r.bar.quantity, "limit": r.bar.limit,
             "ratio": round(r.value, 3), "lowest": round(r.lowest, 3), "highest": round(r.highest, 3),
             "undisturbed_rounds": r.n_rounds, "passes": r.passes}
            for m in results for bar in TABLES[m.table].bars if (r := m.ratio(bar)) is not None
        ],
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(record, indent=1) + "\n")
    lines = [
        "# Throughput",
        "",
        "Written by `python -m benchmarks.throughput`. What the figures mean: NOTES.md.",
        "",
    ]
    for line in machine_lines(machine):
        lines += [f"- {line}"]
    for measured in results:
        for title, columns, rows in sections(measured):
            lines += ["", f"{title}:" if columns[0] == "what" else f"## {title}", ""]
            lines += ["| " + " | ".join(row) + " |" for row in (columns, ["---"] * len(columns), *rows)]
    (folder / "results.md").write_text("\n".join(lines) + "\n")
