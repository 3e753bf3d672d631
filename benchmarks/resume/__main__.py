"""Kills `rlhf ppo --resume` again and again, by chance and at each labelled point, and compares with runs left alone.

python -m benchmarks.resume                      # 200 kills by chance, every labelled point: a quarter of an hour
python -m benchmarks.resume --kills 20 --points 12 --no-signals
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: its threads would not survive a fork
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.resume.experiments import by_chance, labelled, signals
from benchmarks.resume.report import write


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resume", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="at random moments")
    parser.add_argument(
        "--points", type=int, default=0, help="labelled points to try, at random; 0: all, with every n"
    )
    parser.add_argument("--no-signals", action="store_true", help="leave out how long SIGTERM takes")
    parser.add_argument("--tokens", type=int, default=2500, help="length of a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, help="folder for results.json and results.md; default: none are written"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        results = [
            by_chance(Path(folder), args.kills, args.tokens, args.seed),
            labelled(Path(folder), args.points, args.tokens, args.seed),
        ]
        if not args.no_signals:
            results.append(signals(Path(folder), args.tokens, args.seed))
    if args.out is not None:
        write(args.out, results)
    failures = [failure for result in results for failure in result["failures"]]
    sys.exit(f"{len(failures)} failures: {failures[:5]}" if failures else 0)


if __name__ == "__main__":
    main()
