"""The results as a table in the terminal, as JSON, and as Markdown."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.throughput.measure import Measured, Ratio, is_disturbed
from benchmarks.throughput.setting import Setting
from benchmarks.throughput.tables import TABLES

NO_BF16 = "bfloat16 has no hardware support on this CPU: its products are emulated, so bars in bf16 are out of reach here"


def print_tables(results: list[Measured], machine: dict[str, Any]) -> None:
    """Everything, in the terminal."""
    console = Console()
    for measured in results:
        for title, columns, rows in (contender_rows(measured), bar_rows(measured, machine)):
            table = RichTable(*columns, title=title)
            for row in rows:
                table.add_row(*row)
            console.print(table)
    for line in machine_lines(machine):
        console.print(line, highlight=False)


def contender_rows(measured: Measured) -> tuple[str, list[str], list[list[str]]]:
    """Title, columns and rows: one for each contender."""
    table = TABLES[measured.table]
    per_token = table.unit == "token"
    columns = [
        "contender",
        "tokens/s" if per_token else f"ms per {table.unit}",
        "peak MB",
        "rounds kept",
        "notes",
    ]
    rows = []
    for name, contender in table.contenders.items():
        if name in measured.skipped:
            rows.append([contender.label, "-", "-", "-", measured.skipped[name]])
        elif any(name in samples for samples in measured.rounds):
            seconds, samples = measured.seconds(name), measured.samples(name, quiet=False)
            quiet = sum(not is_disturbed(sample) for sample in samples)
            rows.append(
                [
                    contender.label,
                    f"{1 / seconds:,.0f}" if per_token else f"{seconds * 1e3:,.1f}",
                    f"{measured.peak_mb(name):,.0f}",
                    f"{quiet} of {len(samples)}",
                    "; ".join(f"{key}: {value}" for key, value in measured.facts(name).items()),
                ]
            )
    return table.title, columns, rows


def bar_rows(measured: Measured, machine: dict[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    """Title, columns and rows: one for each bar."""
    table = TABLES[measured.table]
    rows = []
    for bar in table.bars:
        ratio = measured.ratio(bar)
        if ratio is None:
            continue
        ours, theirs = (table.contenders[name].label for name in (bar.ours, bar.theirs))
        sign = "at most" if bar.quantity == "memory" else "at least"
        spread = "" if bar.quantity == "memory" else f" ({ratio.lowest:.2f} to {ratio.highest:.2f})"
        rows.append(
            [
                f"{bar.quantity}: {ours} / {theirs}",
                f"{ratio.value:.2f}{spread}",
                f"{sign} {bar.limit}",
                verdict(ratio, machine),
            ]
        )
    return (
        "Ratios: median of the rounds' ratios (lowest to highest)",
        ["what", "ratio", "bar", "verdict"],
        rows,
    )


def verdict(ratio: Ratio, machine: dict[str, Any]) -> str:
    """Pass or fail, and what else the reader has to know."""
    word = "pass" if ratio.passes else "fail"
    if not ratio.passes and ratio.bar.needs_bf16 and not machine["bf16_in_hardware"]:
        word += ", no bf16 in this CPU"
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
        for title, columns, rows in (contender_rows(measured), bar_rows(measured, machine)):
            lines += ["", f"## {title}" if columns[0] == "contender" else f"{title}:", ""]
            lines += ["| " + " | ".join(row) + " |" for row in (columns, ["---"] * len(columns), *rows)]
    (folder / "results.md").write_text("\n".join(lines) + "\n")
