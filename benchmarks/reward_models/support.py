"""SupportReply end to end: a rater who slips compares samples of the shipped model, a reward model learns, PPO follows it."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.utils import LinearSchedule

from agents import TextPPO
from agents.stages import answer, interval
from agents.stages import evaluate as evaluate_policy
from reward_models import Completion, RewardModel, make, score
from reward_models.baselines import BagOfWords
from reward_models.calibration import calibrate
from reward_models.evaluation import Evaluation, Share, evaluate
from reward_models.learning import train
from reward_models.preferences import Comparison, Origin
from reward_models.preferences.entries import Sample
from reward_models.preferences.raters import SimulatedRater
from reward_models.preferences.store import FeedbackStore
from text_envs.tasks import support_reply

COMPARISONS, HELD_OUT, FLIP = 2000, 600, 0.15
CUSTOMERS = 256  # held-out ones, on whom policies are compared
REWARD = dict(
    epochs=3, batch_size=16, learning_rate=1e-4, weight_decay=0.05, label_smoothing=0.15, dropout=0.1
)
PPO = dict(n_episodes=64, batch_size=8, n_epochs=2)
PPO_LEARNING_RATE, PPO_TOKENS = 2.5e-4, 80_000


@dataclass
class Policy:
    """What PPO made with one seed: gold scores, KL and the learned reward on the held-out customers, mean and interval."""

    seed: int
    before: dict[str, float]
    after: dict[str, float]
    kl: float
    learned_before: float
    learned_after: float
    seconds: float

    @property
    def gain(self) -> float:
        """Of the gold score."""
        return self.after["mean"] - self.before["mean"]


@dataclass
class Support:
    """The result.

    Attributes:
        evaluation: of the reward model on the rater's votes on held-out customers' replies.
        agreements: with the gold judge on those pairs of which one is better: of the learned model, of a bag of words, and of
            the votes: what 15 % of slips leave.
        seconds: of learning from the comparisons.
    """

    comparisons: int
    evaluation: Evaluation
    agreements: dict[str, Share]
    seconds: float
    policies: list[Policy] = field(default_factory=list)


def measure(seeds: Sequence[int], say: Callable[[str], None]) -> Support:
    """Collect, learn, measure, and train one policy for each seed."""
    env = gym.make("text_envs/SupportReply-v0")
    task = env.get_wrapper_attr("task")
    sampled = [
        answer(support_reply.FOLDER, task, _customers(split, n), 2, 1.0, seed, "cpu")
        for seed, (split, n) in enumerate(
            (("train", int(1.2 * COMPARISONS)), ("held_out", int(1.2 * HELD_OUT)))
        )
    ]
    learned, held_out = (
        rated(pairs, n, seed) for seed, (pairs, n) in enumerate(zip(sampled, (COMPARISONS, HELD_OUT)))
    )
    quiet: dict[str, Any] = dict(device="cpu", progress=None)
    with tempfile.TemporaryDirectory() as scratch:
        folder = f"{scratch}/reward"
        made = train(support_reply.REWARD_START, learned, folder, **quiet, **REWARD)
        judges = {
            "learned model": make(folder),
            "bag of words": BagOfWords.fit(learned),
        }
        agreements = agreements_of(judges, held_out)
        say(
            "SupportReply, agreement with gold: "
            + ", ".join(f"{n} {a.value:.3f}" for n, a in agreements.items())
        )
        result = Support(len(learned), evaluate(folder, held_out, learned), agreements, made.seconds)
        calibrate(folder, [completion for pair in sampled[0] for completion in pair])
        for seed in seeds:
            result.policies.append(improve(folder, seed))
            last = result.policies[-1]
            say(
                f"SupportReply, PPO seed {seed}: gold {last.before['mean']:.3f} to {last.after['mean']:.3f}, KL {last.kl:.1f}"
            )
    return result


def rated(pairs: Sequence[Sequence[Completion]], n: int, seed: int) -> list[Comparison]:
    """`n` votes of a simulated rater on pairs of replies, each turned round with probability `FLIP`."""
    with tempfile.TemporaryDirectory() as folder, FeedbackStore(Path(folder) / "feedback.db") as store:
        store.add_samples(
            Sample(reply.prompt, reply.response, Origin(), dict(reply.columns))
            for pair in pairs
            for reply in pair
        )
        store.request_comparisons(overlap=1, pairing="random", n=n, seed=seed)
        SimulatedRater(support_reply.judge, temperature=0.0, flip=FLIP, seed=seed).rate(store)
        return store.comparisons()


def agreements_of(judges: dict[str, RewardModel], comparisons: Sequence[Comparison]) -> dict[str, Share]:
    """How often each judge, and the votes, prefer what the gold judge prefers, of the pairs that it finds unequal."""
    replies = [Completion(c.prompt, text, columns=c.columns) for c in comparisons for text in c.responses]
    gold = score(support_reply.judge, replies).reshape(-1, 2)
    truth = gold[:, 0] - gold[:, 1]
    clear = np.abs(truth) > 1e-9
    prompts = [c.prompt for c, is_clear in zip(comparisons, clear) if is_clear]
    differences = {
        name: -np.diff(score(judge, replies).reshape(-1, 2))[:, 0] for name, judge in judges.items()
    }
    differences["the rater's votes"] = np.array([2 * (c.preference or 0.0) - 1 for c in comparisons])
    return {
        name: Share.of(np.heaviside(difference * np.sign(truth), 0.5)[clear], prompts)
        for name, difference in differences.items()
    }


def improve(folder: str, seed: int) -> Policy:
    """PPO against the learned reward; the gold judge sees only the evaluation."""
    torch.manual_seed(seed)
    env = gym.make("text_envs/SupportReply-v0", reward_model=folder)
    task = env.get_wrapper_attr("task")
    model = TextPPO(
        "CausalLMPolicy", env, learning_rate=LinearSchedule(PPO_LEARNING_RATE, 0.0, 1.0), seed=seed, device="cpu", **PPO
    )  # fmt: skip
    judges = {"gold": support_reply.judge, "learned": make(folder)}
    started = time.perf_counter()
    model.learn(PPO_TOKENS)
    seconds = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as policy:
        model.save_pretrained(policy)
        before, after = (
            evaluate_policy(
                path, support_reply.FOLDER, task, _customers("held_out", CUSTOMERS), judges, 1.0, seed, "cpu"
            )
            for path in (support_reply.FOLDER, policy)
        )
    return Policy(
        seed,
        interval(before.scores["gold"]),
        interval(after.scores["gold"]),
        float(after.kl.mean()),
        float(before.scores["learned"].mean()),
        float(after.scores["learned"].mean()),
        seconds,
    )


def _customers(split: str, n: int) -> list[dict]:
    """So many customers of a split, the same each time."""
    rows = support_reply.prompts(split)
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:n]]
