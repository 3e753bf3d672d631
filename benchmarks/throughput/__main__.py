"""One command, all tables: ``python -m benchmarks.throughput --help``."""

import argparse
import warnings
from pathlib import Path

from benchmarks.throughput.machine import describe
from benchmarks.throughput.measure import measure
from benchmarks.throughput.report import print_tables, write
from benchmarks.throughput.tables import TABLES


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=5, help="undisturbed rounds wanted; at most twice as many are run"
    )
    parser.add_argument("--quick", action="store_true", help="one round, and no file is written")
    names = [name for table in TABLES.values() for name in table.contenders]
    parser.add_argument(
        "--only", nargs="+", default=[], choices=[*TABLES, *names], metavar="NAME",
        help=f"tables or contenders: {', '.join([*TABLES, *names])}",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=2, help="of each contender")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="where results.json and results.md go"
    )
    args = parser.parse_args()
    warnings.filterwarnings("ignore")

    machine, results = describe(args.threads), []
    for name, table in TABLES.items():
        chosen = [c for c in table.contenders if not args.only or name in args.only or c in args.only]
        if chosen:
            results.append(measure(name, chosen, 1 if args.quick else args.rounds, args.threads, print))
    print_tables(results, machine)
    if not args.quick:
        args.out.mkdir(parents=True, exist_ok=True)
        write(results, machine, args.out)
        print(f"Written: {args.out / 'results.md'}, {args.out / 'results.json'}")


if __name__ == "__main__":
    main()
