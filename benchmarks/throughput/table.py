"""A table of the benchmark: contenders that take turns, and the bars that their ratios should reach."""

from dataclasses import dataclass, field
from typing import Literal

from benchmarks.throughput.contender import Contender


@dataclass(frozen=True)
class Bar:
    """``ours`` is to be ``limit`` times as fast as ``theirs``; of "time" and "memory" it may take ``limit`` times theirs.

    Attributes:
        limit: None for a ratio that is shown for what it tells and has no bar.
        lever: what the ratio comes from: "loop" (how an iteration is arranged: what is computed once, what is left out),
            "precision" (bfloat16 against float32), "shared value" (a value head on the policy's trunk, no critic of its own).
    """

    ours: str
    theirs: str
    limit: float | None
    lever: str
    quantity: Literal["speed", "time", "memory"] = "speed"


@dataclass(frozen=True)
class Table:
    """Contenders that take turns, round after round.

    Attributes:
        shown: how a contender's seconds per unit of work are shown: "tokens/s", or "ms per ..." and "µs per ...".
        contenders: by the short names that ``bars`` and ``--only`` use.
        most_rounds: rounds of this table at most.
    """

    title: str
    shown: str
    contenders: dict[str, Contender]
    bars: list[Bar] = field(default_factory=list)
    most_rounds: int = 1000
