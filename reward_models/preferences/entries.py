"""What goes into a feedback store and comes out of it: samples, raters, assignments, votes; and what can go wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from reward_models.preferences.records import Origin

Kind = Literal["comparison", "ranking", "demonstration", "rating"]
KINDS: tuple[str, ...] = get_args(Kind)


class FeedbackError(ValueError):
    """The store cannot do what was asked. Says why and how to mend it; `status` is the HTTP status that fits."""

    status: ClassVar[int] = 400


class Unavailable(FeedbackError):
    """The database is damaged, busy for too long, or does not answer."""

    status = 503


class NotFound(FeedbackError):
    """No such prompt, sample, item, rater or assignment; or it is another rater's."""

    status = 404


class Conflict(FeedbackError):
    """It contradicts what is stored: a key used for another vote, a second vote on one assignment, a name that is taken."""

    status = 409


class LeaseExpired(FeedbackError):
    """The assignment's lease ran out, and others have taken its place since."""

    status = 410


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer of a model to one prompt.

    Attributes:
        prompt: the text.
        response: the text.
        origin: which weights wrote it, and how it was drawn.
        columns: the prompt's other dataset fields (a reference, a label); JSON values.
    """

    prompt: str
    response: str
    origin: Origin = field(default_factory=Origin)
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Rater:
    """Who rates. An organiser may also see progress and write the guidelines."""

    id: int
    name: str
    organiser: bool = False


@dataclass(frozen=True, slots=True)
class RaterAccess:
    """A new rater's way in. The token is known here and nowhere else: the store keeps its sha256."""

    id: int
    name: str
    token: str


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to be rated.

    Attributes:
        id: in the store.
        kind: "comparison", "ranking", "demonstration" or "rating".
        prompt: the text.
        responses: in stored order, the order of the records. A rater may see another.
        columns: the prompt's other dataset fields.
        overlap: how many raters are to rate it.
        gold: the right answer, about the responses in stored order; None where nobody said.
    """

    id: int
    kind: Kind
    prompt: str
    responses: tuple[str, ...]
    columns: Mapping[str, Any] = field(hash=False)
    overlap: int
    gold: Mapping[str, Any] | None = field(default=None, hash=False)


@dataclass(frozen=True, slots=True)
class Assignment:
    """One item in one rater's hands.

    Attributes:
        id, item, rater: ids in the store.
        kind: what is asked: "comparison", "ranking", "demonstration" or "rating".
        prompt: the text.
        responses: in the order shown to this rater, which is random per assignment and recorded. Comparison 2, ranking K,
            rating 1, demonstration none.
        columns: the prompt's other dataset fields.
        expires: end of the lease, unix seconds; the place is then given to others who ask.
        draft: the text that the rater saved last.
    """

    id: int
    item: int
    rater: int
    kind: Kind
    prompt: str
    responses: tuple[str, ...]
    columns: Mapping[str, Any] = field(hash=False)
    expires: float
    draft: str = ""


@dataclass(frozen=True, slots=True)
class Vote:
    """One row of the append-only table of votes.

    Attributes:
        id: grows with time.
        key: the client's idempotency key.
        item, rater, assignment: ids in the store.
        kind: the item's kind, or "undo" for a row that takes back the vote `supersedes`.
        answer: as the rater gave it, about the responses as shown to them; empty for an undo.
        shown: shown[i] is the place in the stored item of the response that the rater saw at place i.
        reason: the rater's own words.
        seconds: that the rater took; None where nobody measured.
        created: unix seconds.
        supersedes: id of the vote that this row takes back.
        repeated: the key had been stored before, with the same content: nothing was written this time.
    """

    id: int
    key: str
    item: int
    rater: int
    assignment: int
    kind: str
    answer: Mapping[str, Any] = field(hash=False)
    shown: tuple[int, ...]
    reason: str
    seconds: float | None
    created: float
    supersedes: int | None = None
    repeated: bool = False

    @property
    def stored(self) -> dict[str, Any]:
        """The answer about the responses in stored order, in which raters of one item can be compared."""
        return as_stored(self.kind, self.answer, self.shown)


def as_stored(kind: str, answer: Mapping[str, Any], shown: Sequence[int]) -> dict[str, Any]:
    """An answer about responses as shown, as one about responses in stored order.

    Args:
        kind: of the item.
        answer: of a comparison, left and right are places shown; of a ranking, ranks stand in the order shown.
        shown: shown[i] is the stored place of the response shown at place i.
    """
    if kind == "comparison" and answer["choice"] in ("left", "right"):
        return {"choice": ("left", "right")[shown[("left", "right").index(answer["choice"])]]}
    if kind == "ranking":
        ranks: list[int | None] = [None] * len(shown)
        for rank, place in zip(answer["ranks"], shown):
            ranks[place] = rank
        return {"ranks": ranks}
    return dict(answer)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the collection is.

    Attributes:
        items: requested.
        items_done: with as many votes as their overlap.
        votes: current ones, without those taken back.
        votes_needed: the sum of all overlaps.
        by_kind: {kind: {"items", "items_done", "votes", "votes_needed"}}.
        by_rater: one mapping per rater: "rater" (id), "name", "votes", "skips", "undone", "seconds_median" (None without
            times), "gold" (votes on items whose answer is known), "gold_accuracy" (0 to 1; None without such votes).
    """

    items: int
    items_done: int
    votes: int
    votes_needed: int
    by_kind: Mapping[str, Mapping[str, int]] = field(hash=False)
    by_rater: tuple[Mapping[str, Any], ...]
