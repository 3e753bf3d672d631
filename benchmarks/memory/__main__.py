"""One command, all cases: ``python -m benchmarks.memory --help``."""

import argparse
import json
import sys
from pathlib import Path

import torch
from transformers.utils import logging

from benchmarks.memory.cases import CASES
from benchmarks.memory.measure import measure, measure_here
from benchmarks.memory.report import HEADINGS, cells, failures, shares, write
from benchmarks.throughput.machine import describe


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=list(CASES), choices=list(CASES), metavar="CASE", help="cases"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure", choices=list(CASES), help=argparse.SUPPRESS)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="where results.json and results.md go"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.disable_progress_bar()
    if args.measure is not None:  # in a process of its own
        print(json.dumps(measure_here(args.measure)))
        return
    machine, rows = describe(args.threads), []
    print("  ".join(HEADINGS))
    for name in args.only:
        rows.append(measure(name, args.threads))
        print("  ".join(cells(rows[-1], shares(rows))), flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    write(rows, machine, args.out)
    print(f"Written: {args.out / 'results.md'}, {args.out / 'results.json'}")
    if failed := failures(rows):
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
