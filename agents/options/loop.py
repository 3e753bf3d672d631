"""Options of `rlhf loop`: the settings of `agents.settings.LoopSettings`, name for name."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from agents.options.parser import Parser, new_parser
from agents.settings import LoopSettings


class LoopParser(Parser):
    """Lays the options over the settings of the run that --out holds, and takes --max-new-tokens for --max_new_tokens.

    A --config describes the run anew: nothing is then taken from the folder.
    """

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        typed = [_underscored(argument) for argument in (sys.argv[1:] if args is None else args)]
        names = {argument.partition("=")[0] for argument in typed}
        out = _value_of("--out", typed)
        if out and "--config" not in names and not {"-h", "--help", "--print_config"} & names:
            typed = [*self._of_run(Path(out) / "config.yaml"), *typed]
        return super().parse_args(typed, *rest, **kwargs)

    def _of_run(self, config: Path) -> list[str]:
        """The options that stand for a run's config.yaml; none where there is no such file, or it is another command's."""
        if not config.is_file() or not config.read_text(errors="replace").startswith(HEAD):
            return []
        try:
            settings_from_yaml(config)
        except ValueError as error:
            self.error(str(error))
        return ["--config", str(config)]


def _underscored(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + equals + value if name[:2] == "--" else argument


def _value_of(option: str, arguments: Sequence[str]) -> str | None:
    for argument, following in zip(arguments, [*arguments[1:], None]):
        name, equals, value = argument.partition("=")
        if name == option:
            return value if equals else following
    return None


HEAD = "# rlhf loop --config this_file\n"  # of a run's config.yaml


def loop_parser() -> ArgumentParser:
    """Run all stages of RLHF, round after round: fine-tune, answer, compare, learn a reward, PPO, evaluate."""
    parser = LoopParser(prog="rlhf loop", description=loop_parser.__doc__)
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these options")
    parser.add_argument(
        "--out",
        type=str,
        required=True,
        help="run folder; a run that is there goes on as its config.yaml says, but for the options given here",
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
