"""The stages of the loop, one method each: what it is made from, and the work that makes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from agents.callbacks import SignalReceived
from agents.comparing import Comparing, export
from agents.learning_stages import examine_reward, fine_tune, improve, learn_reward, pretrain_reward
from agents.ledger import fingerprint, fingerprint_of_json
from agents.settings import LoopSettings
from agents.stages import Evaluation, answer, evaluate, read_completions, write_completions
from agents.world import World, identity_of
from reward_models import RewardModel, make, score
from reward_models.preferences import Origin

SFT, SFT_EVALUATE, REWARD_START = "sft", "sft-evaluate", "reward-start"


class LoopStages:
    """What `agents.Loop` puts in order. Each method runs its stage, or finds it done, and returns what it left behind.

    Of several processes the first one runs them, and calls the others where something learns.

    Attributes:
        world: environment, prompts, demonstrations and gold judge.
        store: the `FeedbackStore` of the run.
        stopped: true once a signal asked for an end.
    """

    settings: LoopSettings
    folder: Path
    say: Console
    world: World
    store: Any
    stopped: SignalReceived
    stages: list[str]

    def _stage(
        self, name: str, what: str, made_from: Mapping[str, Any], work: Callable[[Path], Mapping[str, Any]]
    ) -> Path:
        """Run a stage, or find it done; returns its folder."""
        raise NotImplementedError

    def _together(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function of `agents.learning_stages` returns, which all processes run."""
        raise NotImplementedError

    @property
    def _task(self) -> dict[str, Any]:
        return {"env": self.settings.env, **self.world.rules}

    # --- stage 1 ----------------------------------------------------------------------------------------------------

    def _fine_tune(self) -> Path:
        world, settings = self.world, self.settings
        if world.demos is None:
            if not isinstance(world.model, str | os.PathLike):
                raise ValueError(
                    "There are no demonstrations, so model must be the folder of a fine-tuned model."
                )
            made = {"model": fingerprint(world.model, weights_only=True)}
            self._stage(
                SFT, "the model counts as fine-tuned", made, lambda folder: {"model": str(world.model)}
            )
            return Path(world.model)
        given = world.model
        made_from: dict[str, Any] = {
            "sft": asdict(settings.sft),
            "model": fingerprint(given, weights_only=True)
            if isinstance(given, str)
            else fingerprint_of_json(given),
            "demos": fingerprint_of_json(world.demos, settings.demos),
            "task": self._task,
        }
        what = f"fine-tune on {len(world.demos):,} demonstrations"
        return self._stage(SFT, what, made_from, lambda folder: self._together(fine_tune, folder))

    # --- stage 2 ----------------------------------------------------------------------------------------------------

    def _reward(self, name: str, number: int, policy: Path, previous: list[Path]) -> list[Path]:
        """Answer, compare, learn: the folders of the round's reward models."""
        settings = self.settings
        if number == 1 and settings.reward_model is not None:
            for stage in ("sample", "compare", "reward"):
                made_from = {"reward_model": identity_of(settings.reward_model)}
                self._stage(
                    f"{name}/{stage}", "a finished reward model was given", made_from, lambda folder: {}
                )
            return [Path(settings.reward_model)]
        samples = self._sample(name, number, policy)
        compared = self._compare(name, number, samples, policy, previous)
        return self._learn(name, number, compared, previous)

    def _sample(self, name: str, number: int, policy: Path) -> Path:
        settings, world = self.settings, self.world
        wanted = settings.samples
        seed = settings.seed * 1000 + number
        rows = _draw(world.prompts, wanted.prompts, seed)
        made_from = {
            "samples": asdict(wanted),
            "policy": fingerprint(policy, weights_only=True),
            "prompts": fingerprint_of_json(rows, settings.prompts),
            "task": self._task,
        }

        def work(folder: Path) -> dict[str, Any]:
            answers = answer(
                policy, world.task, rows, wanted.responses, wanted.temperature, seed, settings.device,
                lambda: bool(self.stopped), say=self.say,
            )  # fmt: skip
            flat = [one for of_prompt in answers for one in of_prompt]
            write_completions(folder / "samples.jsonl", flat)
            return {"prompts": len(rows), "answers": len(flat)}

        what = f"{wanted.responses} answers to each of {len(rows):,} prompts"
        return self._stage(f"{name}/sample", what, made_from, work) / "samples.jsonl"

    def _compare(self, name: str, number: int, samples: Path, policy: Path, rewards: list[Path]) -> Path:
        settings, feedback = self.settings, self.settings.feedback
        asked = {key: value for key, value in asdict(feedback).items() if key not in ("host", "port")}
        made_from: dict[str, Any] = {"feedback": asked, "samples": fingerprint(samples)}
        if feedback.rater == "simulated":
            made_from["judge"] = identity_of(settings.judge)
        flat, k = read_completions(samples), settings.samples.responses
        answers = [flat[i : i + k] for i in range(0, len(flat), k)]
        sampling = {
            "temperature": settings.samples.temperature,
            "max_new_tokens": self.world.task.max_new_tokens,
        }
        seed = settings.seed * 1000 + number
        origin = Origin(fingerprint(policy, weights_only=True), sampling, seed)

        def work(folder: Path) -> dict[str, Any]:
            comparing = Comparing(
                self.store, feedback, self.world.judge, seed, self._uncertainty(rewards), lambda: bool(self.stopped),
                self.say,
            )  # fmt: skip
            votes = comparing.collect(comparing.request(answers, origin))
            return {"votes": votes, "comparisons_so_far": export(self.store, folder / "comparisons.jsonl")}

        what = f"{feedback.rater} raters compare the answers of {len(answers):,} prompts"
        return self._stage(f"{name}/compare", what, made_from, work) / "comparisons.jsonl"

    def _uncertainty(self, rewards: list[Path]) -> Callable[..., Any] | None:
        if self.settings.feedback.pairing != "uncertain" or len(rewards) < 2:
            return None
        return make("ensemble", models=[str(folder) for folder in rewards]).disagreement  # type: ignore[attr-defined]

    def _pretrain_reward(self) -> Path:
        world, settings = self.world, self.settings
        wanted, backbone = settings.reward.mismatches, self._backbone
        made_from = {
            "mismatches": wanted,
            "demos": fingerprint_of_json(world.demos, settings.demos),
            "starts_from": fingerprint(backbone, weights_only=True),
        }
        return self._stage(
            REWARD_START,
            f"the reward model's start learns from {wanted:,} mismatched demonstrations",
            made_from,
            lambda folder: self._together(pretrain_reward, folder, backbone),
        )

    @property
    def _backbone(self) -> str:
        return self.settings.reward.model or str(self._sft_folder)

    def _learn(self, name: str, number: int, compared: Path, previous: list[Path]) -> list[Path]:
        settings, wanted = self.settings, self.settings.reward
        warm = previous if wanted.warm_start and len(previous) == wanted.ensemble else []
        backbone = str(self.folder / REWARD_START) if REWARD_START in self.stages else self._backbone
        made_from = {
            "reward": asdict(wanted),
            "comparisons": fingerprint(compared),
            "preferences": [fingerprint(path) for path in settings.preferences],
            "starts_from": [fingerprint(folder, weights_only=True) for folder in warm or [Path(backbone)]],
            "judge": identity_of(settings.judge),
        }
        baseline = read_completions(self.folder / SFT_EVALUATE / "samples.jsonl")

        def work(folder: Path) -> dict[str, Any]:
            starts = warm or [Path(backbone)] * wanted.ensemble
            losses = self._together(learn_reward, folder, compared, starts)
            return {"losses": losses, **examine_reward(self.world, settings, folder, compared, baseline)}

        self._stage(f"{name}/reward", "learn a reward model from all comparisons so far", made_from, work)
        return [self.folder / name / "reward" / f"member-{i}" for i in range(wanted.ensemble)]

    @property
    def _sft_folder(self) -> Path:
        return self.folder / SFT if self.world.demos is not None else Path(self.world.model)

    # --- stage 3 ----------------------------------------------------------------------------------------------------

    def _improve(self, name: str, number: int, policy: Path, rewards: list[Path]) -> Path:
        settings, wanted = self.settings, self.settings.ppo
        reference = self._sft_folder if wanted.reference == "sft" else policy
        made_from = {
            "ppo": asdict(wanted),
            "policy": fingerprint(policy, weights_only=True),
            "reference": fingerprint(reference, weights_only=True),
            "rewards": [fingerprint(folder, weights_only=True) for folder in rewards],
            "prompts": fingerprint_of_json(self.world.prompts, settings.prompts),
            "task": self._task,
        }
        seed = settings.seed * 1000 + number

        def work(folder: Path) -> dict[str, Any]:
            return self._together(improve, folder, policy, reference, reward_spec(rewards), seed)

        what = f"PPO against the reward model, {wanted.total_timesteps:,} tokens"
        return self._stage(f"{name}/ppo", what, made_from, work) / "policy"

    # --- what came of it ----------------------------------------------------------------------------------------------

    def _evaluate(self, name: str, policy: Path, rewards: list[Path]) -> None:
        settings, wanted, world = self.settings, self.settings.evaluation, self.world
        judges: dict[str, RewardModel] = {} if world.judge is None else {"gold": world.judge}
        if rewards:
            judges["reward"] = make(reward_spec(rewards))
        made_from = {
            "evaluation": asdict(wanted),
            "policy": fingerprint(policy, weights_only=True),
            "rewards": [fingerprint(folder, weights_only=True) for folder in rewards],
            "prompts": fingerprint_of_json(world.held_out, wanted.file or settings.prompts),
            "reference": fingerprint(self._sft_folder, weights_only=True),
            "judge": identity_of(settings.judge),
            "task": self._task,
        }

        def work(folder: Path) -> dict[str, Any]:
            found = evaluate(
                policy, self._sft_folder, world.task, world.held_out, judges, wanted.temperature, settings.seed,
                settings.device, lambda: bool(self.stopped), self.say,
            )  # fmt: skip
            write_completions(folder / "samples.jsonl", found.completions, kl=found.kl, **found.scores)
            others = self._others(name, judges)
            by = "gold" if "gold" in judges else "reward"
            return found.summary(others, by, settings.seed)

        self._stage(name, f"answer {len(world.held_out)} held-out prompts", made_from, work)

    def _others(self, name: str, judges: Mapping[str, RewardModel]) -> dict[str, Evaluation]:
        """The policies that one is compared with, the fine-tuned one and the last, judged alike."""
        if name == SFT_EVALUATE:
            return {}
        number = int(name.removeprefix("round-").partition("/")[0])
        before = {"sft": SFT_EVALUATE} | ({"last": f"round-{number - 1}/evaluate"} if number > 1 else {})
        others = {}
        for label, stage in before.items():
            completions = read_completions(self.folder / stage / "samples.jsonl")
            scores = {name: score(judge, completions) for name, judge in judges.items()}
            others[label] = Evaluation(completions, scores, {}, torch.zeros(len(completions)).numpy())
        return others


def _draw(rows: list[dict[str, Any]], n: int, seed: int) -> list[dict[str, Any]]:
    """`n` different rows in random order, or all of them."""
    import numpy as np

    return [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))[:n]]


def reward_spec(rewards: list[Path]) -> Any:
    """What `reward_models.make` takes for one reward model, or for the mean of several."""
    if len(rewards) == 1:
        return str(rewards[0])
    return {"name": "ensemble", "models": [str(folder) for folder in rewards]}
