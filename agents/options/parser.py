"""The parser that all commands share: YAML configuration, and a mistake said in one message."""

import math
import re
import sys
from typing import Any, NoReturn

from jsonargparse import ActionConfigFile, ArgumentParser
from jsonargparse.typing import PositiveInt, restricted_number_type

Rate = restricted_number_type("Rate", float, [(">", 0), ("<", math.inf)])  # of learning
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])  # what numpy takes


class Parser(ArgumentParser):
    """Says a mistake in one message, without the screenful of usage before it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser = getattr(ex, "subcommand_parser", None) or self
        prog = parser.prog.replace(" [options]", "")
        names_command = r"(?:arguments are required: |expected \")(\w+(?:\.\w+)*)\.\w+"
        if command := re.search(names_command, message):
            prog = f"{prog} {command[1].replace('.', ' ')}"
        print(f"{prog}: error: {_in_short(message)} `{prog} --help` lists the options.", file=sys.stderr)
        self.exit(2)


def _in_short(message: str) -> str:
    """jsonargparse's message as one sentence in the words of the command line."""
    if missing := re.search(r"arguments are required: (?:\w+\.)*(\w+)", message):
        return f"--{missing[1].replace('_', '-')} is missing."
    if "was not provided" in message:
        choices = re.search(r"\{(.*?)\}", message)
        names = choices[1].replace(" ", "").replace(",", ", ") if choices else ""
        return f"Which command? Choose one of {names.removesuffix('.')}." if names else "Which command?"
    key = re.match(r'Parser key "([\w.]+)":\s*', message)
    text = message[key.end() :] if key else message
    reasons = re.findall(r"^ *- (?!Expected a <class 'NoneType'>)(.+)$", text, flags=re.MULTILINE)
    given = re.search(r"Given value: (.*)", text)
    if reasons:
        text = "; ".join(reasons) + (f" (given: {given[1]})" if given else "")
    option = f"--{key[1].rpartition('.')[2].replace('_', '-')}: " if key else ""
    return f"{option}{' '.join(text.split()).rstrip('.')}."


def new_parser(name: str, description: str | None) -> ArgumentParser:
    """The parser of one command, `rlhf NAME`, with `--config` and `--print_config`."""
    parser = Parser(prog=f"rlhf {name}", description=description)
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these options")
    return parser


def add_flag(parser: ArgumentParser, name: str, help: str) -> None:
    """An option that is off unless it is named; in YAML it is true or false."""
    parser.add_argument(name, type=bool, default=False, nargs="?", const=True, help=help)


def add_run_options(parser: ArgumentParser, threads: int | None = None) -> None:
    """The options of everything that computes: --seed, --device, --threads."""
    add: Any = parser.add_argument
    add("--seed", type=Seed, default=0, help="same seed, same run (on a CPU)")
    add("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    default = "torch's choice" if threads is None else threads
    add("--threads", type=PositiveInt | None, default=threads, help=f"CPU threads; default: {default}")
