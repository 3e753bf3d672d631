"""What a run of the whole loop is told: one dataclass for each stage, and one for the run."""

from __future__ import annotations

import json
import operator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

# The ranges of the settings.
AT_LEAST = {
    "rounds": 0, "seed": 0, "threads": 1, "max_new_tokens": 1, "max_prompt_tokens": 1,
    "sft.max_steps": 1, "sft.batch_size": 1, "sft.warmup_steps": 0, "samples.prompts": 2, "samples.responses": 2,
    "feedback.overlap": 1, "feedback.votes": 0, "feedback.temperature": 0, "feedback.flip": 0, "feedback.tie_band": 0,
    "feedback.port": 0, "reward.ensemble": 1, "reward.mismatches": 0, "reward.max_length": 2, "reward.batch_size": 1,
    "reward.label_smoothing": 0, "ppo.total_timesteps": 1, "ppo.n_episodes": 1, "ppo.batch_size": 1, "ppo.n_epochs": 1,
    "ppo.kl_coef": 0, "ppo.checkpoint_every": 1, "evaluation.prompts": 1,
}  # fmt: skip
ABOVE = {
    "sft.epochs": 0, "sft.learning_rate": 0, "samples.temperature": 0, "reward.held_out": 0, "reward.epochs": 0,
    "reward.learning_rate": 0, "ppo.learning_rate": 0, "ppo.kl_target": 0, "evaluation.temperature": 0,
}  # fmt: skip
AT_MOST = {"feedback.flip": 1, "feedback.port": 65535}
BELOW = {"reward.held_out": 1, "reward.label_smoothing": 0.5, "reward.dropout": 1}


@dataclass
class SFTSettings:
    """Stage 1, supervised fine-tuning. The arguments of `agents.sft.finetune`.

    Args:
        epochs: passes over the demonstrations.
        max_steps: optimiser steps instead of epochs.
        batch_size: demonstrations per step.
        learning_rate: its peak; small models bear 1e-3.
        lr_schedule: after the warm-up.
        warmup_steps: steps in which the learning rate rises.
        weight_decay: of AdamW.
    """

    epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 16
    learning_rate: float = 5e-5
    lr_schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: int = 0
    weight_decay: float = 0.0


@dataclass
class SampleSettings:
    """Stage 2a, the answers that are to be compared.

    Args:
        prompts: prompts of a round, drawn anew in each.
        responses: answers to each prompt, K.
        temperature: of sampling.
    """

    prompts: int = 1000
    responses: int = 2
    temperature: float = 1.0


@dataclass
class FeedbackSettings:
    """Stage 2b, who compares them, and how.

    Args:
        rater: "simulated" by the judge; "terminal", one person at this terminal; "web", people on the rating page.
        kind: "comparison" of two answers, or "ranking" of all K.
        pairing: of K > 2 answers, which two are compared: "random", "all", or "uncertain": where the members of the last
            round's reward ensemble disagree most (a random share is always kept).
        overlap: raters of one item.
        votes: how many to wait for in a round; None: all that were asked for; 0: nobody is asked, and the reward model learns
            from the run's `preferences` alone.
        temperature: of a simulated rater, in units of the judge's score: at 0 the better one always wins.
        flip: share of a simulated rater's answers that are turned round; 0.25 in AlpacaFarm (Dubois et al. 2023).
        tie_band: a simulated rater calls a smaller difference of scores a tie.
        host, port: of the rating page.
    """

    rater: Literal["simulated", "terminal", "web"] = "simulated"
    kind: Literal["comparison", "ranking"] = "comparison"
    pairing: Literal["random", "all", "uncertain"] = "random"
    overlap: int = 1
    votes: int | None = None
    temperature: float = 0.1
    flip: float = 0.0
    tie_band: float = 0.0
    host: str = "127.0.0.1"
    port: int = 8000


@dataclass
class RewardSettings:
    """Stage 2c, the reward model that learns from all comparisons so far. Arguments of `reward_models.learning.train`.

    Args:
        model: backbone of the first round; None: the fine-tuned model.
        warm_start: later rounds start from the last round's reward model instead of the backbone.
        ensemble: reward models, of different seeds; PPO maximises their mean.
        held_out: share of the prompts whose comparisons are kept for evaluating it.
        mismatches: before the first round the backbone learns from so many pairs of a demonstration and one of another
            prompt, `reward_models.mismatches.pretrain`; 0: it does not. Small models need some thousands.
        max_length: tokens of prompt and response together; a longer text loses its beginning. None: the model's limit.
        epochs, batch_size, learning_rate, weight_decay, label_smoothing, dropout, token_coef: of training.
    """

    model: str | None = None
    warm_start: bool = False
    ensemble: int = 1
    held_out: float = 0.1
    mismatches: int = 0
    max_length: int | None = None
    epochs: float = 3.0
    batch_size: int = 32
    learning_rate: float = 1e-5
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    dropout: float = 0.0
    token_coef: float = 0.0


@dataclass
class PPOSettings:
    """Stage 3, PPO against the reward model. The arguments of `agents.TextPPO`.

    Args:
        total_timesteps: tokens to generate in each round.
        reference: what the KL penalty stays near: the fine-tuned model ("sft") or the policy of the last round ("last").
        learning_rate: its start, falling to 0; None: from the number of parameters.
        value_model: the critic's trunk: the policy's ("shared"), its own ("separate"), or the round's reward model's
            ("from_reward_model"); that needs `reward.ensemble` of 1.
        checkpoint_every: updates between two checkpoints, from which a killed run goes on.
        gradient_checkpointing: as `agents.CausalLMPolicy`'s: less memory for more time.
        n_episodes, batch_size, micro_batch_size, max_tokens_per_batch, n_epochs, n_envs, kl_coef, kl_target,
            missing_eos_penalty: as TextPPO's.
    """

    total_timesteps: int = 100_000
    reference: Literal["sft", "last"] = "sft"
    learning_rate: float | None = None
    n_episodes: int = 64
    batch_size: int = 16
    micro_batch_size: int | None = None
    max_tokens_per_batch: int | None = None
    n_epochs: int = 4
    n_envs: int | None = None
    kl_coef: float = 0.05
    kl_target: float | None = None
    missing_eos_penalty: float = 1.0
    value_model: Literal["shared", "separate", "from_reward_model"] = "shared"
    gradient_checkpointing: bool = False
    checkpoint_every: int = 10


@dataclass
class EvaluationSettings:
    """The held-out prompts on which the policies are compared.

    Args:
        prompts: how many.
        file: prompts of their own; None: as many are kept out of the run's prompts, or the environment's held-out split.
        temperature: of sampling.
    """

    prompts: int = 256
    file: str | None = None
    temperature: float = 1.0


@dataclass
class LoopSettings:
    """A run of the loop: SFT, then `rounds` times sample, compare, reward, PPO, evaluate.

    Args:
        env: id of a registered environment that brings prompts, judge, and perhaps a model and demonstrations; or None,
            and `prompts` and `model` are given.
        model: folder of a causal LM, or a transformers config as a dict (random weights); None: the environment's own.
        prompts: file of prompts, .jsonl[.gz] or .txt.
        prompt_field: field of the prompts that holds the text.
        max_prompt_tokens: longest prompt; longer ones keep their beginning. None: the longest there is.
        max_new_tokens: longest response; None: 48, or the environment's.
        stop: text, or texts, that end a response.
        eos_token_id: token, or tokens, that end a response; None: as the model's folder says.
        demos: demonstrations for SFT: a file, a list of dicts, or {"name": "module:attr", ...} with a function's arguments.
            None: the model is taken as fine-tuned.
        demos_fields: fields of the demonstrations that hold prompt and response.
        preferences: file, or files, of existing preferences, with which the first round's reward model starts.
        reward_model: a finished reward model for the first round, which then skips comparing and learning.
        judge: the gold judge, a reward model's name, "module:attr" or dict: simulated raters follow it and evaluation shows
            it. None: the environment's own reward; without one only people can compare.
        rounds: how often the loop goes round.
        seed: of everything. Same seed, same run (on a CPU, on one thread).
        threads: CPU threads; None: torch's choice.
        device: "auto", "cpu", "cuda", ...
    """

    env: str | None = None
    model: Any = None
    prompts: str | None = None
    prompt_field: str = "prompt"
    max_prompt_tokens: int | None = None
    max_new_tokens: int | None = None
    stop: list[str] | str = field(default_factory=list)
    eos_token_id: int | list[int] | None = None
    demos: Any = None
    demos_fields: list[str] = field(default_factory=lambda: ["prompt", "response"])
    preferences: list[str] | str = field(default_factory=list)
    reward_model: str | None = None
    judge: Any = None
    rounds: int = 2
    seed: int = 0
    threads: int | None = None
    device: str = "auto"
    sft: SFTSettings = field(default_factory=SFTSettings)
    samples: SampleSettings = field(default_factory=SampleSettings)
    feedback: FeedbackSettings = field(default_factory=FeedbackSettings)
    reward: RewardSettings = field(default_factory=RewardSettings)
    ppo: PPOSettings = field(default_factory=PPOSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    def __post_init__(self) -> None:
        for name in ("stop", "preferences"):
            if isinstance(value := getattr(self, name), str):
                setattr(self, name, [value])

    def check(self) -> None:
        """Raise ValueError for settings that contradict one another."""
        if (self.env is None) == (self.prompts is None):
            raise ValueError(
                "Give either env, an environment's id, or prompts, a file; the loop needs one of them."
            )
        if self.prompts is not None and self.model is None:
            raise ValueError("prompts comes without a model: name one with model, the folder of a causal LM.")
        self._check_ranges()
        if self.feedback.votes == 0 and not self.preferences and self.reward_model is None and self.rounds:
            raise ValueError(
                "feedback.votes is 0, so nobody compares, and there are no preferences. Give some, or ask for votes."
            )
        if self.ppo.value_model == "from_reward_model" and self.reward.ensemble > 1:
            raise ValueError(
                "ppo.value_model is from_reward_model, and reward.ensemble is above 1: a critic starts from one model. Set "
                "the ensemble to 1, or choose shared or separate."
            )
        if self.reward.mismatches and self.demos is None:
            raise ValueError(
                "reward.mismatches is made of demonstrations, and there are none. Give demos, or set it to 0."
            )
        if self.feedback.pairing == "uncertain" and self.reward.ensemble < 2:
            raise ValueError(
                "feedback.pairing 'uncertain' needs reward.ensemble of 2 or more, whose members disagree."
            )

    def _check_ranges(self) -> None:
        for limits, fits, words in (
            (AT_LEAST, operator.ge, "at least"),
            (ABOVE, operator.gt, "above"),
            (AT_MOST, operator.le, "at most"),
            (BELOW, operator.lt, "below"),
        ):
            for name, limit in limits.items():
                value = operator.attrgetter(name)(self)
                if value is not None and not fits(value, limit):
                    raise ValueError(f"{name} is {value}. It must be {words} {limit}.")

    def to_json(self) -> dict[str, Any]:
        """All settings as JSON values."""
        return json.loads(json.dumps(asdict(self)))
