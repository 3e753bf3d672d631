"""The `rlhf` command: `rlhf sft`, `rlhf ppo`, `rlhf generate`, `rlhf demo`.

Each option can also stand in a YAML file (`--config file.yaml`); `--print_config` prints one with the defaults. What a
command does is in `agents.commands` and `agents.demo`, which are imported when it runs: they need torch, `--help` does not.
"""

import json
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal, NoReturn

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace
from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

COMMANDS = {
    "sft": "agents.commands:sft",
    "ppo": "agents.commands:ppo",
    "generate": "agents.commands:generate",
    "demo": "agents.demo:demo",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit status: 0; 2 for a user's mistake; 130 or 143 when Ctrl-C or SIGTERM ended it."""
    parsed = build_parser().parse_args(arguments)
    name: str = parsed.command
    options: Namespace = parsed[name]
    options.pop("config", None)
    module, _, function = COMMANDS[name].partition(":")
    try:
        return getattr(import_module(module), function)(options, config_text(name, options))
    except KeyboardInterrupt:
        return _say(name, "interrupted; nothing more was saved.", 130)
    except Exception as error:
        if os.environ.get("RLHF_DEBUG") or not _is_mistake(error):
            raise
        return _say(name, f"error: {error}", 2)


def config_text(name: str, options: Namespace) -> str:
    """The options as YAML, each with its value, so that `--config` repeats the command whatever the defaults become."""
    plain = json.loads(json.dumps(options.as_dict()))
    return f"# rlhf {name} --config this_file\n{yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)}"


def _is_mistake(error: Exception) -> bool:
    """Whether the message alone tells the user what to mend. Set RLHF_DEBUG=1 to see the traceback all the same."""
    from gymnasium.error import Error as GymnasiumError

    return isinstance(error, (ValueError, OSError, ImportError, GymnasiumError))


def _say(name: str, message: str, status: int) -> int:
    print(f"rlhf {name}: {message}", file=sys.stderr)
    return status


class Parser(ArgumentParser):
    """Says a mistake in one message, without the screenful of usage before it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser = getattr(ex, "subcommand_parser", None) or self
        prog = parser.prog.replace(" [options]", "")
        print(f"{prog}: error: {_in_short(message)} `{prog} --help` lists the options.", file=sys.stderr)
        self.exit(2)


def _in_short(message: str) -> str:
    """jsonargparse's message as one sentence in the words of the command line."""
    if missing := re.search(r"arguments are required: \w+\.(\w+)", message):
        return f"--{missing[1].replace('_', '-')} is missing."
    if "was not provided" in message:
        return f"Which command? Choose one of {', '.join(COMMANDS)}."
    key = re.match(r'Parser key "(\w+)":\s*', message)
    text = message[key.end() :] if key else message
    reasons = re.findall(r"^ *- (?!Expected a <class 'NoneType'>)(.+)$", text, flags=re.MULTILINE)
    given = re.search(r"Given value: (.*)", text)
    if reasons:
        text = "; ".join(reasons) + (f" (given: {given[1]})" if given else "")
    option = f"--{key[1].replace('_', '-')}: " if key else ""
    return f"{option}{' '.join(text.split()).rstrip('.')}."


def build_parser() -> ArgumentParser:
    parser = Parser(
        prog="rlhf",
        description="Train causal language models with PPO against a reward model.",
        epilog="Set RLHF_DEBUG=1 to see the traceback behind an error.",
    )
    commands = parser.add_subcommands(dest="command")
    for name, make in SUBPARSERS.items():
        commands.add_subcommand(name, make(), help=make.__doc__)
    return parser


def _parser(name: str, description: str | None) -> ArgumentParser:
    parser = Parser(prog=f"rlhf {name}", description=description)
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these options")
    return parser


def sft_parser() -> ArgumentParser:
    """Fine-tune a model on demonstrations: prompts and the responses to imitate."""
    parser = _parser("sft", sft_parser.__doc__)
    add = parser.add_argument
    add("--model", type=str, required=True, help="folder or hub id of a causal LM")
    add("--demos", type=str, required=True, help="demonstrations, a .jsonl[.gz] file")
    add(
        "--out", type=str, required=True, help="gets a plain Hugging Face folder, config.yaml and result.json"
    )
    add(
        "--overwrite",
        type=bool,
        default=False,
        nargs="?",
        const=True,
        help="allow a folder that is not empty",
    )
    add("--tokenizer", type=str | None, help="folder or hub id; default: the model's")
    add(
        "--prompt-field", type=str, default="prompt", help="field of the demonstrations that holds the prompt"
    )
    add("--response-field", type=str, default="response", help="field that holds the response")
    add("--eval-demos", type=str | None, help="held-out demonstrations; their loss is in result.json")
    add("--epochs", type=PositiveFloat, default=3.0, help="passes over the demonstrations")
    add("--max-steps", type=PositiveInt | None, help="optimiser steps, instead of --epochs")
    add("--batch-size", type=PositiveInt, default=16, help="demonstrations per step")
    add("--learning-rate", type=PositiveFloat, default=5e-5, help="its peak; small models bear 1e-3")
    add(
        "--lr-schedule",
        type=Literal["linear", "cosine", "constant"],
        default="linear",
        help="of the learning rate",
    )
    add("--warmup-steps", type=NonNegativeInt, default=0, help="steps in which the learning rate rises")
    add("--weight-decay", type=NonNegativeFloat, default=0.0, help="of AdamW")
    add(
        "--max-length",
        type=PositiveInt | None,
        help="longest prompt + response in tokens; longer ones are left out",
    )
    _add_run_options(parser)
    return parser


def ppo_parser() -> ArgumentParser:
    """Train a model by PPO to write what a reward model likes, from prompts or in a registered environment."""
    parser = _parser("ppo", ppo_parser.__doc__)
    add = parser.add_argument
    add("--model", type=str | None, help="folder or hub id of a causal LM; default: the environment's own")
    add("--env", type=str | None, help="environment id, such as text_envs/SupportReply-v0; or give --prompts")
    add("--env-kwargs", type=dict[str, Any], default={}, help="more arguments of the environment, as JSON")
    add("--prompts", type=str | None, help="prompts, a .jsonl[.gz] or .txt[.gz] file")
    add("--prompt-field", type=str, default="prompt", help="field of the prompts that holds the text")
    add(
        "--max-prompt-tokens",
        type=PositiveInt | None,
        help="longest prompt in tokens; default: the longest there is",
    )
    add(
        "--prompts-too-long",
        type=Literal["truncate_right", "truncate_left", "drop", "error"],
        default="truncate_right",
        help="what becomes of longer prompts: a text's opening is kept to be continued, or its end, or it is left out",
    )
    add(
        "--reward",
        type=dict[str, Any] | str | None,
        help="name, module:attr, classifier folder, or JSON with name and arguments",
    )
    add(
        "--max-new-tokens",
        type=PositiveInt | None,
        help="longest response in tokens; default: 48, or the environment's",
    )
    add("--stop", type=list[str] | str, default=[], help="text, or JSON list of texts, that ends a response")
    add(
        "--eos-token-id", type=list[int] | int | None, help="tokens that end a response; default: the model's"
    )
    add(
        "--total-timesteps",
        type=PositiveInt,
        required=True,
        help="tokens to generate; the last rollout is completed",
    )
    add(
        "--out",
        type=str,
        required=True,
        help="run folder: configuration, metrics, samples, checkpoints, policy, result.json",
    )
    add(
        "--overwrite",
        type=bool,
        default=False,
        nargs="?",
        const=True,
        help="remove a run that lies in the folder",
    )
    add("--n-episodes", type=PositiveInt, default=64, help="episodes per rollout")
    add("--batch-size", type=PositiveInt, default=16, help="episodes per minibatch")
    add(
        "--micro-batch-size",
        type=PositiveInt | None,
        help="episodes per forward pass; changes memory, not the result",
    )
    add("--n-epochs", type=PositiveInt, default=4, help="passes over each rollout")
    add(
        "--n-envs",
        type=PositiveInt | None,
        help="episodes generated side by side; default: --n-episodes, at most 64",
    )
    add("--learning-rate", type=PositiveFloat | None, help="default: from the number of parameters")
    add("--lr-schedule", type=Literal["linear", "constant"], default="linear", help="linear falls to 0")
    add("--kl-coef", type=NonNegativeFloat, default=0.05, help="weight of the KL penalty per token")
    add("--kl-target", type=PositiveFloat | None, help="nats per reply that an adaptive --kl-coef aims at")
    add("--kl-horizon", type=PositiveFloat, default=10_000, help="episodes over which it adapts")
    add("--kl-estimator", type=Literal["k1", "k2", "k3"], default="k1", help="of the penalty")
    add("--target-kl", type=PositiveFloat | None, help="end a rollout's update at 1.5 times this approx_kl")
    add(
        "--missing-eos-penalty",
        type=NonNegativeFloat,
        default=1.0,
        help="subtracted where a reply did not end by itself",
    )
    add(
        "--score-clip",
        type=PositiveFloat | None,
        default=10.0,
        help="scores are clipped to plus or minus this",
    )
    add("--clip-range", type=PositiveFloat, default=0.2, help="of the probability ratio")
    add("--gamma", type=ClosedUnitInterval, default=1.0, help="discount")
    add("--gae-lambda", type=ClosedUnitInterval, default=0.95, help="of generalised advantage estimation")
    add("--vf-coef", type=NonNegativeFloat, default=0.1, help="weight of the value loss")
    add("--ent-coef", type=NonNegativeFloat, default=0.0, help="weight of the entropy bonus")
    add("--max-grad-norm", type=PositiveFloat, default=1.0, help="the gradient is clipped to this norm")
    add("--temperature", type=PositiveFloat, default=1.0, help="of sampling, and of what is trained")
    add("--value-model", type=Literal["shared", "separate"], default="shared", help="the critic's trunk")
    add("--reference-model", type=str | None, help="what to stay near; default: the model as it starts")
    add("--dtype", type=Literal["auto", "float32", "bfloat16"], default="auto", help="of the forward passes")
    add("--tensorboard", type=bool, default=True, help="write TensorBoard events")
    add(
        "--samples-every",
        type=NonNegativeInt,
        default=20,
        help="show and store samples every so many updates; 0: never",
    )
    add(
        "--checkpoint-every",
        type=NonNegativeInt,
        default=25,
        help="save every so many updates; 0: at the end only",
    )
    _add_run_options(parser)
    return parser


def generate_parser() -> ArgumentParser:
    """Let a model answer a prompt."""
    parser = _parser("generate", generate_parser.__doc__)
    add = parser.add_argument
    add("--model", type=str, required=True, help="folder or hub id of a causal LM")
    add("--prompt", type=str, required=True, help="the text to continue or answer")
    add("--n", type=PositiveInt, default=1, help="replies")
    add("--max-new-tokens", type=PositiveInt, default=48, help="longest reply in tokens")
    add("--temperature", type=PositiveFloat, default=1.0, help="lower is more predictable")
    add(
        "--greedy", type=bool, default=False, nargs="?", const=True, help="take the likeliest token each time"
    )
    add("--stop", type=list[str] | str, default=[], help="text, or JSON list of texts, that ends a reply")
    add("--eos-token-id", type=list[int] | int | None, help="tokens that end a reply; default: the model's")
    _add_run_options(parser)
    return parser


def demo_parser() -> ArgumentParser:
    """The whole way in minutes: fine-tune a fresh tiny model on support replies, improve it by PPO, compare."""
    parser = _parser("demo", demo_parser.__doc__)
    add = parser.add_argument
    add("--out", type=str | None, help="run folder; default: runs/demo-<date>-<time>")
    add(
        "--overwrite",
        type=bool,
        default=False,
        nargs="?",
        const=True,
        help="remove a run that lies in the folder",
    )
    add("--sft-steps", type=PositiveInt | None, help="steps of fine-tuning; default: what the demo needs")
    add("--total-timesteps", type=PositiveInt | None, help="tokens of PPO; default: what the demo needs")
    _add_run_options(parser, threads=1)  # two wait for each other tenfold on a busy machine, and gain little
    return parser


def _add_run_options(parser: ArgumentParser, threads: int | None = None) -> None:
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="same seed, same run (on a CPU)")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    default = "torch's choice" if threads is None else threads
    parser.add_argument(
        "--threads", type=PositiveInt | None, default=threads, help=f"CPU threads; default: {default}"
    )


SUBPARSERS = {"sft": sft_parser, "ppo": ppo_parser, "generate": generate_parser, "demo": demo_parser}

if __name__ == "__main__":
    sys.exit(main())
