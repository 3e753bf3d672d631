"""Options of `rlhf loop`: the settings of `agents.settings.LoopSettings`, name for name."""

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from agents.options.parser import new_parser
from agents.settings import LoopSettings


def loop_parser() -> ArgumentParser:
    """Run all stages of RLHF, round after round: fine-tune, answer, compare, learn a reward, PPO, evaluate."""
    parser = new_parser("loop", loop_parser.__doc__)
    parser.add_argument(
        "--out", type=str, required=True, help="run folder; a run that was stopped there goes on"
    )
    parser.add_argument(
        "--redo", type=str | None, help="run this stage and all after it again: round-1/reward"
    )
    parser.add_class_arguments(LoopSettings)
    return parser


def report_parser() -> ArgumentParser:
    """Make the report of a run of the loop again, from what its stages left."""
    parser = new_parser("report", report_parser.__doc__)
    parser.add_argument("folder", type=str, help="run folder of `rlhf loop` or `rlhf demo`")
    return parser


def settings_from(options: Namespace) -> LoopSettings:
    """The settings that the parsed options describe."""
    parser = _settings_parser()
    given = {name: value for name, value in options.as_dict().items() if name in vars(LoopSettings())}
    return parser.instantiate(parser.parse_object({"settings": given})).settings


def settings_from_yaml(path: Path) -> LoopSettings:
    """The settings that a config.yaml holds.

    Raises:
        ValueError: it holds something else.
    """
    import yaml

    try:
        parser = _settings_parser()
        given: dict[str, Any] = yaml.safe_load(path.read_text())
        return parser.instantiate(parser.parse_object({"settings": given})).settings
    except Exception as error:
        raise ValueError(
            f"{path} does not hold the settings of a run: {error}. Restore it from a copy."
        ) from error


def _settings_parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--settings", type=LoopSettings)
    return parser


COMMANDS = {
    "loop": (loop_parser, "agents.loop_command:loop"),
    "report": (report_parser, "agents.loop_command:report"),
}
