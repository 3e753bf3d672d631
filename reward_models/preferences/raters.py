"""SimulatedRater: a reward model in a rater's seat, so that the whole collection runs without people."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from reward_models.completion import Completion, RewardModel, score
from reward_models.preferences.entries import (
    Assignment,
    FeedbackError,
    Item,
    LeaseExpired,
    Progress,
    Rater,
    Vote,
)
from reward_models.preferences.records import CHOICES

BATCH = 256  # responses judged in one call, where the items to come are known


class RatingDesk(Protocol):
    """Where a rater gets items and leaves votes: a `FeedbackStore`, or an `HTTPClient` of one."""

    def rater(self, name: str) -> Rater: ...

    def assign(self, rater: int, *, kinds: Collection[str] | None = None) -> Assignment | None: ...

    def release(self, assignment: int) -> None: ...

    def save_draft(self, assignment: int, text: str) -> None: ...

    def vote(
        self,
        assignment: int,
        answer: Mapping[str, Any],
        *,
        key: str,
        reason: str = "",
        seconds: float | None = None,
        rater: int | None = None,
    ) -> Vote: ...

    def undo(self, rater: int, *, key: str) -> Assignment | None: ...

    def progress(self) -> Progress: ...


class SimulatedRater:
    """Rates as a person would whose taste is `judge`, with a person's noise.

    Of two answers with scores s, the left as shown wins with probability sigmoid((s_left - s_right) / temperature +
    position_bias), the Bradley-Terry model (Bradley and Terry 1952). K answers are ranked by the Plackett-Luce model, of
    which it is the case K = 2: each score / temperature gets Gumbel noise of its own, and the sums are sorted (Yellott 1977).
    A rating is the score with the same noise. What is drawn depends on the seed, the name, the prompt and the answers alone,
    not on the order of asking nor, without position bias, on the order shown: a run that was killed and starts again answers
    alike.

    Args:
        judge: a reward model on prompt, response and columns.
        temperature: of the noise, in units of the score; 0: the better one always wins.
        flip: probability that a choice is turned round; in a ranking, that two neighbours are exchanged.
        tie_band: scores that differ by no more are a tie.
        position_bias: log-odds added to the left one of two.
        seed: of all draws.
        name: of the rater. Raters of different names draw independently.
        writer: (prompt, columns) -> text, which answers demonstrations; None: they are left to others.

    Raises:
        ValueError: an argument that is out of its range.

    Example:
        >>> SimulatedRater(reward_models.make("sentiment"), flip=0.15).rate(FeedbackStore("feedback.db"))
    """

    def __init__(
        self,
        judge: RewardModel,
        temperature: float = 1.0,
        flip: float = 0.0,
        tie_band: float = 0.0,
        position_bias: float = 0.0,
        seed: int = 0,
        name: str = "simulated",
        writer: Callable[[str, Mapping[str, Any]], str] | None = None,
    ):
        limits = {"temperature": (temperature, np.inf), "flip": (flip, 1.0), "tie_band": (tie_band, np.inf)}
        for argument, (value, largest) in limits.items():
            if not 0 <= value <= largest:
                raise ValueError(f"{argument} is {value}. Give a number from 0 to {largest}.")
        self.judge = judge
        self.temperature, self.flip, self.tie_band, self.position_bias = (
            temperature,
            flip,
            tie_band,
            position_bias,
        )
        self.seed, self.name, self.writer = seed, name, writer
        self._scores: dict[int, dict[str, float]] = {}  # judged ahead: item, response, score

    @property
    def kinds(self) -> tuple[str, ...]:
        """What this rater answers."""
        return ("comparison", "ranking", "rating", *(() if self.writer is None else ("demonstration",)))

    def rate(self, desk: RatingDesk, n: int | None = None) -> int:
        """Answer what there is to answer.

        Args:
            desk: a `FeedbackStore`, or an `HTTPClient` of this rater's name.
            n: votes at most; None: until nothing is left for this rater.

        Returns:
            How many votes were cast.
        """
        rater = desk.rater(self.name)
        coming = {item.id: item for item in desk.items()} if hasattr(desk, "items") else {}
        self._scores.clear()
        votes, attempt = 0, 0
        assignment = None if n is not None and n <= 0 else desk.assign(rater.id, kinds=self.kinds)
        while assignment is not None:
            self._judge_ahead(assignment, coming)
            answer = self.answer(assignment)
            key = self.key(assignment, answer, attempt)
            try:
                repeated = desk.vote(assignment.id, answer, key=key, rater=rater.id).repeated
                votes += 1
            except LeaseExpired:  # the judge took its time, and others have rated it since
                repeated = False
            if votes == n and not repeated:
                break
            following = desk.assign(rater.id, kinds=self.kinds)
            if (
                repeated and following is not None and following.id == assignment.id
            ):  # that vote had been taken back
                votes, attempt = votes - 1, attempt + 1
            else:
                attempt = 0
            assignment = None if votes == n else following
        return votes

    def answer(self, assignment: Assignment) -> dict[str, Any]:
        """This rater's answer, in the form that `FeedbackStore.vote` takes.

        Raises:
            FeedbackError: a demonstration is asked for, and there is no writer.
        """
        if assignment.kind == "demonstration":
            if self.writer is None:
                raise FeedbackError("A simulated rater writes no demonstrations. Give it a writer.")
            return {"response": self.writer(assignment.prompt, assignment.columns)}
        scores = self._score(assignment)
        rng, noise = self._draws(assignment)
        if assignment.kind == "rating":
            return {"score": float(scores[0] + self.temperature * (noise[0] - np.euler_gamma))}
        order = self._order(
            scores, noise, rng, self.position_bias if assignment.kind == "comparison" else 0.0
        )
        ranks = self._ranks(scores, order)
        if assignment.kind == "ranking":
            return {"ranks": ranks}
        return {"choice": "tie" if ranks[0] == ranks[1] else CHOICES[ranks.index(1)]}

    def key(self, assignment: Assignment, answer: Mapping[str, Any], attempt: int = 0) -> str:
        """The idempotency key of this rater's vote: the same whenever it is asked for, in a resumed run too."""
        return "simulated-" + self._digest(assignment.id, assignment.item, answer, attempt).hex()[:32]

    def _order(
        self, scores: np.ndarray, noise: np.ndarray, rng: np.random.Generator, bias: float
    ) -> list[int]:
        """Places from the best down."""
        if self.temperature > 0:
            utilities = scores / self.temperature + noise
            utilities[0] += bias
        else:
            utilities = scores
        order = np.argsort(-utilities, kind="stable").tolist()
        for i, flipped in enumerate(rng.random(len(order) - 1) < self.flip):
            if flipped:
                order[i], order[i + 1] = order[i + 1], order[i]
        return order

    def _ranks(self, scores: np.ndarray, order: Sequence[int]) -> list[int]:
        """Ranks from 1, in the order shown. A response within the tie band of the one above it shares its rank."""
        ranks = [1] * len(order)
        for above, below in itertools.pairwise(order):
            tied = abs(scores[above] - scores[below]) <= self.tie_band
            ranks[below] = ranks[above] if tied else ranks[above] + 1
        return ranks

    def _draws(self, assignment: Assignment) -> tuple[np.random.Generator, np.ndarray]:
        """The randomness of one answer: Gumbel noise of each response, shape [responses], and a generator for the rest."""
        responses = assignment.responses
        digest = self._digest(assignment.kind, assignment.prompt, sorted(responses))
        rng = np.random.default_rng(int.from_bytes(digest, "big"))
        noise = np.empty(len(responses))
        noise[sorted(range(len(responses)), key=responses.__getitem__)] = rng.gumbel(size=len(responses))
        return rng, noise

    def _digest(self, *content: Any) -> bytes:
        return hashlib.sha256(json.dumps([self.seed, self.name, *content]).encode()).digest()

    def _score(self, assignment: Assignment) -> np.ndarray:
        """The judge's scores in the order shown, float64 [responses]."""
        known = self._scores.get(assignment.item, {})
        if set(assignment.responses) <= set(known):
            return np.array([known[response] for response in assignment.responses])
        return score(self.judge, _completions(assignment))

    def _judge_ahead(self, assignment: Assignment, coming: dict[int, Item]) -> None:
        """Judge the responses of this item and of those after it in one call, where these are known and not judged yet."""
        if assignment.item not in coming or assignment.kind == "demonstration":
            return
        batch: list[tuple[int, Completion]] = []
        for item_id in range(assignment.item, max(coming) + 1):
            if item_id in coming:
                batch += [(item_id, completion) for completion in _completions(coming.pop(item_id))]
            if len(batch) >= BATCH:
                break
        scores = score(self.judge, [completion for _, completion in batch])
        for (item_id, completion), value in zip(batch, scores):
            self._scores.setdefault(item_id, {})[completion.response] = float(value)


def _completions(asked: Assignment | Item) -> list[Completion]:
    return [Completion(asked.prompt, response, columns=asked.columns) for response in asked.responses]
