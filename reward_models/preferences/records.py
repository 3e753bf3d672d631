"""What people say of answers: `Demonstration`, `Comparison`, `Ranking`, `Rating`; and where an answer came from, `Origin`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from reward_models.completion import excerpt

Choice = Literal["left", "right", "tie", "both_bad", "skip"]
CHOICES: tuple[str, ...] = get_args(Choice)


class RecordError(ValueError):
    """A record cannot be what it says. Tells what is wrong, where, and how to mend it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a response came from, so that every preference can be traced to the policy that wrote it.

    Attributes:
        model: fingerprint of the weights, a sha256 in hex; "" where a person wrote the response or nobody knows.
        sampling: temperature, max_new_tokens and what else decided how it was drawn; JSON values.
        seed: of the sampling.
    """

    model: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict, hash=False)
    seed: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {"model": self.model, "sampling": dict(self.sampling), "seed": self.seed}

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Origin:
        """
        Raises:
            RecordError: it is no mapping, or a field of it is of another type.
        """
        fields = value or {}
        if isinstance(fields, Mapping):
            model, sampling, seed = fields.get("model", ""), fields.get("sampling") or {}, fields.get("seed")
            is_seed = seed is None or (isinstance(seed, int) and not isinstance(seed, bool))
            if isinstance(model, str) and isinstance(sampling, Mapping) and is_seed:
                return cls(model, dict(sampling), seed)
        raise RecordError(
            f"has the origin {excerpt(value)}. Give an object of model, a text; sampling, an object; and seed, a whole "
            "number or null."
        )


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A good answer that a person wrote."""

    prompt: str
    response: str
    rater: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Rating:
    """One answer, and how good a person finds it. Larger is better; the scale is the collection's own."""

    prompt: str
    response: str
    score: float
    rater: str = ""
    reason: str = ""
    origin: Origin = Origin()
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not math.isfinite(self.score):
            raise RecordError(f"A rating's score is {self.score}. Give a finite number.")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one prompt, and which a person prefers.

    Attributes:
        responses: left and right, as the record keeps them; a rater may have seen them the other way round.
        choice: "left", "right", "tie", "both_bad" (neither is good enough to be preferred), or "skip" (no judgement).
        reason: the rater's own words.
        origins: of the two responses.
        group: comparisons that were made of one ranking share it; "" for one that stands alone.
        margin: by how much the better one is better, in the data set's own scale; None where nobody said.
        weight: how much this comparison counts in training.
    """

    prompt: str
    responses: tuple[str, str]
    choice: Choice
    rater: str = ""
    reason: str = ""
    origins: tuple[Origin, Origin] = (Origin(), Origin())
    group: str = ""
    margin: float | None = None
    weight: float = 1.0
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.choice not in CHOICES:
            raise RecordError(
                f"A comparison's choice is {self.choice!r}. Choose one of {', '.join(CHOICES)}."
            )
        if len(self.responses) != 2 or len(self.origins) != 2:
            raise RecordError(
                f"A comparison has {len(self.responses)} responses and {len(self.origins)} origins. Give two of each."
            )
        _check_weight(self.weight)
        if self.margin is not None and not math.isfinite(self.margin):
            raise RecordError(f"A comparison's margin is {self.margin}. Give a finite number, or none.")

    @property
    def preference(self) -> float | None:
        """The share of the preference that is left's: 1.0, 0.0, 0.5 for a tie or both bad; None where it was skipped."""
        return {"left": 1.0, "right": 0.0, "tie": 0.5, "both_bad": 0.5}.get(self.choice)

    @property
    def chosen(self) -> str | None:
        """The preferred response; None where neither is."""
        return {"left": self.responses[0], "right": self.responses[1]}.get(self.choice)

    @property
    def rejected(self) -> str | None:
        """The other response; None where neither is preferred."""
        return {"left": self.responses[1], "right": self.responses[0]}.get(self.choice)


@dataclass(frozen=True, slots=True)
class Ranking:
    """K answers to one prompt in a person's order.

    Attributes:
        responses: K texts.
        ranks: K ranks, 1 for the best; equal ranks are ties; None for a response that the rater could not rank.
        origins: of the K responses; not given: nobody knows.
    """

    prompt: str
    responses: tuple[str, ...]
    ranks: tuple[int | None, ...]
    rater: str = ""
    reason: str = ""
    origins: tuple[Origin, ...] = ()
    weight: float = 1.0
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if len(self.responses) < 2 or len(self.ranks) != len(self.responses):
            raise RecordError(
                f"A ranking has {len(self.responses)} responses and {len(self.ranks)} ranks. Give at least two responses "
                "and one rank for each (null for one that cannot be ranked)."
            )
        if not self.origins:
            object.__setattr__(self, "origins", (Origin(),) * len(self.responses))
        if len(self.origins) != len(self.responses):
            raise RecordError(
                f"A ranking of {len(self.responses)} responses has {len(self.origins)} origins. Give one for each, or none."
            )
        _check_weight(self.weight)
        for rank in self.ranks:
            if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 1):
                raise RecordError(f"A rank is {rank!r}. Give whole numbers from 1, the best, or null.")

    @property
    def group(self) -> str:
        """Names this ranking: its pairs carry it, so that they can be put together again."""
        content = [self.prompt, self.responses, self.ranks, self.rater, self.reason, self.weight]
        content += [[origin.to_json() for origin in self.origins], dict(self.columns)]
        return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]


def _check_weight(weight: float) -> None:
    if not (math.isfinite(weight) and weight >= 0):
        raise RecordError(
            f"A record's weight is {weight}. Give a number from 0, which leaves it out, upwards."
        )


Record = Demonstration | Rating | Comparison | Ranking
Records = Sequence[Record]
