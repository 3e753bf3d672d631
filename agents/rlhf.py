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
      report.html, result.json, last_reward.json (every held-out reply's score by the last reward model)

Each stage ends with a `stage.json` (see `agents.ledger`): a finished stage is not run again.

Of several processes (`agents.processes`) the first one does all this, and calls the others where something learns
(`agents.leading`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from agents import processes
from agents.callbacks import SignalReceived, stop_on_signals
from agents.leading import Leader, follow
from agents.ledger import RECORD, Ledger
from agents.loop_files import LAST_REWARD
from agents.loop_report import make_report
from agents.loop_stages import REWARD_START, SFT, SFT_EVALUATE, LoopStages, reward_spec
from agents.model_card import write_model_card
from agents.options.loop import HEAD, settings_from_yaml
from agents.runs import check_can_be_folder, clock, make_folder
from agents.settings import LoopSettings
from agents.stages import Stopped, read_completions
from agents.world import make_world
from reward_models import make, score
from reward_models.files import replacing, write_json
from reward_models.quiet import quiet_transformers

STAGES = ("sample", "compare", "reward", "ppo", "evaluate")


class Guard:
    """What `stop_on_signals` asks: a stage that does not end soon after a signal, because a judge is slow, is cut short.

    A stage bears that as it bears a kill. Fine-tuning is left alone: after its step it saves where it is.
    """

    interruptible = True

    def stop(self) -> None:
        """Nothing is told: stages look at the signal by themselves."""


class Loop(LoopStages):
    """A run of RLHF in one folder.

        loop = Loop(LoopSettings(env="text_envs/SupportReply-v0", rounds=2), "runs/loop")
        result = loop.run()

    A run that was stopped or killed goes on where it was: the same call again. Same settings and seed, same result, however
    often it was interrupted (on a CPU, on one thread, in the same number of processes).

    Of several processes all make one and call `run`; the folder is on a disk that all of them see.

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
        check_can_be_folder(self.folder)
        self._check_folder()
        self.settings = settings or read_settings(self.folder)
        self.settings.check()
        self._check_shares()
        self.say = console or Console()
        self.redo = redo
        self.ledger = Ledger(self.folder)
        self.stopped, self.guard = SignalReceived(), Guard()
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
            ProcessLost, LeaderFailed: of several processes another one failed.
        """
        settings = self.settings
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.world = make_world(settings)
        self.guard.interruptible = processes.is_first()
        processes.wait()  # till all have looked at what was there
        with stop_on_signals(self.guard) as self.stopped, quiet_transformers():
            try:
                if not processes.is_first():
                    return follow(self.stopped, self._take_part)
                self.leader = Leader(self.stopped, self.guard, self._take_part)
                return self.leader.run(self._lead)
            except Stopped as stopped:
                self.stopped.number = self.stopped.number or next(iter(stopped.args), None)
                raise
        raise Stopped(self.stopped.number)  # the guard cut it short

    def _lead(self) -> dict[str, Any]:
        from reward_models.preferences.store import FeedbackStore

        make_folder(self.folder)
        with FeedbackStore(self.folder / "feedback.db") as self.store:
            return self._rounds()

    def _together(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self.leader.call(function, *arguments)

    def _take_part(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A function of `agents.learning_stages`, in every process."""
        try:
            with processes.explained():
                return function(self.world, self.settings, *arguments, lambda: bool(self.stopped))
        except Stopped:
            self.stopped.agree()
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

    def _check_folder(self) -> None:
        """Raise ValueError for an `out` that holds something else, which would be overwritten."""
        path = self.folder
        if not path.exists() or (path / "feedback.db").is_file() or any(path.glob(f"*/{RECORD}")):
            return
        if any(entry.name[0] != "." for entry in path.iterdir()):
            raise ValueError(
                f"{path} is no run of the loop, and would be overwritten. Choose a new folder, or that of a run that is to "
                "go on."
            )

    def _check_shares(self) -> None:
        """Raise ValueError for numbers that the processes cannot share: before anybody is asked to rate."""
        settings, where = self.settings, "the loop's settings"
        if settings.demos is not None:
            processes.share(settings.sft.batch_size, "sft.batch_size", where)
        if settings.rounds:
            processes.share(settings.reward.batch_size, "reward.batch_size", where)
            processes.share(settings.ppo.n_episodes, "ppo.n_episodes", where)

    def _put_aside(self, first: str) -> None:
        """Make place for what `redo` asks for."""
        aside = self.ledger.redo(self.stages[self.stages.index(first) :])
        self.say.print(f"{first} and what follows it are run again; what they had made is in {aside}.")
        self.redo = None

    def _keep_settings(self) -> None:
        """Write config.yaml. Not before every finished stage was found to fit: a refused call leaves the run as it was."""
        text = yaml.safe_dump(self.settings.to_json(), sort_keys=False, allow_unicode=True)
        with replacing(self.folder / "config.yaml") as file:
            file.write(f"{HEAD}{text}".encode())

    def _stage(
        self, name: str, what: str, made_from: Mapping[str, Any], work: Callable[[Path], Mapping[str, Any]]
    ) -> Path:
        """Run a stage, or find it done; returns its folder."""
        place = f"[bold]{self.stages.index(name) + 1}/{len(self.stages)}[/] {name}"
        if name == self.redo:
            self._keep_settings()
            self._put_aside(name)
        if self.ledger.record(name) is None:
            if self.stopped:
                raise Stopped
            self._keep_settings()
            self.say.print(f"{place}: {what}", highlight=False)
        self.guard.interruptible = name != SFT
        self.results[name] = self.ledger.run(name, {**made_from, "seed": self.settings.seed}, work)
        seconds = (self.ledger.record(name) or {}).get("seconds", 0.0)
        self.say.print(f"{place}: done in {clock(seconds)}", highlight=False, style="dim")
        return self.folder / name

    # --- what came of it ---

    def _conclude(self, policy: Path, rewards: list[Path]) -> dict[str, Any]:
        """result.json, the model card and the report; all are made from what the stages left."""
        self._keep_settings()
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
        """The mean score of every policy under the last round's reward model, in which they can be compared.

        Those of the single replies are left in last_reward.json.
        """
        if not rewards:
            return {}
        judge = make(reward_spec(rewards))
        scores = {
            name: score(judge, read_completions(self.folder / name / "samples.jsonl"))
            for name in self.stages
            if name.endswith("evaluate")
        }
        write_json(self.folder / LAST_REWARD, {name: of_stage.tolist() for name, of_stage in scores.items()})
        return {name: float(of_stage.mean()) for name, of_stage in scores.items()}


def read_settings(folder: Path) -> LoopSettings:
    """The settings of a run that was started before.

    Raises:
        ValueError: there is no such run.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise ValueError(
            f"{folder} holds no run: it has no config.yaml. Give settings (--config) to start one."
        )
    return settings_from_yaml(path)
