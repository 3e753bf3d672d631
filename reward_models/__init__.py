"""Judges of text: completions in, scores out. Knows no environment, no policy, and imports no torch by itself."""

from reward_models.completion import Completion, RewardError, RewardModel, score
from reward_models.guarded import Guarded
from reward_models.registration import make, register

__all__ = ["Completion", "Guarded", "RewardError", "RewardModel", "make", "register", "score"]
