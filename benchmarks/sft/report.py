"""The results in the terminal, as JSON, and as Markdown with a table of samples to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from agents.callbacks import visible
from agents.sft_samples import Sample, shortened, table_of
from reward_models.files import replacing, write_json

Result = Mapping[str, Any]


def rows_of(result: Result) -> list[tuple[str, str, str, str]]:
    """Contender, ROUGE-L, coverage, words."""
    return [
        (name, f"{f['rouge_l']:.3f}", f"{f['coverage']:.3f}", f"{f['words']:.1f}")
        for name, f in result["figures"].items()
    ]


def headings(result: Result) -> tuple[str, str, str, str]:
    return "answers", "ROUGE-L", f"{result['counted']} covered", "words"


def facts(result: Result) -> str:
    loss, seconds, drawn = result["held_out_loss"], result["seconds"], result.get("drawn") or ""
    return (
        f"{result['parameters'] / 1e6:.1f} M parameters, vocabulary {result['vocabulary']:,}, random weights; "
        f"{result['demonstrations']:,} demonstrations of {result['prompts']:,} prompts"
        f"{drawn and f', and {drawn:,} of their responses again, asked for by their own words'}, {result['steps']:,} steps, "
        f"seed {result['seed']}, {seconds['training']:.0f} s. Held-out loss {loss['before']:.2f} -> {loss['after']:.2f} "
        f"nats per token on {result['held_out_demonstrations']:,} demonstrations of {result['held_out_prompts']} prompts "
        "that were not learned from; the answers are to these, the likeliest token each time."
    )


def show(result: Result, console: Console) -> None:
    """In the terminal."""
    table = Table(*headings(result), title=f"{result['task']}: {result['title']}", title_justify="left")
    for row in rows_of(result):
        table.add_row(*row)
    console.print(table)
    console.print(facts(result), highlight=False)
    console.print(table_of([Sample(**sample) for sample in result["samples"]]))


def write(results: Sequence[Result], machine: Mapping[str, Any], folder: Path) -> None:
    """results.json and results.md."""
    write_json(folder / "results.json", {"machine": machine, "results": list(results)})
    parts = [
        "# A fresh small model learns from demonstrations",
        "",
        "Made by `python -m benchmarks.sft`.",
        "",
    ]
    for result in results:
        parts += [f"## {result['task']}: {result['title']}", "", facts(result), ""]
        parts += [*markdown_table(headings(result), rows_of(result)), ""]
        samples = [
            tuple(sample[key] for key in ("prompt", "demonstration", "before", "after"))
            for sample in result["samples"]
        ]
        parts += [*markdown_table(("prompt", "demonstration", "before", "after"), samples), ""]
    parts.append(
        f"{machine['cpu']}, {machine['threads']} thread, load {machine['load_average'][0]} at the start."
    )
    with replacing(folder / "results.md") as file:
        file.write("\n".join([*parts, ""]).encode())


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(escaped(cell) for cell in cells) + " |"

    return [line(headings), "|" + " --- |" * len(headings), *map(line, rows)]


def escaped(text: str, longest: int = 240) -> str:
    """Text as a cell that shows it and nothing else."""
    text = shortened(visible(" ".join(text.split())), longest)
    for character in "\\`*_<>|[]":
        text = text.replace(character, f"\\{character}")
    return text
