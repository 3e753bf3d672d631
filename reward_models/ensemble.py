"""Several reward models that learned the same with different seeds: their mean, their caution, and where they disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from reward_models.combine import counts_of
from reward_models.completion import Completion, RewardError, excerpt, score
from reward_models.registration import make

Combine = Literal["mean", "min", "mean_minus_variance"]


class Ensemble:
    """Combines reward models on one scale, such as calibrated ones. Range: that of the members.

    Coste et al. 2024, "Reward Model Ensembles Help Mitigate Overoptimization": the mean (section 3.2), the worst case (WCO,
    eq. 4), and the mean less a multiple of the variance within the ensemble (UWO, eq. 5).

    Args:
        models: two or more reward models, or what `make` takes: folders, names, dicts.
        combine: "mean", "min", or "mean_minus_variance".
        variance_coef: lambda of the last; 0.1 (between Coste et al.'s best for best-of-n, 0.5, and for PPO, 0.01 to 0.1).
    """

    def __init__(self, models: Sequence[Any], combine: Combine = "mean", variance_coef: float = 0.1) -> None:
        if isinstance(models, str | Mapping) or len(models) < 2:
            raise RewardError(
                f"ensemble: models is {excerpt(models)}. Give a list of two or more reward models."
            )
        if combine not in get_args(Combine):
            raise RewardError(
                f"ensemble: combine is {combine!r}. Choose one of {', '.join(get_args(Combine))}."
            )
        if not variance_coef >= 0:
            raise RewardError(
                f"ensemble: variance_coef is {variance_coef}. Give a number that is not negative."
            )
        self.models = [make(model) for model in models]
        self.combine, self.variance_coef = combine, float(variance_coef)

    def __repr__(self) -> str:
        return f"Ensemble({self.models}, {self.combine!r})"

    def __call__(self, completions: Sequence[Completion]) -> np.ndarray:
        """Scores, float64, shape [n]."""
        members = self.members(completions)
        if self.combine == "min":
            return members.min(0)
        if self.combine == "mean":
            return members.mean(0)
        return members.mean(0) - self.variance_coef * members.var(0)

    def members(self, completions: Sequence[Completion]) -> np.ndarray:
        """The scores of each member by itself, float64, shape [members, n]."""
        return np.stack([score(model, completions) for model in self.models])

    def disagreement(self, prompt: str, responses: Sequence[str]) -> np.ndarray:
        """How much the members differ about each pair: the standard deviation, over them, of the difference of its scores.

        Serves as `uncertainty` where a `FeedbackStore` is asked for comparisons with pairing "uncertain".

        Returns:
            float64, shape [K, K], symmetric, 0 on the diagonal.
        """
        scores = self.members([Completion(prompt, response) for response in responses])
        return (scores[:, :, None] - scores[:, None, :]).std(0)

    @property
    def std(self) -> float:
        """How many logits one unit of score is: 1, or of calibrated members the mean of their standard deviations."""
        return float(np.mean([getattr(model, "std", 1.0) for model in self.models]))

    @property
    def counts(self) -> dict[str, int]:
        """What the guarded members counted, added up."""
        return counts_of(*self.models)
