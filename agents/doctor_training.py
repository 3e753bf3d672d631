"""What a run's curves tell of the training itself: the size of the updates, the laws, KL, entropy, critic, score."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from agents.doctor_findings import Finding, ok, problem, warning
from agents.doctor_run import Run

# KL(old || new) per token of one update, and the share of clipped tokens. Healthy runs on SupportReply and on stories stay
# below 0.05 and 0.18, with single updates of 0.16; 10 times their learning rate gave 0.1 to 0.7, 100 times 0.4 to 10 and clip
# fractions of 0.4 to 0.9. Spinning Up aims at 0.01 to 0.05. The estimate of the KL is exponential in a token's log-ratio, so
# that a few tokens can make it 1.2 while 2 % are clipped, as in a healthy demo: then the policy as a whole did not move.
LARGE_UPDATE, HUGE_UPDATE, VAST_UPDATE = 0.1, 0.2, 1.0
LARGE_CLIP, HUGE_CLIP = 0.3, 0.4
# Where the learning rate was a ten-thousandth of the usual one it was 3e-9: rounding.
NO_UPDATE = 1e-7
# Rounding moves the first ratio by less (3e-9 in float32); dropout of 0.1 by 6e-4.
RATIO_TOLERANCE = 1e-5
# Nats per token between sampling and a full forward pass: 1e-6 in float32; 0.03 in bfloat16.
FLOAT32_TOLERANCE, BFLOAT16_TOLERANCE = 1e-3, 0.1
# Nats per token from the reference: 0.1 to 0.7 after healthy training; 7 to 9 where a run had exploded. They count beyond the
# nats per reply that Ziegler et al. 2019 aim at: a reply of few tokens may well be another one.
FAR, EXPLODED = 1.0, 2.0
NEAR_PER_REPLY = 6.0
# Nats per reply by which reward models are long over-optimised (Stiennon et al. 2020, figure 5).
FAR_PER_REPLY = 100.0
COLLAPSED = 0.05  # of the entropy at the start: exploded runs fell to 0.03 and below, healthy ones to 0.4
ENOUGH_UPDATES = 20  # before a score that has not moved says anything


def learning_rate(run: Run) -> Finding | None:
    """How far one update moves the policy: approx_kl per token, and the share of clipped tokens."""
    kl, clip = run.series("train/approx_kl"), run.series("train/clip_fraction")
    if "train/approx_kl" not in run.rows[0]:
        return None
    kl[np.isnan(kl)] = np.inf  # a ratio that overflowed
    rate = run.series("train/learning_rate")[0]
    n = len(run.rows)
    seen = f"approx_kl up to {kl.max():.2g} per token, up to {np.nanmax(clip):.0%} of the tokens clipped"
    seen += f" (learning rate {rate:.2g})." if np.isfinite(rate) else "."
    too_far = (kl > HUGE_UPDATE) | (clip > HUGE_CLIP)
    few_tokens = (clip <= LARGE_CLIP) & np.isfinite(kl)  # moved so far; the others hardly did
    large = int(((kl > LARGE_UPDATE) | (clip > LARGE_CLIP)).sum())
    often = max(2, n // 10)
    vast = kl[~few_tokens].max(initial=0.0) > VAST_UPDATE
    if vast or (too_far & ~few_tokens).sum() >= often or np.median(kl) > HUGE_UPDATE:
        return problem(
            "learning rate",
            f"The updates are too large in {too_far.sum()} of {n} updates: {seen}",
            "Lower --learning-rate, to a tenth at first; healthy updates stay below 0.05 and 20 %.",
        )
    if kl.max() < NO_UPDATE and np.nanmax(clip) == 0:
        return problem(
            "learning rate",
            f"The updates change nothing: {seen}",
            "Raise --learning-rate (the default goes by the number of parameters); see that the weights are not frozen.",
        )
    if large >= max(2, n // 4):
        return warning(
            "learning rate",
            f"The updates are large in {large} of {n} updates: {seen}",
            "Lower --learning-rate if the score is unsteady; --target-kl 0.05 ends an update that goes too far.",
        )
    if too_far.sum() >= often or kl.max() > VAST_UPDATE:
        return warning(
            "learning rate",
            f"In {too_far.sum()} of {n} updates a few tokens moved far, the others little: {seen}",
            "Fine while the score rises and the replies read well; a lower --learning-rate makes it rarer.",
        )
    return ok("learning rate", seen)


def gradient(run: Run) -> Finding | None:
    """Its norm before clipping."""
    norm, limit = run.series("train/grad_norm"), run.config.get("max_grad_norm", 1.0)
    seen = f"Its norm is {np.nanmedian(norm):.2g} in the middle, at most {np.nanmax(norm):.2g}; it is clipped to {limit:g}."
    if np.nanmax(norm) == 0:
        return problem(
            "gradient", "It is 0 in all updates.", "Are the weights frozen, or is every advantage 0?"
        )
    if np.nanmedian(norm) > 30 * limit:
        return warning(
            "gradient",
            seen,
            "Clipping decides every step: scale the reward down, or lower --vf-coef and --learning-rate.",
        )
    return ok("gradient", seen)


def same_log_probs(run: Run) -> Finding | None:
    """Laws 1 and 4: before an update the ratio is 1, and sampling and the loss mean the same distribution."""
    ratio, error = run.series("train/initial_approx_kl"), run.series("rollout/log_prob_error")
    ratio_off, error_off = float(np.nanmedian(ratio)), float(np.nanmedian(error))
    tolerance = FLOAT32_TOLERANCE if run.config.get("dtype") == "float32" else BFLOAT16_TOLERANCE
    seen = f"{error_off:.2g} nats per token between sampling and a full forward pass, initial approx_kl {ratio_off:.2g}."
    if abs(ratio_off) > max(RATIO_TOLERANCE, min(error_off, 0.1) ** 2):
        if run.dropout:
            return problem(
                "dropout",
                f"Before the first step of an update the ratio is not 1, and the model has {_listed(run.dropout)}: {seen}",
                "Keep dropout off in rollouts and in updates: LanguageModel stays in eval mode; do not override its train().",
            )
        return problem(
            "ratio at the start",
            f"Before the first step of an update the ratio is not 1: {seen}",
            "The loss computes other log-probabilities than the rollout recorded: a temperature, a mask, or other weights?",
        )
    if error_off > tolerance:
        return problem(
            "temperature",
            f"The tokens were not sampled from the distribution that is trained: {seen}",
            "Sample at the temperature that the loss uses, without top-k, top-p or min_new_tokens: set them in neither.",
        )
    off = f" The model's dropout ({_listed(run.dropout)}) is off, as it must be." if run.dropout else ""
    return ok("ratio at the start", f"The ratio is 1 before every update: {seen}{off}")


def kl_at_the_start(run: Run) -> Finding | None:
    """Law 2: with the policy equal to its reference the KL is 0."""
    kl = run.series("objective/kl")[0]
    another = run.config.get("reference_model", "unknown") is not None or run.config.get("reference_kwargs")
    if not np.isfinite(kl) or another:
        return None
    if abs(kl) > 1e-4:
        return problem(
            "KL at the start",
            f"In the first rollout the policy was its own reference, yet the KL was {kl:.2g} nats.",
            "The reference is another model, or computes at another temperature or precision: give it the policy's.",
        )
    return ok("KL at the start", "0: the policy began as its reference.")


def kl(run: Run) -> Finding:
    """Nats per reply from the reference."""
    values, last = run.series("objective/kl"), run.last("objective/kl")
    length = run.last("rollout/ep_len_mean")
    seen = f"{last:.1f} nats per reply at the end ({last / length:.2g} per token), at most {np.nanmax(values):.1f}."
    per_token = last / length if last > NEAR_PER_REPLY else 0.0
    if per_token > EXPLODED or last > FAR_PER_REPLY:
        return problem(
            "KL",
            f"The policy has left its reference behind: {seen}",
            "Raise --kl-coef, give --kl-target 6, or lower --learning-rate; read the samples, the score alone misleads.",
        )
    later = values[1:]
    if len(later) >= 5 and (later < 0).mean() > 0.8 and last < -0.1:
        return problem(
            "KL",
            f"It is negative, which no true KL is: {seen}",
            "The tokens are not sampled from the policy whose log-probabilities count: temperature, top-k, min_new_tokens?",
        )
    if per_token > FAR:
        return warning(
            "KL", f"Far from the reference: {seen}", "Read the samples; raise --kl-coef or give --kl-target."
        )
    return ok("KL", seen)


def entropy(run: Run) -> Finding:
    """Nats per token: whether the policy still tries anything else."""
    start, last = run.series("objective/entropy")[0], run.last("objective/entropy")
    seen = f"{start:.3g} nats per token at the start, {last:.2g} at the end."
    if last < COLLAPSED * start:
        worse = run.change("objective/scores")[0] <= 0
        return (problem if worse else warning)(
            "entropy",
            f"It collapsed: {seen}",
            "The policy writes one reply and cannot explore: lower --learning-rate, raise --kl-coef. Fine only where each "
            "prompt has one right answer.",
        )
    return ok("entropy", seen)


def value_function(run: Run) -> Finding | None:
    """How much of the returns the critic explains. Below 0 is common at first, here to -0.4 for 20 updates."""
    last = run.last("train/explained_variance")
    seen = f"It explains {last:.2f} of the returns' variance at the end."
    if last < -1:
        return warning(
            "value function",
            f"It is worse than no critic: {seen}",
            "Raise --vf-coef, give it a trunk of its own (--value-model separate), or scale the reward to about ±1.",
        )
    return ok("value function", seen)


def score(run: Run) -> Finding:
    """Whether the score rose."""
    difference, errors = run.change("objective/scores")
    seen = f"{run.first('objective/scores'):.3g} in the first quarter, {run.last('objective/scores'):.3g} in the last."
    if run.quarter >= 2 and errors < -4 and difference < -run.first("objective/scores_std") / 2:
        return problem(
            "score",
            f"Training made it worse: {seen}",
            "Lower --learning-rate; if it is steady, is the KL penalty (--kl-coef) larger than what the score can gain?",
        )
    if len(run.rows) >= ENOUGH_UPDATES and errors < 2:
        return warning(
            "score",
            f"It has not risen in {len(run.rows)} updates: {seen}",
            "Raise --learning-rate or --n-episodes, lower --kl-coef; do replies to one prompt score differently at all?",
        )
    return ok("score", seen)


def _listed(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
