"""Rounds in which the contenders of a table take turns, and what their times say."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.throughput.machine import bf16_in_hardware
from benchmarks.throughput.tables import TABLES, Bar
from benchmarks.throughput.worker import Sample, Worker

DISTURBED = 0.1  # cores that anyone else may use while a round runs
NEEDS_BF16 = "needs bf16 hardware"


@dataclass(frozen=True)
class Ratio:
    """Of one bar: the median over the rounds in which neither side was disturbed."""

    bar: Bar
    value: float
    lowest: float
    highest: float
    n_rounds: int

    @property
    def passes(self) -> bool:
        if self.bar.limit is None:
            return True
        return self.value >= self.bar.limit if self.bar.quantity == "speed" else self.value <= self.bar.limit


@dataclass
class Measured:
    """All samples of one table.

    Attributes:
        rounds: per round, the sample of each contender.
        skipped: contender and reason.
    """

    table: str
    rounds: list[dict[str, Sample]]
    skipped: dict[str, str]

    def samples(self, name: str, quiet: bool = True) -> list[Sample]:
        """The contender's undisturbed samples, or all of them if there are no others or ``quiet`` is False."""
        found = [samples[name] for samples in self.rounds if name in samples]
        return [s for s in found if not is_disturbed(s)] * quiet or found

    def seconds(self, name: str) -> float:
        """Median seconds per unit."""
        return median(sample["per_unit"] for sample in self.samples(name))

    def peak_mb(self, name: str) -> float:
        """The highest memory of all rounds, in MB."""
        return max(sample["peak_mb"] for sample in self.samples(name, quiet=False))

    def facts(self, name: str) -> dict[str, Any]:
        """What the contender said about itself, in its last round."""
        return self.samples(name, quiet=False)[-1]["facts"]

    def ratio(self, bar: Bar) -> Ratio | None:
        """None where a side is missing. If every round was disturbed, all of them count, and the table says so."""
        rounds = [r for r in self.rounds if bar.ours in r and bar.theirs in r]
        if not rounds:
            return None
        if bar.quantity == "memory":
            value = self.peak_mb(bar.ours) / self.peak_mb(bar.theirs)
            return Ratio(bar, value, value, value, len(rounds))
        quiet = [r for r in rounds if not is_disturbed(r[bar.ours]) and not is_disturbed(r[bar.theirs])]
        above, below = (bar.theirs, bar.ours) if bar.quantity == "speed" else (bar.ours, bar.theirs)
        ratios = [r[above]["per_unit"] / r[below]["per_unit"] for r in quiet or rounds]
        return Ratio(bar, median(ratios), min(ratios), max(ratios), len(quiet))


def is_disturbed(sample: Sample) -> bool:
    """Whether someone else used the machine while the sample was taken."""
    return sample["others"] > DISTURBED


def measure(table: str, names: list[str], rounds: int, threads: int, say: Callable[[str], None]) -> Measured:
    """Start the contenders, warm each up with a round that does not count, then let them take turns.

    A round in which somebody else was busy is repeated, up to ``2 * rounds`` in all. Where the CPU has no such instructions,
    contenders in bfloat16 are skipped: its products are emulated there, for minutes, and say nothing about anyone.
    """
    measured = Measured(table, [], {})
    rounds = min(rounds, TABLES[table].most_rounds)
    with ExitStack() as stack:
        workers = []
        for name in names:
            contender = TABLES[table].contenders[name]
            if not contender.is_installed:
                measured.skipped[name] = contender.notice
            elif contender.is_bf16 and not bf16_in_hardware():
                measured.skipped[name] = NEEDS_BF16
            if name in measured.skipped:
                say(f"skipped {contender.label}: {measured.skipped[name]}")
                continue
            worker = Worker(table, name, threads)
            stack.callback(worker.close)
            say(f"{contender.label}: warm-up {worker.round()['wall']:.1f} s")
            workers.append(worker)
        n_quiet = 0
        while workers and n_quiet < rounds and len(measured.rounds) < 2 * rounds:
            samples = {worker.name: worker.round() for worker in workers}
            measured.rounds.append(samples)
            disturbed = [name for name, sample in samples.items() if is_disturbed(sample)]
            n_quiet += not disturbed
            say(
                f"round {len(measured.rounds)}"
                + (f", disturbed: {', '.join(disturbed)}" if disturbed else "")
            )
    return measured
