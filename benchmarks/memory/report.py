"""The rows as JSON and as Markdown, a table for each thing that was measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.sft.report import markdown_table
from reward_models.files import replacing, write_json

Row = Mapping[str, Any]
HEADINGS = ("", "peak, MB", "of the plain way", "CPU seconds", "gradients differ by", "relatively")
GRADIENTS_EQUAL = 1e-6


def shares(rows: Sequence[Row]) -> dict[str, float]:
    """Each case's peak as a share of its plain one's, where both were measured."""
    peaks = {row["case"]: row["peak_bytes"] for row in rows}
    return {row["case"]: row["peak_bytes"] / peaks[row["plain"]] for row in rows if row["plain"] in peaks}


def failures(rows: Sequence[Row]) -> list[str]:
    """What takes more memory than it may, or gives other gradients."""
    found, share = [], shares(rows)
    for row in rows:
        name = row["case"]
        if row["at_most"] is not None and share.get(name, 0.0) > row["at_most"]:
            found.append(f"{name}: {share[name]:.2f} of the plain way, more than {row['at_most']}")
        if (row["difference"] or 0.0) > GRADIENTS_EQUAL:
            found.append(f"{name}: gradients differ by {row['difference']:.1e}")
    return found


def cells(row: Row, share: Mapping[str, float]) -> tuple[str, ...]:
    bar = "" if row["at_most"] is None else f" (at most {row['at_most']})"
    return (
        row["case"],
        f"{row['peak_bytes'] / 1e6:,.0f}",
        f"{share[row['case']]:.2f}{bar}" if row["case"] in share else "",
        f"{row['seconds']:.1f}",
        *("" if row[key] is None else f"{row[key]:.1e}" for key in ("difference", "relative_difference")),
    )


def write(rows: Sequence[Row], machine: Mapping[str, Any], folder: Path) -> None:
    """results.json and results.md."""
    write_json(folder / "results.json", {"machine": machine, "results": list(rows)})
    parts = [
        "# Memory of forward and backward",
        "",
        "Made by `python -m benchmarks.memory`, each case in a process of its own. The peak is the most that was resident "
        "(ru_maxrss) less what was resident just before. Gradients are compared with the plain way's: the largest "
        "difference, and that by the largest gradient of the same tensor.",
    ]
    share = shares(rows)
    for table in dict.fromkeys(row["table"] for row in rows):
        of_table = [cells(row, share) for row in rows if row["table"] == table]
        parts += ["", table, "", *markdown_table(HEADINGS, of_table)]
    parts += [
        "",
        f"{machine['cpu']}, {machine['threads']} thread, load {machine['load_average'][0]} at the start.",
        "",
    ]
    with replacing(folder / "results.md") as file:
        file.write("\n".join(parts).encode())
