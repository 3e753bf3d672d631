"""What `rlhf reward train` and `rlhf reward eval` do. The options are those of `agents.options.reward`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from agents import processes
from agents.callbacks import stop_on_signals
from agents.commands import check_model, exit_status, set_up
from agents.runs import RunFolder
from reward_models import Completion, evaluation, learning, make
from reward_models.calibration import calibrate
from reward_models.evaluation_report import add_evaluation
from reward_models.preferences import Comparison, Ranking
from reward_models.preferences.formats import read
from reward_models.preferences.splits import split
from reward_models.report import Report

TRAIN_ARGUMENTS = (
    "tokenizer", "ranking_loss", "epochs", "batch_size", "learning_rate", "lr_schedule", "warmup_steps", "weight_decay",
    "dropout", "label_smoothing", "centring_coef", "template", "max_length", "seed", "device",
)  # fmt: skip


def train(options: Namespace, config: str) -> int:
    """`rlhf reward train`: returns the exit status."""
    set_up(options)
    check_model(options.model)
    run = RunFolder(options.out, options.overwrite)
    records = read_preferences(options.preferences)
    learned, held_out = split(records, options.held_out, options.seed) if options.held_out else (records, [])
    completions = read_completions(options.calibrate_on) if options.calibrate_on else []
    arguments = {name: getattr(options, name) for name in TRAIN_ARGUMENTS}
    with stop_on_signals() as stopped, processes.explained():
        made = learning.train(
            options.model, learned, held_out=held_out or None, should_stop=lambda: bool(stopped), **arguments
        )
    stopped.agree()
    run.start(config)
    if not processes.is_first():
        return exit_status(stopped)
    made.model.save_pretrained(run.path)
    made.tokenizer.save_pretrained(run.path)
    result: dict[str, Any] = {
        "command": "reward train", "groups": made.groups, "responses": made.responses, "unjudged": made.unjudged,
        "steps": made.steps, "seconds": made.seconds, "epochs": [vars(epoch) for epoch in made.epochs],
        "stopped_by": stopped.number.name if stopped.number else None,
    }  # fmt: skip
    if held_out:
        found = evaluation.evaluate(str(run.path), held_out, learned)
        result["held_out"] = found.to_json()
        write_report(run.path, f"{options.model}, {made.groups:,} comparisons and rankings", found)
        print(_in_words(found))
    if completions:
        stored = calibrate(run.path, completions)
        result["calibration"] = {"mean": stored.mean, "std": stored.std, "completions": len(completions)}
    run.write_result(result)
    print(f"The reward model is in {run.path}: give it as --reward, or as an environment's reward_model.")
    return exit_status(stopped, f"the model as it was after {made.steps} steps is in {run.path}.")


def evaluate(options: Namespace, config: str) -> int:
    """`rlhf reward eval`: returns the exit status."""
    set_up(options)
    run = RunFolder(options.out, options.overwrite)
    held_out = read_preferences(options.preferences)
    files = options.train_preferences or trained_on(options.model)
    learned = read_preferences(files) if files else None
    found = evaluation.evaluate(make(options.model), held_out, learned)
    run.start(config)
    run.write_result({"command": "reward eval", "model": options.model, **found.to_json()})
    write_report(run.path, options.model, found)
    print(f"{_in_words(found, 'votes')}\nThe report is {run.path / 'report.html'}.")
    if found.shared_prompts:
        print(
            f"{found.shared_prompts:,} of {found.prompts:,} prompts were trained on, too: the accuracy is flattered. Give "
            "--preferences of other prompts.",
            file=sys.stderr,
        )
    return 0


def trained_on(model: str) -> list[str]:
    """The files that the reward model of a folder learned from, as `rlhf reward train` noted them, if they are there."""
    config = Path(model) / "config.yaml"
    if not config.is_file():
        return []
    options = yaml.safe_load(config.read_text())
    files = options.get("preferences") if isinstance(options, dict) else None
    files = [files] if isinstance(files, str) else files or []
    return [file for file in files if Path(file).is_file()]


def read_preferences(paths: str | Sequence[str]) -> list[Comparison | Ranking]:
    """The comparisons and rankings of one or more files.

    Raises:
        RecordError: a row that cannot be read, with its file and line. ValueError: a file without any.
    """
    found: list[Comparison | Ranking] = []
    for path in [paths] if isinstance(paths, str) else paths:
        records = [record for record in read(path).records if isinstance(record, Comparison | Ranking)]
        if not records:
            raise ValueError(
                f"{path} holds no comparisons or rankings. Give rows of prompt, chosen, rejected, or the like."
            )
        found += records
    return found


def read_completions(path: str) -> list[Completion]:
    """Every prompt with its response, of demonstrations, ratings or comparisons: what a model is calibrated on."""
    found = []
    for record in read(path).records:
        responses = record.responses if isinstance(record, Comparison | Ranking) else (record.response,)
        found += [Completion(record.prompt, response, columns=record.columns) for response in responses]
    return found


def write_report(folder: Path, subtitle: str, found: evaluation.Evaluation) -> None:
    """report.html: how good a reward model is."""
    report = Report("Reward model", subtitle)
    add_evaluation(report, found)
    report.write(folder / "report.html")


def _in_words(found: evaluation.Evaluation, votes: str = "held-out votes") -> str:
    accuracy, parts = found.accuracy, []
    if found.rater_agreement:
        parts.append(f"raters agree with one another {found.rater_agreement.value:.1%}")
    parts.append(f"the longer one wins {found.longer_wins.value:.1%}")
    if found.bag_of_words:
        parts.append(f"a bag of words {found.bag_of_words.value:.1%}")
    return (
        f"accuracy {accuracy.value:.1%} ({accuracy.low:.1%} to {accuracy.high:.1%}) on {accuracy.n:,} {votes}; "
        f"{'; '.join(parts)}"
    )
