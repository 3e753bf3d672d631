"""Options of `rlhf reward train` and `rlhf reward eval`."""

from typing import Any, Literal

from jsonargparse import ArgumentParser
from jsonargparse.typing import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    restricted_number_type,
)

from agents.options.parser import Rate, add_flag, add_run_options, new_parser

Smoothing = restricted_number_type("Smoothing", float, [(">=", 0), ("<", 0.5)])
HeldOut = restricted_number_type("HeldOut", float, [(">=", 0), ("<", 1)])


def train_parser() -> ArgumentParser:
    """Learn a reward model from comparisons and rankings."""
    parser = new_parser("reward train", train_parser.__doc__)
    add: Any = parser.add_argument
    add(
        "--model",
        type=str,
        required=True,
        help="folder or hub id of a causal LM, the backbone; or of a reward model, to go on",
    )
    add(
        "--preferences",
        type=list[str] | str,
        required=True,
        help="a .jsonl[.gz] file, or a JSON list of them",
    )
    add(
        "--out",
        type=str,
        required=True,
        help="gets a plain Hugging Face folder, config.yaml, result.json and report.html",
    )
    add_flag(parser, "--overwrite", "allow a folder that is not empty")
    add("--tokenizer", type=str | None, help="folder or hub id; default: the model's")
    add(
        "--held-out",
        type=HeldOut,
        default=0.1,
        help="share of the prompts that is measured on and not learned from",
    )
    add(
        "--ranking-loss",
        type=Literal["plackett_luce", "pairs"],
        default="plackett_luce",
        help="of rankings of three or more",
    )
    add("--epochs", type=PositiveFloat, default=3.0, help="passes over the preferences")
    add("--batch-size", type=PositiveInt, default=16, help="pairs or rankings per step")
    add("--learning-rate", type=Rate, default=1e-4, help="its peak; small models bear 5e-4")
    add(
        "--lr-schedule",
        type=Literal["linear", "cosine", "constant"],
        default="linear",
        help="of the learning rate",
    )
    add("--warmup-steps", type=NonNegativeInt, default=0, help="steps in which the learning rate rises")
    add("--weight-decay", type=NonNegativeFloat, default=0.0, help="of AdamW")
    add("--dropout", type=HeldOut, default=0.0, help="of the model while it learns")
    add("--label-smoothing", type=Smoothing, default=0.0, help="the chance that a choice is a slip")
    add(
        "--centring-coef",
        type=NonNegativeFloat,
        default=0.0,
        help="weight of the term that keeps scores near zero",
    )
    add("--template", type=str, default="{prompt}{response}", help='the text that is judged; or "chat"')
    add("--max-length", type=PositiveInt | None, help="tokens; a longer text loses its beginning")
    add(
        "--calibrate-on",
        type=str | None,
        help="demonstrations or samples on which scores get mean 0 and deviation 1",
    )
    add_run_options(parser)
    return parser


def eval_parser() -> ArgumentParser:
    """Measure a reward model on preferences, beside the raters' own agreement and two baselines."""
    parser = new_parser("reward eval", eval_parser.__doc__)
    add: Any = parser.add_argument
    add(
        "--model",
        type=str,
        required=True,
        help="folder of a reward model, or any reward's name or module:attr",
    )
    add(
        "--preferences",
        type=list[str] | str,
        required=True,
        help="a .jsonl[.gz] file, or a JSON list of them",
    )
    add(
        "--train-preferences",
        type=list[str] | str,
        default=[],
        help="what it learned from: the bag of words learns the same; default: what its folder's config.yaml names",
    )
    add("--out", type=str, required=True, help="gets report.html and result.json")
    add_flag(parser, "--overwrite", "allow a folder that is not empty")
    add_run_options(parser)
    return parser


COMMANDS = {
    "train": (train_parser, "agents.reward_commands:train"),
    "eval": (eval_parser, "agents.reward_commands:evaluate"),
}
