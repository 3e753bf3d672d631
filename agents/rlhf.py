"""The loop of RLHF: fine-tune; then, round after round, answer, compare, learn a reward, improve by PPO, evaluate.

    run folder
      config.yaml              the settings
      feedback.db              every answer, rater and vote
      sft/                     stage 1: a Hugging Face folder
      sft-evaluate/            its answers to the held-out prompts
      reward-start/            where reward models start, if they are pre-trained on mismatches
      round-1/sample/          the policy's answers that are compared
             /compare/         all comparisons so far
             /reward/          the reward model, a Hugging Face folder (member-0, ... of an ensemble)
             /ppo/             a run folder of PPO; ppo/policy is a Hugging Face folder
             /evaluate/        the new policy's answers to the held-out prompts, and figures
      round-2/...
      report.html, result.json

Each stage ends with a `stage.json` (see `agents.ledger`): a finished stage is not run again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from agents.callbacks import SignalReceived, stop_on_signals
from agents.comparing import Comparing, export
from agents.learning_stages import fine_tune, improve, learn_reward, pretrain_reward
from agents.ledger import Ledger, fingerprint, fingerprint_of_json
from agents.loop_report import make_report
from agents.model_card import write_model_card
from agents.runs import clock
from agents.settings import LoopSettings
from agents.stages import Evaluation, Stopped, answer, evaluate, read_completions, write_completions
from agents.world import World, make_world
from reward_models import RewardModel, make, score
from reward_models.files import replacing, write_json
from reward_models.preferences import Origin
from reward_models.quiet import quiet_transformers

SFT, SFT_EVALUATE, REWARD_START = "sft", "sft-evaluate", "reward-start"
STAGES = ("sample", "compare", "reward", "ppo", "evaluate")


class Loop:
    """A run of RLHF in one folder.

        loop = Loop(LoopSettings(env="text_envs/SupportReply-v0", rounds=2), "runs/loop")
        result = loop.run()

    A run that was stopped or killed goes on where it was: the same call again. Same settings and seed, same result, however
    often it was interrupted (on a CPU, on one thread).

    Args:
        settings: what to do; None: as the folder's config.yaml says.
        out: the run folder.
        redo: a stage, such as "round-1/reward", that is run again with all after it; what they had made is put aside.
        console: where progress is told.

    Raises:
        ValueError: settings that contradict one another; inputs that cannot be used; a folder of something else.
        LedgerError: a finished stage was made from other settings or inputs.
    """

    def __init__(
        self,
        settings: LoopSettings | None,
        out: str | os.PathLike[str],
        redo: str | None = None,
        console: Console | None = None,
    ):
        self.folder = Path(out)
        self.settings = settings or read_settings(self.folder)
        self.settings.check()
        self.say = console or Console()
        self.redo = redo
        self.ledger = Ledger(self.folder)
        self.stopped = SignalReceived()
        self.results: dict[str, dict[str, Any]] = {}
        stages = [SFT, SFT_EVALUATE]
        if self.settings.reward.mismatches and self.settings.rounds:
            stages.append(REWARD_START)
        stages += [f"round-{r}/{stage}" for r in range(1, self.settings.rounds + 1) for stage in STAGES]
        if redo is not None and redo not in stages:
            raise ValueError(f"There is no stage {redo!r}. Choose one of {', '.join(stages)}.")
        self.stages = stages

    # --- the order of things ----------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Run what is not done yet. Returns what result.json holds.

        Raises:
            Stopped: Ctrl-C or SIGTERM; every finished stage, every vote and the last checkpoint are kept.
        """
        from reward_models.preferences.store import FeedbackStore

        settings = self.settings
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.world: World = make_world(settings)
        self._start()
        store = FeedbackStore(self.folder / "feedback.db")
        with stop_on_signals() as self.stopped, store as self.store, quiet_transformers():
            try:
                return self._rounds()
            except Stopped as stopped:
                self.stopped.number = self.stopped.number or next(iter(stopped.args), None)
                raise

    def _rounds(self) -> dict[str, Any]:
        policy = self._fine_tune()
        self._evaluate(SFT_EVALUATE, policy, [])
        if REWARD_START in self.stages:
            self._pretrain_reward()
        rewards: list[Path] = []
        for number in range(1, self.settings.rounds + 1):
            name = f"round-{number}"
            rewards = self._reward(name, number, policy, rewards)
            policy = self._improve(name, number, policy, rewards)
            self._evaluate(f"{name}/evaluate", policy, rewards)
        return self._conclude(policy, rewards)

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.redo is not None:
            aside = self.ledger.redo(self.stages[self.stages.index(self.redo) :])
            self.say.print(
                f"{self.redo} and what follows it are run again; what they had made is in {aside}."
            )
        text = yaml.safe_dump(self.settings.to_json(), sort_keys=False, allow_unicode=True)
        with replacing(self.folder / "config.yaml") as file:
            file.write(f"# rlhf loop --config this_file\n{text}".encode())

    def _stage(
        self, name: str, what: str, made_from: Mapping[str, Any], work: Callable[[Path], Mapping[str, Any]]
    ) -> Path:
        """Run a stage, or find it done; returns its folder."""
        place = f"[bold]{self.stages.index(name) + 1}/{len(self.stages)}[/] {name}"
        if self.ledger.record(name) is None:
            if self.stopped:
                raise Stopped
            self.say.print(f"{place}: {what}", highlight=False)
        self.results[name] = self.ledger.run(name, {**made_from, "seed": self.settings.seed}, work)
        seconds = (self.ledger.record(name) or {}).get("seconds", 0.0)
        self.say.print(f"{place}: done in {clock(seconds)}", highlight=False, style="dim")
        return self.folder / name

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
            "demos": fingerprint_of_json(world.demos),
        }
        what = f"fine-tune on {len(world.demos):,} demonstrations"
        return self._stage(
            SFT,
            what,
            made_from,
            lambda folder: fine_tune(world, settings, folder, lambda: bool(self.stopped)),
        )

    # --- stage 2 ----------------------------------------------------------------------------------------------------

    def _reward(self, name: str, number: int, policy: Path, previous: list[Path]) -> list[Path]:
        """Answer, compare, learn: the folders of the round's reward models."""
        settings = self.settings
        if number == 1 and settings.reward_model is not None:
            for stage in ("sample", "compare", "reward"):
                made_from = {"reward_model": fingerprint(settings.reward_model, weights_only=True)}
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
            "prompts": fingerprint_of_json(rows),
        }

        def work(folder: Path) -> dict[str, Any]:
            answers = answer(
                policy, world.task, rows, wanted.responses, wanted.temperature, seed, settings.device,
                lambda: bool(self.stopped),
            )  # fmt: skip
            flat = [one for of_prompt in answers for one in of_prompt]
            write_completions(folder / "samples.jsonl", flat)
            return {"prompts": len(rows), "answers": len(flat)}

        what = f"{wanted.responses} answers to each of {len(rows):,} prompts"
        return self._stage(f"{name}/sample", what, made_from, work) / "samples.jsonl"

    def _compare(self, name: str, number: int, samples: Path, policy: Path, rewards: list[Path]) -> Path:
        settings, feedback = self.settings, self.settings.feedback
        asked = {key: value for key, value in asdict(feedback).items() if key not in ("host", "port")}
        made_from = {"feedback": asked, "samples": fingerprint(samples)}
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
            "demos": fingerprint_of_json(world.demos),
            "starts_from": fingerprint(backbone, weights_only=True),
        }
        return self._stage(
            REWARD_START,
            f"the reward model's start learns from {wanted:,} mismatched demonstrations",
            made_from,
            lambda folder: pretrain_reward(world, settings, folder, backbone, lambda: bool(self.stopped)),
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
        }
        baseline = read_completions(self.folder / SFT_EVALUATE / "samples.jsonl")

        def work(folder: Path) -> dict[str, Any]:
            return learn_reward(
                self.world, settings, folder, compared, warm or [Path(backbone)] * wanted.ensemble, baseline,
                lambda: bool(self.stopped),
            )  # fmt: skip

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
            "prompts": fingerprint_of_json(self.world.prompts),
        }
        seed = settings.seed * 1000 + number

        def work(folder: Path) -> dict[str, Any]:
            return improve(self.world, settings, folder, policy, reference, _reward_spec(rewards), seed)

        what = f"PPO against the reward model, {wanted.total_timesteps:,} tokens"
        return self._stage(f"{name}/ppo", what, made_from, work) / "policy"

    # --- what came of it ----------------------------------------------------------------------------------------------

    def _evaluate(self, name: str, policy: Path, rewards: list[Path]) -> None:
        settings, wanted, world = self.settings, self.settings.evaluation, self.world
        judges: dict[str, RewardModel] = {} if world.judge is None else {"gold": world.judge}
        if rewards:
            judges["reward"] = make(_reward_spec(rewards))
        made_from = {
            "evaluation": asdict(wanted),
            "policy": fingerprint(policy, weights_only=True),
            "rewards": [fingerprint(folder, weights_only=True) for folder in rewards],
            "prompts": fingerprint_of_json(world.held_out),
        }

        def work(folder: Path) -> dict[str, Any]:
            found = evaluate(
                policy, self._sft_folder, world.task, world.held_out, judges, wanted.temperature, settings.seed,
                settings.device, lambda: bool(self.stopped),
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

    def _conclude(self, policy: Path, rewards: list[Path]) -> dict[str, Any]:
        """result.json, the model card and the report; all are made from what the stages left."""
        result = {
            "command": "loop",
            "policy": os.path.relpath(policy, self.folder),
            "stages": self.results,
            "last_reward": self._by_last_reward(rewards),
            "seconds": round(
                sum((self.ledger.record(name) or {}).get("seconds", 0.0) for name in self.stages), 1
            ),
            "seed": self.settings.seed,
        }
        write_json(self.folder / "result.json", result)
        if policy.is_relative_to(self.folder):
            write_model_card(self.folder, policy, result)
        make_report(self.folder)
        return result

    def _by_last_reward(self, rewards: list[Path]) -> dict[str, float]:
        """The mean score of every policy under the last round's reward model, in which they can be compared."""
        if not rewards:
            return {}
        judge = make(_reward_spec(rewards))
        names = [name for name in self.stages if name.endswith("evaluate")]
        return {
            name: float(score(judge, read_completions(self.folder / name / "samples.jsonl")).mean())
            for name in names
        }


def read_settings(folder: Path) -> LoopSettings:
    """The settings of a run that was started before.

    Raises:
        ValueError: there is no such run.
    """
    from agents.options.loop import settings_from_yaml

    path = folder / "config.yaml"
    if not path.is_file():
        raise ValueError(
            f"{folder} holds no run: it has no config.yaml. Give settings (--config) to start one."
        )
    return settings_from_yaml(path)


def _draw(rows: list[dict[str, Any]], n: int, seed: int) -> list[dict[str, Any]]:
    """`n` different rows in random order, or all of them."""
    import numpy as np

    return [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))[:n]]


def _reward_spec(rewards: list[Path]) -> Any:
    """What `reward_models.make` takes for one reward model, or for the mean of several."""
    if len(rewards) == 1:
        return str(rewards[0])
    return {"name": "ensemble", "models": [str(folder) for folder in rewards]}
