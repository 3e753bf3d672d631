"""results.json and results.md."""

import json
from pathlib import Path
from typing import Any

from benchmarks.throughput.machine import describe


def write(folder: Path, results: list[dict[str, Any]]) -> None:
    machine = describe(threads=1)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(
        json.dumps({"machine": machine, "results": results}, indent=1) + "\n"
    )
    lines = [
        "# Resuming",
        "",
        "Written by `python -m benchmarks.resume --out benchmarks/resume`. A run of `rlhf ppo --resume` (CountLetter-v0, a",
        "checkpoint after every update, samples, evaluations that draw random numbers) is ended again and again and then",
        "compared with a run of the same seed that was left alone: metrics.jsonl but for wall times, samples.jsonl,",
        "evaluations, policy, weights, reference, optimiser, random generators, prompts, counters. Equal means: to the bit.",
        "",
        f"- {machine['cpu']}, {machine['cores']} cores, one thread; load average {machine['load_average']}",
        f"- {', '.join(f'{name} {version}' for name, version in machine['versions'].items())}",
        "",
        "| experiment | ended | runs compared | failures | minutes |",
        "| --- | --- | --- | --- | --- |",
    ]
    for result in results:
        ended = result.get("kills", result.get("signals"))
        lines.append(
            f"| {result['experiment']} | {ended} times | {result['runs compared']} | {len(result['failures'])} | "
            f"{result['seconds'] / 60:.1f} |"
        )
    for result in results:
        lines += ["", f"## {result['experiment']}", ""]
        for name in ("by phase", "by point"):
            if name in result:
                lines += [f"| {name.removeprefix('by ')} | kills |", "| --- | --- |"]
                lines += [f"| {what} | {count} |" for what, count in result[name].items()]
        if "seconds to the end" in result:
            lines += ["| what it was doing | seconds from the signal to the end |", "| --- | --- |"]
            lines += [
                f"| {what} | {', '.join(f'{s:.1f}' for s in seconds)} |"
                for what, seconds in result["seconds to the end"].items()
            ]
        lines += [f"- FAILED: {failure}" for failure in result["failures"]]
    (folder / "results.md").write_text("\n".join(lines) + "\n")
