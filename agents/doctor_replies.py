"""What a run's curves and samples tell of the replies: their scores, how they end, how long they are, whether they differ."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from agents.doctor_findings import Finding, ok, problem, warning
from agents.doctor_run import Run

FAILURES = ("errors", "timeouts", "deaths", "constants")  # of `reward_models.guarded.Guarded`
SELDOM_ENDS = 0.5
NEVER_ENDS = 0.02
# So many prompts get one and the same reply where a policy has collapsed; healthy ones gave as many replies as prompts.
FEW_PROMPTS, FEW_REPLIES = 4, 1 / 8


def reward(run: Run) -> Finding:
    """Scores that say nothing: all equal, or cut off by the clip."""
    spread, scores = run.series("objective/scores_std"), run.series("objective/scores")
    clip = run.config.get("score_clip", 10.0)
    told = [sample["score"] for sample in run.samples if sample.get("score") is not None]
    clipped = np.mean([abs(score) >= clip for score in told]) if told and clip is not None else 0.0
    seen = f"Scores went from {scores[0]:.3g} ± {spread[0]:.2g} to {scores[-1]:.3g} ± {spread[-1]:.2g} (standard deviation)."
    if np.nanmax(spread) == 0:
        return problem(
            "reward",
            f"The reward is constant: {scores[0]:.3g} for every reply of all {len(run.rows)} updates.",
            "Nothing can be learned from it. Score a good and a bad reply by hand; does it read the right column or label?",
        )
    if clipped > 0.2:
        return warning(
            "reward",
            f"{clipped:.0%} of the sampled scores are at or beyond the clip of ±{clip:g}. {seen}",
            "Replies beyond the clip all count the same: scale the reward, calibrate it, or raise --score-clip.",
        )
    return ok("reward", seen)


def failures(run: Run) -> Finding | None:
    """What a guarded reward model counted."""
    last = run.rows[-1]
    counts = {name: last[f"reward_model/{name}"] for name in FAILURES if last.get(f"reward_model/{name}")}
    if not counts:
        return None
    listed = ", ".join(f"{value:g} {name}" for name, value in counts.items())
    return warning(
        "reward failures",
        f"The reward model's guard counted {listed}.",
        "Replies without a score got the guard's constant, which teaches nothing. Mend the reward model, or give it time.",
    )


def end_of_replies(run: Run) -> Finding:
    """How many replies ended by themselves."""
    rates = run.series("rollout/eos_rate")
    if np.isnan(rates).all():
        return ok(
            "end of replies",
            "No token ends a reply here: all have the full length, as the environment wants it.",
        )
    last = run.last("rollout/eos_rate")
    seen = f"{rates[0]:.0%} of the replies ended by themselves at the start, {last:.0%} at the end."
    if np.nanmean(rates) < NEVER_ENDS and last < NEVER_ENDS:
        return _never_end(run, seen)
    if rates[0] >= SELDOM_ENDS and last < rates[0] / 2:
        return problem(
            "end of replies",
            f"Replies have stopped ending: {seen}",
            "They run into --max-new-tokens: does the reward pay for length? Raise --missing-eos-penalty.",
        )
    if last < SELDOM_ENDS:
        return warning(
            "end of replies",
            seen,
            "Raise --max-new-tokens, or --missing-eos-penalty if replies should be shorter.",
        )
    return ok("end of replies", seen)


def _never_end(run: Run, seen: str) -> Finding:
    """No reply ended: is the model unable to, or were they only cut early? The policy, where there is one, gets more time."""
    from agents.doctor_rollout import never_ends, try_longer

    limit = int(np.nanmax(run.series("rollout/ep_len_mean")).round())
    prompts = [sample["prompt"] for sample in run.samples if sample.get("prompt")]
    policy = run.folder / "policy"
    return never_ends(seen, limit, try_longer(policy, policy, prompts, limit, run.config))


def reply_length(run: Run) -> Finding:
    """Where the length drifts."""
    start, last = run.series("rollout/ep_len_mean")[0], run.last("rollout/ep_len_mean")
    seen = f"{start:.1f} tokens at the start, {last:.1f} at the end."
    if start >= 4 and last < max(2.0, start / 8):
        return problem(
            "reply length",
            f"Replies have become almost empty: {seen}",
            "Read the samples: does the reward like silence? Let it score an empty reply low.",
        )
    if not start / 2 < last < 2 * start:
        return warning(
            "reply length",
            f"It has drifted: {seen}",
            "Read the samples: does the reward pay for length itself?",
        )
    return ok("reply length", seen)


def repetition(run: Run) -> Finding | None:
    """Whether different prompts get the same reply, in the last rollout that was sampled."""
    last = [sample for sample in run.samples if sample.get("rollout") == run.samples[-1].get("rollout")]
    return repetition_of({sample["prompt"]: sample["response"] for sample in last})


def repetition_of(replies: Mapping[str, str]) -> Finding | None:
    """Whether replies, by their prompts, are different ones; None where there are fewer than four."""
    n, different = len(replies), len(set(replies.values()))
    if n < FEW_PROMPTS:
        return None
    seen = f"{different} different replies to {n} different prompts."
    if different == 1 or different < n * FEW_REPLIES:
        return warning(
            "repetition",
            seen,
            "The policy answers without reading: raise --kl-coef, lower --learning-rate, and see what the reward pays for.",
        )
    return ok("repetition", seen)
