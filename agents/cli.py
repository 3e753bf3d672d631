"""The `rlhf` command: `rlhf sft`, `rlhf ppo`, `rlhf feedback serve`, and so on; `rlhf --help` lists them.

Each option can also stand in a YAML file (`--config file.yaml`); `--print_config` prints one with the defaults. The options
are in `agents.options`; what a command does is imported when it runs, because that needs torch and `--help` does not.
"""

import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import yaml
from jsonargparse import ArgumentParser, Namespace

from agents.options import GROUPS
from agents.options.parser import Parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit status: 0; 2 for a user's mistake; 130 or 143 when Ctrl-C or SIGTERM ended it."""
    name, target, options = _chosen(build_parser().parse_args(arguments))
    options.pop("config", None)
    module, _, function = target.partition(":")
    try:
        return getattr(import_module(module), function)(options, config_text(name, options))
    except KeyboardInterrupt:
        return _say(name, "interrupted; nothing more was saved.", 130)
    except Exception as error:
        if os.environ.get("RLHF_DEBUG") or not _is_mistake(error):
            raise
        return _say(name, f"error: {error}", 2)


def config_text(name: str, options: Namespace) -> str:
    """The options as YAML, each with its value, so that `--config` repeats the command whatever the defaults become.

    `overwrite` is left out: who repeats a command with its file must say again that a run may be lost.
    """
    plain = json.loads(json.dumps(options.as_dict()))
    plain.pop("overwrite", None)
    return f"# rlhf {name} --config this_file\n{yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)}"


def build_parser() -> ArgumentParser:
    description, commands = GROUPS[""]
    parser = Parser(
        prog="rlhf",
        description=description,
        epilog="Set RLHF_DEBUG=1 to see the traceback behind an error.",
    )
    subcommands = parser.add_subcommands(dest="command")
    for name, (make, _) in commands.items():
        subcommands.add_subcommand(name, make(), help=make.__doc__)
    groups = {name: group for name, group in GROUPS.items() if name}
    for name, (description, commands) in groups.items():
        group = Parser(prog=f"rlhf {name}", description=description)
        subcommands.add_subcommand(
            name, group, help=description
        )  # before it has commands of its own: jsonargparse's order
        of_group = group.add_subcommands(dest="command")
        for own, (make, _) in commands.items():
            of_group.add_subcommand(own, make(), help=make.__doc__)
    return parser


def _chosen(parsed: Namespace) -> tuple[str, str, Namespace]:
    """The name of the command that was given, what runs it, and its options."""
    first: str = parsed.command
    options: Namespace = parsed[first]
    if first in GROUPS:
        second: str = options.command
        return f"{first} {second}", GROUPS[first][1][second][1], options[second]
    return first, GROUPS[""][1][first][1], options


def _is_mistake(error: Exception) -> bool:
    """Whether the message alone tells the user what to mend. Set RLHF_DEBUG=1 to see the traceback all the same."""
    from gymnasium.error import Error as GymnasiumError

    return isinstance(error, (ValueError, OSError, ImportError, GymnasiumError))


def _say(name: str, message: str, status: int) -> int:
    print(f"rlhf {name}: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
