"""Five folds by prompt: a reward model and the baselines, trained and tested on the same comparisons."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reward_models.backbones import Backbone
from benchmarks.reward_models.preference_sets import PreferenceSet
from reward_models.baselines import BagOfWords, LongerWins
from reward_models.evaluation import Share, pair_scores, rater_agreement
from reward_models.learning import train
from reward_models.preferences import Comparison, Ranking
from reward_models.preferences.formats import rankings_of
from reward_models.preferences.splits import folds

FOLDS = 5
RANKED_EPOCHS = 2  # over rankings, each of several long responses
MOST_PAIRS = 4000  # to train on, in a fold: a cap for the sake of time, the same for the bag of words


@dataclass
class Judged:
    """One judge on all test comparisons: hits of each fold, and the accuracy over all of them."""

    by_fold: list[float]
    accuracy: Share


@dataclass
class CrossValidated:
    """A set's result.

    Attributes:
        judges: by name: "bag of words", "longer wins", and the reward models.
        comparisons, prompts: with a winner, in the whole set. trained_on: in one fold, at most.
        epochs: passes over the training pairs, of each reward model.
        agreement: of two raters of one pair, where a set has several.
        seconds: of all folds, training of the models alone.
    """

    name: str
    bar: float | None
    comparisons: int
    prompts: int
    trained_on: int
    judges: dict[str, Judged] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    agreement: Share | None = None

    def gap(self, judge: str) -> float:
        """How far a judge is above the bag of words."""
        return self.judges[judge].accuracy.value - self.judges["bag of words"].accuracy.value


def cross_validate(
    wanted: PreferenceSet,
    records: Sequence[Comparison],
    backbones: dict[str, Backbone],
    data: Path,
    seed: int,
    say: Callable[[str], None],
) -> CrossValidated:
    """Train and test on each fold. Prompts are split, so that no test prompt was trained on."""
    decided = [record for record in records if record.chosen is not None]
    parts = folds(records, FOLDS, seed)
    hits: dict[str, list[np.ndarray]] = {}
    clusters: list[str] = []
    result = CrossValidated(
        wanted.name, wanted.bar, len(decided), len({r.prompt for r in decided}), 0, agreement=rater_agreement(decided)
    )  # fmt: skip
    for number, (learned, tested) in enumerate(parts, 1):
        learned = some(learned, MOST_PAIRS, seed)
        tested = [record for record in tested if record.chosen is not None]
        result.trained_on = max(result.trained_on, sum(record.chosen is not None for record in learned))
        clusters += [record.prompt for record in tested]
        judges: dict[str, Any] = {"longer wins": LongerWins(), "bag of words": BagOfWords.fit(learned)}
        for name, backbone in backbones.items():
            for kind, preferences, settings in _ways(wanted, name, learned):
                result.epochs[kind] = RANKED_EPOCHS if wanted.ranked else backbone.epochs(len(learned))
                started = time.perf_counter()
                judges[kind] = learn(
                    backbone, preferences, learned, data, seed, result.epochs[kind], settings
                )
                result.seconds[kind] = result.seconds.get(kind, 0.0) + time.perf_counter() - started
        for name, judge in judges.items():
            chosen, rejected = pair_scores(judge, tested)
            hits.setdefault(name, []).append(np.heaviside(chosen - rejected, 0.5))
        say(f"{wanted.name}, fold {number}: " + ", ".join(f"{n} {h[-1].mean():.3f}" for n, h in hits.items()))
    for name, of_folds in hits.items():
        accuracy = Share.of(np.concatenate(of_folds), clusters)
        result.judges[name] = Judged([float(fold.mean()) for fold in of_folds], accuracy)
    return result


def learn(
    backbone: Backbone,
    preferences: Sequence[Comparison | Ranking],
    comparisons: Sequence[Comparison],
    data: Path,
    seed: int,
    epochs: int,
    settings: dict[str, Any],
) -> Any:
    """A reward model, learned by the backbone's recipe."""
    model, tokenizer = backbone.make(comparisons, data)
    made = train(
        model, preferences, tokenizer=tokenizer, epochs=epochs, seed=seed, device="cpu", progress=None, margin_scale=0.0,
        **backbone.settings | settings,
    )  # fmt: skip
    return made.reward(batch_size=64)


def some(records: Sequence[Comparison], most: int, seed: int) -> list[Comparison]:
    """At most so many of the records, in their order."""
    if len(records) <= most:
        return list(records)
    kept = np.random.default_rng(seed).permutation(len(records))[:most]
    return [records[i] for i in sorted(kept)]


def _ways(
    wanted: PreferenceSet, name: str, learned: Sequence[Comparison]
) -> list[tuple[str, Sequence[Comparison | Ranking], dict[str, Any]]]:
    """How a backbone is trained on a set: its name in the table, what it learns from, and more settings."""
    if not wanted.ranked:
        return [(name, learned, {})]
    rankings = rankings_of(learned)
    # A ranking's pairs are one group of one batch: so many groups make the batch of the backbone's recipe.
    batch = {"batch_size": 8}
    return [
        (f"{name}, Plackett-Luce", rankings, batch),
        (f"{name}, pairs of a ranking together", rankings, {**batch, "ranking_loss": "pairs"}),
        (f"{name}, pairs apart", [_apart(pair) for pair in learned], {}),
    ]


def _apart(pair: Comparison) -> Comparison:
    return Comparison(pair.prompt, pair.responses, pair.choice, pair.rater)
