"""The stages of the loop in which something learns: the policy from demonstrations, the reward model, the policy by PPO.

Of several processes all run these functions with the same arguments, but for `examine_reward`, and the first one writes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import LinearSchedule
from transformers import AutoConfig

from agents import processes
from agents.callbacks import SampleTable, SaveEvery
from agents.commands import summary, train
from agents.demonstrations import read_pairs
from agents.ppo import TextPPO
from agents.runs import Progress, RunFolder
from agents.settings import LoopSettings
from agents.sft import finetune
from agents.stages import Stopped
from agents.world import World
from reward_models import Completion, RewardModel, make, score
from reward_models.calibration import calibrate
from reward_models.evaluation import comparisons_of, evaluate
from reward_models.learning import train as train_reward
from reward_models.mismatches import pretrain
from reward_models.preferences import Comparison, Ranking
from reward_models.preferences.formats import read
from reward_models.preferences.splits import split

logger = logging.getLogger("agents")

PPO_ARGUMENTS = (
    "n_episodes", "batch_size", "micro_batch_size", "max_tokens_per_batch", "n_epochs", "n_envs", "kl_coef", "kl_target",
    "missing_eos_penalty",
)  # fmt: skip


def fine_tune(
    world: World, settings: LoopSettings, folder: Path, should_stop: Callable[[], bool]
) -> dict[str, Any]:
    """Stage 1: supervised fine-tuning on the demonstrations. The folder becomes a Hugging Face folder.

    Where an earlier attempt left a checkpoint, it goes on from there.
    """
    wanted, model = settings.sft, world.model
    checkpoint = folder / "checkpoint.zip"
    tuned = finetune(
        AutoConfig.for_model(**model) if isinstance(model, dict) else model,
        world.demos,
        world.task.tokenizer,
        folder,
        epochs=wanted.epochs,
        max_steps=wanted.max_steps,
        batch_size=wanted.batch_size,
        learning_rate=wanted.learning_rate,
        lr_schedule=wanted.lr_schedule,
        warmup_steps=wanted.warmup_steps,
        weight_decay=wanted.weight_decay,
        max_length=world.task.max_length,
        prompt_field=settings.demos_fields[0],
        response_field=settings.demos_fields[1],
        eos_token_id=settings.eos_token_id,
        seed=settings.seed,
        device=settings.device,
        checkpoint=checkpoint,
        resume=True,
        should_stop=should_stop,
    )
    if tuned.stopped:
        raise Stopped
    if processes.is_first():
        checkpoint.unlink(missing_ok=True)
    return {
        "steps": tuned.steps,
        "train_loss": tuned.train_loss,
        "losses": thinned(tuned.losses),
        "demonstrations": tuned.examples,
    }


def pretrain_reward(
    world: World, settings: LoopSettings, folder: Path, backbone: str, should_stop: Callable[[], bool]
) -> dict[str, Any]:
    """Before stage 2: the reward models' start learns to tell a demonstration from one of another prompt."""
    assert world.demos is not None
    made = pretrain(
        backbone,
        [(pair.prompt, pair.response) for pair in read_pairs(world.demos, *settings.demos_fields)],
        folder,
        n=settings.reward.mismatches,
        tokenizer=world.task.tokenizer,
        seed=settings.seed,
        device=settings.device,
        should_stop=should_stop,
    )
    if made.stopped:
        raise Stopped
    return {"mismatches": made.groups, "held_out_accuracy": made.epochs[-1].held_out_accuracy}


def learn_reward(
    world: World,
    settings: LoopSettings,
    folder: Path,
    compared: Path,
    starts: Sequence[Path],
    should_stop: Callable[[], bool],
) -> list[list[float]]:
    """Stage 2c: one reward model, or an ensemble of different seeds, from all comparisons; returns the losses of each."""
    wanted = settings.reward
    learned, _ = _preferences(settings, compared)
    losses = []
    for i, (member, start) in enumerate(zip(_members(settings, folder), starts)):
        trained = train_reward(
            str(start),
            learned,
            member,
            max_length=wanted.max_length,
            epochs=wanted.epochs,
            batch_size=wanted.batch_size,
            learning_rate=wanted.learning_rate,
            weight_decay=wanted.weight_decay,
            label_smoothing=wanted.label_smoothing,
            dropout=wanted.dropout,
            token_coef=wanted.token_coef,
            seed=settings.seed + i,
            device=settings.device,
            should_stop=should_stop,
        )
        if trained.stopped:
            raise Stopped
        losses.append(thinned(trained.losses))
    return losses


def examine_reward(
    world: World, settings: LoopSettings, folder: Path, compared: Path, baseline: Sequence[Completion]
) -> dict[str, Any]:
    """The rest of stage 2c: what the reward models are worth; then they are calibrated on `baseline`.

    Returns:
        The evaluation on comparisons of prompts that were held out, None where none of them has a winner; and, where there is
        a gold judge, how often the model agrees with it on those pairs.
    """
    learned, held_out = _preferences(settings, compared)
    members = _members(settings, folder)
    # Before calibration: a difference of logits is a log-odds, which calibrated scores are not.
    reward = make(
        str(members[0]) if len(members) == 1 else {"name": "ensemble", "models": list(map(str, members))}
    )
    found: dict[str, Any] = {"comparisons": len(learned), "held_out": None}
    if any(pair.chosen is not None for pair in comparisons_of(held_out)):
        found["held_out"] = evaluate(reward, held_out, learned).to_json()
    else:
        logger.warning(
            f"None of the {len(held_out)} comparisons held out in {folder} has a winner: the reward model's accuracy is not "
            "measured. More votes, or a larger reward.held_out, would tell it."
        )
    if world.judge is not None and (agreed := agreement(reward, world.judge, held_out)) is not None:
        found["agreement_with_gold"] = agreed
    for member in members:
        calibrate(member, baseline)
    return found


def _preferences(settings: LoopSettings, compared: Path) -> tuple[Sequence[Any], Sequence[Any]]:
    """All comparisons and rankings: those to learn from, and those of prompts that are held out."""
    read_all = [record for path in (*settings.preferences, compared) for record in read(path).records]
    records = [record for record in read_all if isinstance(record, Comparison | Ranking)]
    return split(records, held_out=settings.reward.held_out, seed=settings.seed)


def _members(settings: LoopSettings, folder: Path) -> list[Path]:
    return [folder / f"member-{i}" for i in range(settings.reward.ensemble)]


def thinned(curve: Sequence[float], most: int = 100) -> list[float]:
    """A curve as means over at most so many parts of equal length, in order."""
    parts = np.array_split(np.asarray(curve, dtype=np.float64), max(1, min(most, len(curve))))
    return [round(float(part.mean()), 4) for part in parts if len(part)]


def agreement(reward: RewardModel, judge: RewardModel, records: Sequence[Any]) -> dict[str, float] | None:
    """The share of compared pairs that a reward model orders as the gold judge does.

    Pairs that the judge finds equal are left out; None if all are.
    """
    pairs = comparisons_of(records)
    flat = [Completion(pair.prompt, text, columns=pair.columns) for pair in pairs for text in pair.responses]
    ours, gold = score(reward, flat), score(judge, flat)
    difference, truth = ours[::2] - ours[1::2], gold[::2] - gold[1::2]
    clear = abs(truth) > 1e-9
    if not clear.any():
        return None
    return {"share": float(((difference > 0) == (truth > 0))[clear].mean()), "pairs": int(clear.sum())}


class StopIf(BaseCallback):
    """Stops a model for a signal that came just before `train` looked at signals: while others were waited for, say."""

    in_every_process = True

    def __init__(self, should_stop: Callable[[], bool]):
        super().__init__()
        self.should_stop = should_stop

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.should_stop():
            self.model.stop()  # type: ignore[attr-defined]


def improve(
    world: World,
    settings: LoopSettings,
    folder: Path,
    policy: Path,
    reference: Path,
    reward: Any,
    seed: int,
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    """Stage 3: PPO from `policy` against `reward`, kept near `reference`. The folder becomes a run folder of PPO.

    Where an earlier attempt left a checkpoint, it goes on from there.
    """
    wanted, env = settings.ppo, world.make_env(reward)
    run = RunFolder(folder, resume=True)
    if run.resumes:
        model = TextPPO.load(run.last_checkpoint, env=env, device=settings.device)
    else:
        model = TextPPO(
            "CausalLMPolicy",
            env,
            learning_rate=None
            if wanted.learning_rate is None
            else LinearSchedule(wanted.learning_rate, 0.0, 1.0),
            reference_model=None if reference == policy else str(reference),
            policy_kwargs={
                "model": str(policy),
                "value_model": wanted.value_model,
                "gradient_checkpointing": wanted.gradient_checkpointing,
            },
            seed=seed,
            device=settings.device,
            **{name: getattr(wanted, name) for name in PPO_ARGUMENTS},
        )
    run.start("# A stage of `rlhf loop`, whose config.yaml says all.\n")
    progress = Progress(wanted.total_timesteps, model.num_timesteps)
    model.set_logger(run.logger(progress, step=model.num_timesteps))
    callbacks = [
        SampleTable(every=25, n=1, path=run.samples, console=Console(stderr=True)),
        SaveEvery(wanted.checkpoint_every, run.last_checkpoint),
        StopIf(should_stop),
    ]
    if processes.anywhere(should_stop()):  # from here on `train` looks at the signals
        raise Stopped
    stopped, _ = train(model, wanted.total_timesteps, callbacks, run.last_checkpoint)
    if stopped or processes.anywhere(should_stop()):
        raise Stopped(stopped.number)
    model.save_pretrained(run.policy)
    return summary(run.metrics) if processes.is_first() else {}
