"""One command, two tasks: ``python -m benchmarks.sft --help``."""

import argparse
from pathlib import Path

import torch
from rich.console import Console
from transformers.utils import logging

from benchmarks.sft.measure import measure
from benchmarks.sft.report import show, write
from benchmarks.sft.tasks import TASKS
from benchmarks.throughput.machine import describe


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sft", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=list(TASKS), choices=list(TASKS), metavar="TASK", help="tasks"
    )
    parser.add_argument("--steps", type=int, help="of fine-tuning; default: the task's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="where results.json and results.md go"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.disable_progress_bar()
    machine, console = describe(args.threads), Console()
    results = [measure(TASKS[name], args.seed, args.steps, console.print) for name in args.only]
    for result in results:
        show(result, console)
    write(results, machine, args.out)
    print(f"Written: {args.out / 'results.md'}, {args.out / 'results.json'}")


if __name__ == "__main__":
    main()
