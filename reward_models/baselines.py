"""What a learned reward model must beat: the longer answer wins, and a bag of words. Both are reward models themselves."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from reward_models.completion import Completion
from reward_models.preferences.records import Comparison, RecordError
from reward_models.preferences.splits import folds

WORD = re.compile(r"\w+|[^\w\s]")
PENALTIES = (0.3, 3.0, 30.0)  # on half the squared weights of the summed loss: sklearn's 1 / C


class LongerWins:
    """Scores a response by its length in characters."""

    def __call__(self, completions: Sequence[Completion]) -> np.ndarray:
        """Scores, float64, shape [n]."""
        return np.array([float(len(completion.response)) for completion in completions])


class BagOfWords:
    """Bradley-Terry on a response's words and pairs of neighbouring words: a logistic regression on their counts.

    The features are log(1 + count) of each lower-cased word, punctuation mark and pair of neighbours that stands in at least
    two training responses. The penalty on the weights is the one, of `PENALTIES`, under which held-out thirds of the
    training prompts are likeliest.

    >>> judge = BagOfWords.fit(comparisons)
    >>> reward_models.score(judge, completions)
    """

    def __init__(self, weights: dict[str, float]) -> None:
        self.weights = weights

    @classmethod
    def fit(cls, comparisons: Sequence[Comparison]) -> BagOfWords:
        """Learn from the comparisons that have a winner.

        Raises:
            RecordError: there are none.
        """
        decided = [comparison for comparison in comparisons if comparison.chosen is not None]
        if not decided:
            raise RecordError("A bag of words needs comparisons with a winner, and there are none.")
        differences, places = _differences(decided)
        weights = _minimise(differences, _best_penalty(decided))
        return cls(dict(zip(places, weights.tolist())))

    def __call__(self, completions: Sequence[Completion]) -> np.ndarray:
        """Scores, float64, shape [n]."""
        return np.array(
            [
                sum(
                    self.weights.get(term, 0.0) * value
                    for term, value in features(completion.response).items()
                )
                for completion in completions
            ]
        )


def terms(text: str) -> list[str]:
    """The words of a text and the pairs of neighbouring words."""
    words = WORD.findall(text.lower())
    return words + [f"{first} {second}" for first, second in pairwise(words)]


def features(text: str) -> dict[str, float]:
    """log(1 + count) of each term."""
    return {term: math.log1p(count) for term, count in Counter(terms(text)).items()}


def _best_penalty(comparisons: Sequence[Comparison]) -> float:
    """The penalty under which thirds of the prompts, held out in turn, are likeliest; the middle one for too few prompts."""
    if len({comparison.prompt for comparison in comparisons}) < 6:
        return PENALTIES[1]
    losses = dict.fromkeys(PENALTIES, 0.0)
    for train, test in folds(comparisons, 3):
        differences, places = _differences(train)
        held_out, _ = _differences(test, places)
        for penalty in PENALTIES:
            losses[penalty] += softplus(-(held_out @ _minimise(differences, penalty))).sum().item()
    return min(losses, key=losses.__getitem__)


def _minimise(differences: Tensor, penalty: float) -> Tensor:
    """The weights that minimise sum of log(1 + exp(-differences @ weights)) + penalty / 2 x squared weights (L-BFGS)."""
    weights = torch.zeros(differences.shape[1], dtype=torch.float64, requires_grad=True)
    if not len(weights):  # no term stands in two responses: nothing is known of new ones
        return weights.detach()
    optimiser = torch.optim.LBFGS(
        [weights], max_iter=100, history_size=20, tolerance_change=1e-6, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = softplus(-(differences @ weights)).sum() + penalty / 2 * weights.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach()


def _differences(
    comparisons: Sequence[Comparison], places: dict[str, int] | None = None
) -> tuple[Tensor, dict[str, int]]:
    """Features of the chosen response minus those of the rejected one, sparse, float64, shape [comparisons, terms].

    Args:
        places: the column of each term; None: those that stand in at least two of the responses here.
    """
    of_text = {text: features(text) for comparison in comparisons for text in comparison.responses}
    if places is None:
        seen = Counter(term for found in of_text.values() for term in found)
        places = {term: place for place, term in enumerate(sorted(t for t, n in seen.items() if n > 1))}
    rows, columns, values = [], [], []
    for row, comparison in enumerate(comparisons):
        for text, sign in ((comparison.chosen, 1.0), (comparison.rejected, -1.0)):
            found = of_text[text or ""]
            known = [term for term in found if term in places]
            rows += [row] * len(known)
            columns += [places[term] for term in known]
            values += [sign * found[term] for term in known]
    indices, shape = torch.tensor([rows, columns], dtype=torch.long), (len(comparisons), len(places))
    matrix = torch.sparse_coo_tensor(indices, values, shape, dtype=torch.float64, check_invariants=True)
    return matrix.coalesce(), places
