"""What must hold before the first step of training, checked while it happens and said in a plain sentence if not."""

import math
import warnings
from numbers import Integral, Real
from typing import Any

import numpy as np

from agents.episodes import EpisodeBuffer


class SelfCheckWarning(UserWarning):
    """Training goes on, but one of its premises does not hold: the numbers that follow mean something else."""


def check_rollout(
    buffer: EpisodeBuffer, reference_is_policy: bool, tolerance: float, reference_tolerance: float = 0.0
) -> None:
    """Compare the log-probabilities of the rollout, of a full forward pass, and of the reference.

    Args:
        reference_is_policy: true before the first update if the reference is the policy's own copy.
        tolerance: nats; rounding differences between step-by-step decoding and one pass.
        reference_tolerance: nats; rounding differences between the policy and its copy, if that is held in another way.
    """
    difference = np.abs(buffer.sampled_log_probs - buffer.log_probs).mean()
    if difference > tolerance:
        _warn(
            f"The log-probabilities of the sampled tokens differ from those of a full forward pass by {difference:.2g} nats "
            "on average. Was the distribution changed between the two: dropout, a temperature, masks, or the weights?"
        )
    if reference_is_policy:
        differences = np.abs(buffer.log_probs - buffer.ref_log_probs)
        if differences.mean() > reference_tolerance:
            _warn(
                f"The policy has not been trained yet, but its log-probabilities differ from its reference's by up to "
                f"{differences.max():.2g} nats: the KL penalty would not be 0 at the start. Is the reference another model "
                "or temperature?"
            )


def check_first_minibatch(approx_kl: float, clip_fraction: float, tolerance: float) -> None:
    """Before the first optimiser step the policy is the one that wrote the episodes: the ratio is 1."""
    if approx_kl > tolerance or clip_fraction > 0:
        _warn(
            f"Before the first optimiser step the probability ratio should be 1, but approx_kl is {approx_kl:.2g} and "
            f"{clip_fraction:.1%} of the tokens are clipped. Is dropout on, or are the old log-probabilities another model's?"
        )


def check_groups(buffer: EpisodeBuffer, samples_per_prompt: int) -> None:
    """Raise RuntimeError unless the rollout holds whole groups, each of ``samples_per_prompt`` responses to one prompt."""
    if samples_per_prompt == 1:
        return
    prompts: dict[int, list[bytes]] = {}
    for episode in buffer.episodes:
        prompts.setdefault(episode.group, []).append(episode.ids[: episode.positions[0]].tobytes())
    for group, seen in prompts.items():
        if len(seen) != samples_per_prompt or len(set(seen)) > 1:
            raise RuntimeError(
                f"Group {group} of the rollout holds {len(seen)} responses to {len(set(seen))} prompts, not "
                f"{samples_per_prompt} to one. Does the environment reset rows by itself? Use gymnasium.make_vec's own."
            )


def check_counts(owner: str, **counts: int | None) -> None:
    """Raise ValueError for a count of ``owner``'s that is given and not a whole number of at least 1."""
    for name, count in counts.items():
        if count is not None and not (isinstance(count, Integral) and count >= 1):
            raise ValueError(f"{name} is {count}: in {owner}. It must be a whole number, at least 1.")


def check_schedules(owner: str, **schedules: Any) -> None:
    """Raise ValueError for a number of ``owner``'s, or a schedule that begins with one, that is negative or not finite."""
    for name, schedule in schedules.items():
        value = schedule(1.0) if callable(schedule) else schedule
        if value is not None and not (isinstance(value, Real) and 0 <= float(value) < math.inf):
            raise ValueError(
                f"{name} is {value}: in {owner}. Give a finite number of 0 or more, or a schedule of such."
            )


def _warn(sentence: str) -> None:
    warnings.warn(sentence, SelfCheckWarning, stacklevel=4)
