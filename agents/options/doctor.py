"""Options of `rlhf doctor`: a folder; or the options of `rlhf ppo` that describe a set-up."""

from typing import Any, Literal

from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt

from agents.options.parser import add_flag, add_run_options, new_parser


def doctor_parser() -> ArgumentParser:
    """Check a run, a model or a set-up, and say in plain words what is wrong and what to do."""
    parser = new_parser("doctor", doctor_parser.__doc__)
    add = parser.add_argument
    add(
        "folder",
        type=str | None,
        nargs="?",
        help="folder of a run (finished or not), of a model or of a reward model; or describe a set-up:",
    )
    add("--model", type=str | None, help="folder or hub id of a causal LM; default: the environment's own")
    add("--env", type=str | None, help="environment id, such as text_envs/SupportReply-v0; or give --prompts")
    add("--env-kwargs", type=dict[str, Any], default={}, help="more arguments of the environment, as JSON")
    add("--prompts", type=str | None, help="prompts, a .jsonl[.gz] or .txt[.gz] file")
    add(
        "--prompt-field",
        type=str,
        default="prompt",
        help="field of the prompts, and demonstrations, that holds the text",
    )
    add(
        "--max-prompt-tokens",
        type=PositiveInt | None,
        help="longest prompt in tokens; default: the longest there is",
    )
    add(
        "--prompts-too-long",
        type=Literal["truncate_right", "truncate_left", "drop", "error"],
        default="truncate_right",
        help="what becomes of longer prompts",
    )
    add("--reward", type=dict[str, Any] | str | None, help="name, module:attr, classifier folder, or JSON")
    add("--demos", type=str | None, help="demonstrations, a .jsonl[.gz] file")
    add(
        "--response-field",
        type=str,
        default="response",
        help="field of the demonstrations that holds the response",
    )
    add("--max-new-tokens", type=PositiveInt | None, help="longest response in tokens")
    add("--stop", type=list[str] | str, default=[], help="text, or JSON list of texts, that ends a response")
    add(
        "--eos-token-id", type=list[int] | int | None, help="tokens that end a response; default: the model's"
    )
    add("--temperature", type=PositiveFloat, default=1.0, help="of sampling, and of what is trained")
    add("--reference-model", type=str | None, help="what to stay near; default: the model as it starts")
    add("--kl-coef", type=NonNegativeFloat, default=0.05, help="weight of the KL penalty per token")
    add(
        "--score-clip",
        type=PositiveFloat | None,
        default=10.0,
        help="scores are clipped to plus or minus this",
    )
    add("--dtype", type=Literal["auto", "float32", "bfloat16"], default="auto", help="of the forward passes")
    add("--n-episodes", type=PositiveInt, default=64, help="replies that are sampled and judged")
    add_flag(parser, "--json", "print JSON")
    add_run_options(parser)
    return parser


COMMANDS = {"doctor": (doctor_parser, "agents.doctor:doctor")}
