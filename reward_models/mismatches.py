"""Comparisons that no rater makes: a response is better for its own prompt than one that was given to another prompt, or than
itself broken off.

A small reward model learns from them to read response and prompt together, before people's few and noisy comparisons can
teach it (preference model pre-training: Askell et al. 2021, section 4, who take the pairs from public rankings).
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from reward_models.learning import TrainedReward, train
from reward_models.preferences.records import Comparison

RATER = "mismatch"


def mismatches(
    pairs: Sequence[tuple[str, str]],
    n: int,
    seed: int = 0,
    hard: float = 0.5,
    drawn: int = 32,
    broken: float = 0.0,
) -> list[Comparison]:
    """At most `n` comparisons of a prompt's response, always chosen, with another prompt's or with its own beginning.

    Args:
        pairs: prompt and response, in any order; a prompt may come more than once.
        n: how many. Each uses another pair as long as there are any, then they start again.
        seed: of the drawing.
        hard: share in which the other prompt is like the prompt: of `drawn` that are drawn, the one that shares most with
            it, its words weighted by rarity. The others are drawn uniformly.
        drawn: see `hard`.
        broken: share in which the other response is the same one, broken off within a sentence. A model that was never
            shown such a thing may score it high, and PPO finds that out.

    Returns:
        `Comparison`s by the rater "mismatch". Fewer than `n` where a prompt has no other, or it has the same response.

    Raises:
        ValueError: `n` is negative, or `hard` or `broken` no share.
    """
    if n < 0 or not (0 <= hard <= 1 and 0 <= broken <= 1):
        raise ValueError(f"n={n} must be at least 0, hard={hard} and broken={broken} shares, 0 to 1.")
    rng = np.random.default_rng(seed)
    words = [frozenset(re.findall(r"\w+", prompt.lower())) for prompt, _ in pairs]
    rarity = _rarity(words)
    made = []
    order = [i for _ in range(math.ceil(n / max(len(pairs), 1))) for i in rng.permutation(len(pairs))]
    for i in order[:n]:
        prompt, response = pairs[i]
        if broken and rng.random() < broken:
            ends = [m.start() for m in re.finditer(r"(?<=[^\s.!?])\s", response)]
            if ends:
                beginning = response[: ends[rng.integers(len(ends))]]
                made.append(Comparison(prompt, (response, beginning), "left", RATER))
            continue
        candidates = rng.integers(len(pairs), size=drawn if rng.random() < hard else 1)
        others = [j for j in candidates if pairs[j][0] != prompt and pairs[j][1] != response]
        if others:
            nearest = max(others, key=lambda j: sum(rarity[word] for word in words[i] & words[j]))
            made.append(Comparison(prompt, (response, pairs[nearest][1]), "left", RATER))
    return made


def pretrain(
    model: Any,
    pairs: Sequence[tuple[str, str]],
    output_dir: str | os.PathLike[str] | None = None,
    *,
    n: int = 8000,
    broken: float = 0.2,
    epochs: float = 2.0,
    batch_size: int = 32,
    learning_rate: float = 5e-4,
    warmup_steps: int = 20,
    seed: int = 0,
    **arguments: Any,
) -> TrainedReward:
    """Train a reward model on `mismatches` alone, by every token: where `learning.train` then starts.

        pretrain("runs/sft", [(row["prompt"], row["response"]) for row in demonstrations], "runs/start", n=8000)
        train("runs/start", comparisons, "runs/reward", learning_rate=1e-4, dropout=0.1)

    Args:
        model, output_dir, epochs, batch_size, learning_rate, warmup_steps, seed: as those of `learning.train`. It takes some
            hundred steps until anything is learned, and then it is learned quickly: too few are of no use.
        pairs, n, broken: of `mismatches`. Of 20 or more pairs, one in twenty is held out and measured on after each epoch.
        arguments: more of `learning.train`.

    Raises:
        ValueError: no mismatch can be made.
    """
    made = mismatches(pairs, n, seed, broken=broken)
    if not made:
        raise ValueError(
            f"No mismatches can be made of {len(pairs)} pairs. Give prompts and responses of which several differ."
        )
    held_out = made[: len(made) // 20]
    return train(
        model, made[len(held_out) :], output_dir, held_out=held_out or None, epochs=epochs, batch_size=batch_size,
        learning_rate=learning_rate, warmup_steps=warmup_steps, token_coef=1.0, seed=seed, **arguments,
    )  # fmt: skip


def _rarity(texts: Sequence[frozenset[str]]) -> dict[str, float]:
    """Of each word, the logarithm of how many texts there are to one that has it (inverse document frequency)."""
    counts = Counter(word for text in texts for word in text)
    return {word: math.log(len(texts) / count) for word, count in counts.items()}
