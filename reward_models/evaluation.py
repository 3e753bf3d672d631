"""How well a reward model agrees with people: accuracy beside theirs and beside simple baselines, and how sure it may be."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from reward_models.baselines import BagOfWords, LongerWins
from reward_models.completion import Completion, RewardModel, score
from reward_models.preferences.rankings import pairs_of
from reward_models.preferences.records import Comparison, Ranking, RecordError
from reward_models.registration import make

Z = 1.959964  # of a 95 % interval
BINS = 10
SHOWN = 10  # disagreements that are kept to be read


@dataclass(frozen=True)
class Share:
    """A share of votes with its 95 % interval: Wilson's, at the effective number of votes.

    Votes on one prompt are alike, so that they count for less: n is divided by the design effect, the variance of the share
    with prompts as clusters over that of as many independent votes (Kish 1965). Where all agree, the prompts count.
    """

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, hits: np.ndarray, clusters: Sequence[Any]) -> Share:
        """From hits, 0 to 1, shape [n], and what each belongs to."""
        hits = np.asarray(hits, dtype=float)
        n, p = len(hits), float(hits.mean())
        places: dict[Any, int] = {}
        inverse = np.array([places.setdefault(cluster, len(places)) for cluster in clusters])
        n_clusters = len(places)
        effective = float(n_clusters)
        if 0 < p < 1 and n_clusters > 1:
            sums = np.bincount(inverse, hits - p)
            variance = n_clusters / (n_clusters - 1) * float((sums**2).sum()) / n**2
            effective = min(n, p * (1 - p) / variance) if variance > 0 else n
        return cls(p, *wilson(p, effective), n)


@dataclass(frozen=True)
class Bin:
    """The pairs on which the model is about as sure: mean confidence, share that it gets right, how many they are."""

    confidence: float
    accuracy: float
    n: int


@dataclass(frozen=True)
class Disagreement:
    """A pair on which model and rater differ, and by how much the model prefers what the rater rejected."""

    prompt: str
    chosen: str
    rejected: str
    chosen_score: float
    rejected_score: float
    rater: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found. Only votes with a winner count; a ranking counts as its pairs.

    Attributes:
        accuracy: how often the preferred response has the higher score; equal scores are half right.
        longer_wins, bag_of_words: the same of the baselines; the latter None without training preferences.
        rater_agreement: how often two raters of one pair prefer the same response; None where no pair has two.
        ceiling: how often a judge who is always right would agree with such raters, if each slips alike and by himself:
            (1 + sqrt(2 x agreement - 1)) / 2.
        log_loss: nats per vote, the chance of a preference being sigmoid of the scores' difference; log 2 knows nothing.
        ece: expected calibration error: |accuracy - confidence|, mean over the pairs by bin (Guo et al. 2017).
        reliability: those bins.
        length_correlation: Spearman's, between a response's score and its characters.
        accuracy_longer_preferred, accuracy_shorter_preferred: accuracy where raters prefer the longer, or the shorter.
        disagreements: those on which the model is surest, to be read.
        votes, ties, unjudged: votes with a winner; ties and "both bad"; skipped or unranked ones.
        prompts: how many the votes are about.
        shared_prompts: prompts that the training preferences have too.
        points: (characters, score, preferred) of the responses, for the figure.
    """

    accuracy: Share
    longer_wins: Share
    bag_of_words: Share | None
    rater_agreement: Share | None
    ceiling: float | None
    log_loss: float
    ece: float
    reliability: list[Bin]
    length_correlation: float
    accuracy_longer_preferred: Share | None
    accuracy_shorter_preferred: Share | None
    disagreements: list[Disagreement]
    votes: int
    ties: int
    unjudged: int
    prompts: int
    shared_prompts: int
    points: list[tuple[int, float, bool]]

    def to_json(self) -> dict[str, Any]:
        """JSON values of everything but the points; what is not a number is null."""
        values = asdict(self)
        del values["points"]
        return _finite(values)


def evaluate(
    model: Any,
    preferences: Sequence[Comparison | Ranking],
    train_preferences: Sequence[Comparison | Ranking] | None = None,
) -> Evaluation:
    """Measure a reward model on preferences that it was not trained on.

    Args:
        model: a reward model, or what `reward_models.make` takes.
        preferences: comparisons and rankings.
        train_preferences: what the model was trained on: the bag of words learns from the same, and prompts that occur in
            both are counted.

    Raises:
        RecordError: no comparison has a winner.
    """
    judge = make(model)
    compared = comparisons_of(preferences)
    decided = [comparison for comparison in compared if comparison.chosen is not None]
    if not decided:
        raise RecordError(
            f"None of the {len(compared)} comparisons has a winner, so there is nothing to measure."
        )
    clusters = [comparison.prompt for comparison in decided]
    chosen, rejected = pair_scores(judge, decided)
    hits = np.heaviside(chosen - rejected, 0.5)
    # A calibrated classifier scores in standard deviations; the chances are those of its logits.
    logits = (chosen - rejected) * getattr(judge, "std", 1.0)
    lengths = np.array([[len(c.chosen or ""), len(c.rejected or "")] for c in decided])
    reliability = reliability_bins(logits)
    trained_on = comparisons_of(train_preferences or [])
    words = BagOfWords.fit(trained_on) if any(c.chosen is not None for c in trained_on) else None
    agreement = rater_agreement(decided)
    return Evaluation(
        accuracy=Share.of(hits, clusters),
        longer_wins=_accuracy(LongerWins(), decided, clusters),
        bag_of_words=_accuracy(words, decided, clusters) if words else None,
        rater_agreement=agreement,
        ceiling=(1 + math.sqrt(max(0.0, 2 * agreement.value - 1))) / 2 if agreement else None,
        log_loss=float(np.logaddexp(0, -logits).mean()),
        ece=sum(b.n * abs(b.accuracy - b.confidence) for b in reliability) / len(decided),
        reliability=reliability,
        length_correlation=spearman(lengths.T.ravel(), np.concatenate([chosen, rejected])),
        accuracy_longer_preferred=_where(hits, clusters, lengths[:, 0] > lengths[:, 1]),
        accuracy_shorter_preferred=_where(hits, clusters, lengths[:, 0] < lengths[:, 1]),
        disagreements=_disagreements(decided, chosen, rejected),
        votes=len(decided),
        ties=sum(comparison.preference == 0.5 for comparison in compared),
        unjudged=sum(comparison.preference is None for comparison in compared),
        prompts=len(set(clusters)),
        shared_prompts=len(set(clusters) & {comparison.prompt for comparison in trained_on}),
        points=[
            *((int(n), float(s), True) for n, s in zip(lengths[:, 0], chosen)),
            *((int(n), float(s), False) for n, s in zip(lengths[:, 1], rejected)),
        ],
    )


def comparisons_of(preferences: Sequence[Comparison | Ranking]) -> list[Comparison]:
    """The comparisons, and the pairs of the rankings.

    Raises:
        RecordError: a record of another kind.
    """
    pairs: list[Comparison] = []
    for record in preferences:
        if isinstance(record, Ranking):
            pairs += pairs_of(record)
        elif isinstance(record, Comparison):
            pairs.append(record)
        else:
            raise RecordError(f"A {type(record).__name__} prefers nothing. Give comparisons and rankings.")
    return pairs


def pair_scores(judge: RewardModel, comparisons: Sequence[Comparison]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the preferred and of the rejected responses, each of shape [n]; each different text is scored once."""
    asked: dict[tuple[str, str], Completion] = {}
    for comparison in comparisons:
        for text in comparison.responses:
            asked.setdefault(
                (comparison.prompt, text), Completion(comparison.prompt, text, columns=comparison.columns)
            )
    scores = dict(zip(asked, score(judge, list(asked.values()))))
    return (
        np.array([scores[c.prompt, c.chosen or ""] for c in comparisons]),
        np.array([scores[c.prompt, c.rejected or ""] for c in comparisons]),
    )


def rater_agreement(comparisons: Sequence[Comparison]) -> Share | None:
    """How often two raters of one pair prefer the same response: a mean over the pairs that have two; None where none has."""
    votes: dict[Any, dict[str, str]] = defaultdict(dict)
    for number, comparison in enumerate(comparisons):
        if comparison.chosen is not None:
            pair = (comparison.prompt, frozenset(comparison.responses))
            votes[pair][comparison.rater or f"unnamed {number}"] = comparison.chosen
    agree, prompts = [], []
    for (prompt, _), choices in votes.items():
        if len(choices) > 1:
            agree.append(np.mean([a == b for a, b in combinations(choices.values(), 2)]))
            prompts.append(prompt)
    return Share.of(np.array(agree), prompts) if agree else None


def reliability_bins(logits: np.ndarray) -> list[Bin]:
    """Pairs by how sure the model is: `BINS` bins of equal width from 0.5 to 1; empty ones are left out.

    Args:
        logits: score of the preferred minus that of the rejected response, shape [n].
    """
    confidence = 1 / (1 + np.exp(-np.abs(logits)))
    hits = np.heaviside(logits, 0.5)
    place = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    return [
        Bin(float(confidence[inside].mean()), float(hits[inside].mean()), int(inside.sum()))
        for inside in (place == number for number in range(BINS))
        if inside.any()
    ]


def wilson(p: float, n: float) -> tuple[float, float]:
    """Wilson's (1927) 95 % interval of a share p of n."""
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; NaN where one of the two is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _accuracy(judge: RewardModel, comparisons: Sequence[Comparison], clusters: Sequence[str]) -> Share:
    chosen, rejected = pair_scores(judge, comparisons)
    return Share.of(np.heaviside(chosen - rejected, 0.5), clusters)


def _where(hits: np.ndarray, clusters: Sequence[str], mask: np.ndarray) -> Share | None:
    return Share.of(hits[mask], [c for c, inside in zip(clusters, mask) if inside]) if mask.any() else None


def _disagreements(
    comparisons: Sequence[Comparison], chosen: np.ndarray, rejected: np.ndarray
) -> list[Disagreement]:
    """Those on which the model is surest, each pair once, however many raters said so."""
    worst: dict[Any, Disagreement] = {}
    for i in np.argsort(chosen - rejected, kind="stable"):
        if chosen[i] >= rejected[i] or len(worst) == SHOWN:
            break
        c = comparisons[i]
        texts = (c.prompt, c.chosen or "", c.rejected or "")
        worst.setdefault(texts, Disagreement(*texts, float(chosen[i]), float(rejected[i]), c.rater, c.reason))
    return list(worst.values())


def _finite(value: Any) -> Any:
    """`value` with NaN as None, all the way down."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
