"""One command, all tables: ``python -m benchmarks.reward_models --help``."""

import argparse
import os
import time
from pathlib import Path

import torch
from transformers.utils import logging

from benchmarks.reward_models import speed, support
from benchmarks.reward_models.backbones import BACKBONES
from benchmarks.reward_models.cross_validation import cross_validate
from benchmarks.reward_models.preference_sets import SETS, load
from benchmarks.reward_models.report import markdown, read, write
from benchmarks.throughput.machine import describe

DATA = Path(os.environ.get("TEXT_ENVS_DATA") or Path(__file__).parents[3] / "shared" / "data")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reward_models", description=__doc__)
    parts = [*SETS, "speed", "support"]
    parser.add_argument(
        "--only", nargs="+", default=parts, choices=parts, metavar="PART", help=f"of {', '.join(parts)}"
    )
    parser.add_argument(
        "--backbones", nargs="+", default=list(BACKBONES), choices=list(BACKBONES), metavar="NAME",
        help=f"that the sets are learned with: {', '.join(BACKBONES)}",
    )  # fmt: skip
    parser.add_argument("--data", type=Path, default=DATA, help="the data folder; else TEXT_ENVS_DATA")
    parser.add_argument(
        "--keep", action="store_true", help="keep the sets and the speed that results.json holds, and measure the others"
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5, help="of the speed comparison")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of PPO on SupportReply")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent,
        help="where results.* and, of SupportReply, support.* go",
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.disable_progress_bar()
    machine, started = describe(args.threads), time.perf_counter()

    def say(line: str) -> None:
        print(f"{time.perf_counter() - started:6.0f} s  {line}", flush=True)

    sets, fast, before = read(args.out) if args.keep else ([], None, 0.0)
    if "speed" in args.only and fast is None:
        fast = speed.measure(load(args.data, "truthfulqa_pairs"), args.data, args.rounds, seed=0)
        say(f"training speed against TRL's RewardTrainer: {fast.ratio:.2f}")
    replies = support.measure(args.seeds, say) if "support" in args.only else None
    backbones = {BACKBONES[name].label: BACKBONES[name] for name in args.backbones}
    args.out.mkdir(parents=True, exist_ok=True)
    for name, wanted in SETS.items():
        if name in args.only and name not in [there.name for there in sets]:
            records = load(args.data, name)
            sets.append(cross_validate(wanted, records, backbones, args.data, 0, say))
            # After each set, so that a run that is stopped has not been for nothing.
            write(sets, fast, replies, before + time.perf_counter() - started, machine, args.out)
    seconds = before + time.perf_counter() - started
    write(sets, fast, replies, seconds, machine, args.out)
    print("\n".join(markdown(sets, fast, replies, seconds, machine)))
    print(f"Written to {args.out}")


if __name__ == "__main__":
    main()
