"""Reproduces small what papers say about RLHF, and reports what held.

python -m benchmarks.science all --workers 2                     # everything; what is done already is kept
python -m benchmarks.science closed_form credit --seeds 5        # some
python -m benchmarks.science all --limit 340 --archive runs.tgz  # as much as 340 seconds allow
python -m benchmarks.science report                              # from the runs that are there
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import argparse
import tarfile
from pathlib import Path

from benchmarks.science.report import write
from benchmarks.science.running import EXPERIMENTS, failures, plan, run_all


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.science", description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="+", choices=[*EXPERIMENTS, "all", "report"], help="experiments; report: run nothing"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="runs side by side, one thread each")
    parser.add_argument("--quick", action="store_true", help="a trial of the way, whose numbers mean nothing")
    parser.add_argument("--limit", type=float, help="seconds; runs that are not finished then are left out")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/science/results"))
    parser.add_argument("--archive", type=Path, help="put the results, the runs included, into one .tgz")
    args = parser.parse_args(arguments)
    experiments = EXPERIMENTS if "all" in args.names else [n for n in EXPERIMENTS if n in args.names]
    args.out.mkdir(parents=True, exist_ok=True)
    if experiments:
        run_all(plan(experiments, args.seeds, args.quick), args.out, args.workers, args.limit)
    if args.archive is not None:
        archive(args.out, args.archive)  # first, lest the report cost the runs
    write(args.out)
    if args.archive is not None:
        archive(args.out, args.archive)
    print(f"{args.out / 'results.md'} is written.")
    if failed := failures(args.out):
        parser.exit(1, f"{len(failed)} runs failed: {', '.join(map(str, failed))}\n")


def archive(out: Path, target: Path) -> None:
    """All of a folder of results but its cache in one file."""
    with tarfile.open(target, "w:gz") as tar:
        for path in sorted(out.rglob("*")):
            if (
                path.is_file()
                and "cache" not in path.relative_to(out).parts
                and path.resolve() != target.resolve()
            ):
                tar.add(path, arcname=f"science/{path.relative_to(out)}")


if __name__ == "__main__":
    main()
