"""What is tried: kills by chance, kills at labelled points, SIGTERM in every phase. Each tells how often, and what failed."""

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.resume.killing import Victim, kill_at, kill_by_chance, run_to_the_end
from benchmarks.resume.points import HANGS, LAST_POINTS, POINTS, PhaseBoard
from benchmarks.resume.training import differences, result

AFTER_A_CHECKPOINT = ("loading", "resuming")


class Pair:
    """A run that was left alone, and one of the same seed to be killed."""

    def __init__(self, folder: Path, tokens: int, seed: int):
        self.whole, self.killed, self.tokens, self.seed = folder / "whole", folder / "killed", tokens, seed
        folder.mkdir(parents=True)
        self.seconds = run_to_the_end(self.whole, seed, tokens)

    @property
    def has_checkpoint(self) -> bool:
        return (self.killed / "checkpoints" / "last.zip").exists()

    def compare(self) -> list[str]:
        """Let the killed one come to its end; where it then differs from the other."""
        run_to_the_end(self.killed, self.seed, self.tokens)
        found = differences(result(self.whole), result(self.killed))
        return [f"seed {self.seed}: {line}" for line in found]


def pairs(folder: Path, tokens: int, seed: int) -> Iterator[Pair]:
    number = 0
    while True:
        yield Pair(folder / str(number), tokens, seed + number)
        number += 1


def by_chance(folder: Path, kills: int, tokens: int, seed: int) -> dict[str, Any]:
    """SIGKILL at random moments; whenever a run has come to its end, it is compared, and the next one begins."""
    chance, board, phases = random.Random(seed), PhaseBoard(), Counter[str]()
    runs, failures, started = 0, list[str](), time.monotonic()
    for pair in pairs(folder / "by chance", tokens, 1000 * seed):
        ended = False
        while phases.total() < kills and not ended:
            loaded = chance.random() < 0.85  # the rest dies while it starts and loads
            seconds = chance.uniform(0.0, 0.2 if loaded else 0.1) * pair.seconds
            was_killed, phase = kill_by_chance(pair.killed, pair.seed, tokens, seconds, board, loaded)
            ended = not was_killed
            phases[phase] += was_killed
        failures += pair.compare()
        runs += 1
        print(f"{phases.total()} kills, {runs} runs compared, {len(failures)} differences", flush=True)
        if phases.total() >= kills:
            break
    return {
        "experiment": "SIGKILL at random moments",
        "kills": phases.total(),
        "runs compared": runs,
        "by phase": dict(phases.most_common()),
        "failures": failures,
        "seconds": round(time.monotonic() - started),
    }


def labelled(folder: Path, points: int, tokens: int, seed: int) -> dict[str, Any]:
    """SIGKILL at each labelled point: at every one of its calls, or at `points` of these, chosen at random."""
    chance = random.Random(seed)
    wanted = [(label, n) for label, point in POINTS.items() for n in point.calls]
    wanted = chance.sample(wanted, points or len(wanted))
    last = list(LAST_POINTS) if not points else chance.sample(list(LAST_POINTS), 1)
    reached, failures, runs, started = Counter[str](), list[str](), 0, time.monotonic()
    for pair in pairs(folder / "labelled", tokens, 1000 * seed + 500):
        runs += 1
        again = []
        for label, n in wanted:
            if label.startswith(AFTER_A_CHECKPOINT) and not pair.has_checkpoint:
                kill_at(pair.killed, pair.seed, tokens, "saving: after", 2)
            if not (pair.killed / "result.json").exists() and kill_at(
                pair.killed, pair.seed, tokens, label, n
            ):
                reached[label] += 1
            else:
                again.append((label, n))
        for label in last if not again else ():
            if kill_at(pair.killed, pair.seed, tokens, label, 1):
                reached[label] += 1
            else:
                failures.append(f"{label} was never reached")
        failures += pair.compare()
        print(f"{reached.total()} kills at {len(reached)} points, {len(failures)} failures", flush=True)
        if not again:
            break
        if len(again) == len(wanted):
            failures += [f"{label}, call {n}, was never reached" for label, n in again]
            break
        wanted = again
    return {
        "experiment": "SIGKILL at labelled points",
        "kills": reached.total(),
        "runs compared": runs,
        "by point": {label: reached[label] for label in POINTS | LAST_POINTS if label in reached},
        "failures": failures,
        "seconds": round(time.monotonic() - started),
    }


def signals(folder: Path, tokens: int, seed: int, times: int = 5) -> dict[str, Any]:
    """SIGTERM in every phase, and where something hangs: seconds until the process has ended, by what it was doing."""
    chance, board, started = random.Random(seed), PhaseBoard(), time.monotonic()
    seconds: dict[str, list[float]] = {}
    failures, runs = list[str](), 0
    whole = Pair(folder / "signals", tokens, 1000 * seed + 900)
    situations = [
        *((phase, None) for phase in ("rollout", "update", "evaluation", "saving")),
        *HANGS.items(),
    ]
    for what, point in situations:
        whole.killed = folder / "signals" / what
        for _ in range(times):

            def prepare(point=point) -> None:
                board.watch()
                if point is not None:
                    point.arm(point.calls[0], board)

            board.clear()
            victim = Victim(whole.killed, whole.seed, tokens, prepare)
            if point is None:
                victim.wait(chance.uniform(0.0, 0.1))
            while board.phase() != ("hanging" if point else what) and victim.wait(0.0) is None:
                pass
            sent = time.monotonic()
            victim.send(signal.SIGTERM)
            status = victim.wait()
            seconds.setdefault(what, []).append(round(time.monotonic() - sent, 2))
            if status != 128 + signal.SIGTERM:
                failures.append(f"{what}: the exit status was {status}")
            if seconds[what][-1] > 5.0:
                failures.append(f"{what}: it took {seconds[what][-1]} s to end")
            if not whole.has_checkpoint:
                failures.append(f"{what}: no checkpoint was left")
        failures += whole.compare()
        runs += 1
        print(f"SIGTERM, {what}: ended after {seconds[what]} s", flush=True)
    return {
        "experiment": "SIGTERM in every phase",
        "signals": sum(map(len, seconds.values())),
        "runs compared": runs,
        "seconds to the end": seconds,
        "failures": failures,
        "seconds": round(time.monotonic() - started),
    }
