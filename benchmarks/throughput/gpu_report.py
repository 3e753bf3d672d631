"""gpu.json as gpu.md: every figure of the tables follows from the seconds, tokens and sizes of the rows."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.throughput.contender import Contender
from benchmarks.throughput.tables import BF16, EVEN, FP32, RAGGED

Row = dict[str, Any]

ITERATIONS = {
    "ppo-bf16": Contender("timed:iteration", "TextPPO, bf16 autocast", BF16),
    "ppo-fp32": Contender("timed:iteration", "TextPPO, fp32", FP32),
    "ppo-separate-bf16": Contender(
        "timed:iteration", "TextPPO, critic of its own, bf16 autocast", BF16 | {"value_model": "separate"}
    ),
    "rloo-bf16": Contender("trl_rloo:iteration", "TRL RLOOTrainer (no critic), bf16", BF16, needs="trl"),
    "rloo-fp32": Contender("trl_rloo:iteration", "TRL RLOOTrainer (no critic), fp32", FP32, needs="trl"),
}
ROLLOUTS = {
    "slots-bf16": Contender("ours:rollout", "TextPPO's rollout, even, bf16", BF16 | EVEN),
    "generate-bf16": Contender("hugging_face:generate", "generate, even, bf16", BF16 | EVEN),
    "slots-ragged-bf16": Contender("ours:rollout", "TextPPO's rollout, ragged, bf16", BF16 | RAGGED),
    "generate-ragged-bf16": Contender("hugging_face:generate", "generate, ragged, bf16", BF16 | RAGGED),
    "slots-bf16-256": Contender("ours:rollout", "TextPPO's rollout, even, bf16, 256 slots", BF16 | EVEN),
    "generate-bf16-256": Contender("hugging_face:generate", "generate, even, bf16, 256 rows", BF16 | EVEN),
}
CONTENDERS = ITERATIONS | ROLLOUTS
PAIRS = [
    ("ppo-bf16", "rloo-bf16"),
    ("ppo-bf16", "rloo-fp32"),
    ("ppo-fp32", "rloo-fp32"),
    ("ppo-separate-bf16", "rloo-bf16"),
    ("slots-bf16", "generate-bf16"),
    ("slots-ragged-bf16", "generate-ragged-bf16"),
    ("slots-bf16-256", "generate-bf16-256"),
]  # ours, theirs


def parts(row: Row) -> dict[str, float]:
    """Median seconds of evaluation, update, and the rest: the rollout, with scores and advantages."""
    return {"rollout": median(row["rounds"]) - sum(row["parts"].values())} | row["parts"]


def tflops(row: Row) -> dict[str, float]:
    """TFLOP/s of each part, of 2 N operations a token forward and 6 N trained, all tokens of prompt and response counted.

    Two forward passes make the evaluation: the policy's and the reference's. N is all of the model but a critic of its own.
    """
    forward = 2 * row["parameters"] * row["sequence_tokens"]
    passes = {"rollout": 1, "evaluation": 2, "update": 3 * row["epochs"]}
    return {part: passes[part] * forward / seconds / 1e12 for part, seconds in parts(row).items()}


def ratio(ours: Row, theirs: Row) -> tuple[float, float, float]:
    """How many times as fast ours is per token: of the medians, and between the most unlike of the rounds."""
    fast, slow = ([seconds / row["tokens"] for seconds in row["rounds"]] for row in (ours, theirs))
    return median(slow) / median(fast), min(slow) / max(fast), max(slow) / min(fast)


def iteration_rows(record: Row) -> list[list[str]]:
    """One row for each measured iteration: whole, parts, rates, memory."""
    rows = []
    for row in rows_of(record, ITERATIONS):
        whole, spent = median(row["rounds"]), parts(row) if row["parts"] else {}
        rows.append(
            [
                label(row),
                f"{whole:.2f} ({min(row['rounds']):.2f} to {max(row['rounds']):.2f}, {len(row['rounds'])})",
                *(f"{spent[part]:.2f}" if spent else "-" for part in ("rollout", "evaluation", "update")),
                f"{whole / row['tokens'] * 1e6:.0f}",
                f"{spent['update'] / row['tokens'] * 1e6:.0f}" if spent else "-",
                f"{row['tokens'] / spent['rollout']:,.0f}" if spent else "-",
                memory(row),
            ]
        )
    return rows


def tflops_rows(record: Row) -> list[list[str]]:
    """One row for each measured iteration of ours: TFLOP/s of its parts, and their share of the ceiling."""
    rows = []
    for row in rows_of(record, ITERATIONS):
        if row["parts"]:
            ceiling = record["ceilings"]["bf16_tflops" if CONTENDERS[row["name"]].is_bf16 else "fp32_tflops"]
            rates = tflops(row)
            cells = (
                f"{rates[p]:.1f} ({100 * rates[p] / ceiling:.1f} %)"
                for p in ("rollout", "evaluation", "update")
            )
            rows.append([label(row), *cells, f"{ceiling:.0f}"])
    return rows


def rollout_rows(record: Row) -> list[list[str]]:
    """One row for each measured rollout."""
    return [
        [
            label(row),
            f"{row['tokens'] / median(row['rounds']):,.0f}",
            f"{min(row['rounds']):.2f} to {max(row['rounds']):.2f}, {len(row['rounds'])}",
            memory(row),
        ]
        for row in rows_of(record, ROLLOUTS)
    ]


def ratio_rows(record: Row) -> list[list[str]]:
    """One row for each pair of which both sides were measured, in the same run; then each iteration's rollout."""
    rows = []
    for ours, theirs in [*PAIRS, ("ppo-bf16", "generate-bf16")]:
        for row in rows_of(record, [ours]):
            for other in rows_of(record, [theirs]):
                if (row["size"], row.get("run")) != (other["size"], other.get("run")):
                    continue
                what = f"{label(row)} / {CONTENDERS[theirs].label}"
                if theirs == "generate-bf16" and ours == "ppo-bf16":
                    row = row | {"rounds": [parts(row)["rollout"]]}
                    what = what.replace(" /", ": its rollout /")
                    rows.append([what, f"{ratio(row, other)[0]:.2f}"])
                else:
                    rows.append([what, "{:.2f} ({:.2f} to {:.2f})".format(*ratio(row, other))])
    return rows


def rows_of(record: Row, names: Sequence[str] | dict[str, Contender]) -> list[Row]:
    return [row for row in record["rows"] if row["name"] in names]


def label(row: Row) -> str:
    """What the tables call a row; several runs in one record are told apart by a number."""
    run = f" [{row['run']}]" if "run" in row else ""
    return f"{row['size']}: {CONTENDERS[row['name']].label}{run}"


def memory(row: Row) -> str:
    return "-" if row["peak_gb"] is None else f"{row['peak_gb']:.2f}"


def missing(record: Row, sizes: Sequence[str] = ("124M", "0.5B", "1.5B")) -> list[str]:
    """Per size, the contenders without a row."""
    found = {(row["size"], row["name"]) for row in record["rows"]}
    lacking = {
        size: [contender.label for name, contender in CONTENDERS.items() if (size, name) not in found]
        for size in sizes
    }
    return [f"{size}: {'; '.join(labels)}" for size, labels in lacking.items() if labels]


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table under its heading; none without rows."""
    lines = ["| " + " | ".join(row) + " |" for row in (columns, ["---"] * len(columns), *rows)]
    return ["", f"## {title}", "", *lines] if rows else []


def markdown(record: Row) -> str:
    """The whole of gpu.md."""
    machine, ceilings = record["machine"], record["ceilings"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        "# Throughput on a GPU",
        "",
        "Written by `python -m benchmarks.throughput.gpu`. What the figures mean: NOTES.md.",
        "",
        f"- {machine['gpu']}; {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB",
        f"- {versions}, Python {machine['python']}",
        f"- ceilings, measured: {ceilings['bf16_tflops']:.0f} TFLOP/s in bf16, {ceilings['fp32_tflops']:.0f} in fp32 without "
        f"TF32 (square products of {ceilings['size']:,}); {ceilings['launch_us']:.0f} µs to launch a tiny kernel",
    ]
    for size, step in record["profiles"].items():
        lines.append(
            f"- a decoding step of TextPPO in bf16, {size}: {step['step_ms']:.1f} ms, of which the GPU is busy "
            f"{step['gpu_ms']:.1f} ms; {step['launches']:.0f} kernels launched"
        )
    lines += [f"- {note}" for note in record["notes"]]
    lines += [f"- not measured, {line}" for line in missing(record)]
    columns = ["contender", "seconds (lowest to highest, rounds)", "rollout", "evaluation", "update",
               "µs per response token", "of them update", "rollout, tokens/s", "peak GB on the GPU"]  # fmt: skip
    lines += table("One whole iteration, even lengths", columns, iteration_rows(record))
    columns = ["contender", "rollout", "evaluation", "update", "ceiling"]
    lines += table("TFLOP/s, and share of the ceiling", columns, tflops_rows(record))
    columns = ["contender", "tokens/s", "seconds, rounds", "peak GB on the GPU"]
    lines += table("Rollout alone", columns, rollout_rows(record))
    columns = ["what", "ratio of medians (of the most unlike rounds)"]
    lines += table("How many times as fast, per token", columns, ratio_rows(record))
    return "\n".join(lines) + "\n"
