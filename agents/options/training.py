"""Options of `rlhf sft`, `rlhf ppo`, `rlhf generate` and `rlhf demo`."""

import os
from typing import Any, Literal

from jsonargparse import ArgumentParser
from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from agents.options.parser import Rate, add_flag, add_run_options, new_parser


def sft_parser() -> ArgumentParser:
    """Fine-tune a model on demonstrations: prompts and the responses to imitate."""
    parser = new_parser("sft", sft_parser.__doc__)
    add = parser.add_argument
    add("--model", type=str, required=True, help="folder or hub id of a causal LM")
    add("--demos", type=str, required=True, help="demonstrations, a .jsonl[.gz] file")
    add(
        "--out", type=str, required=True, help="gets a plain Hugging Face folder, config.yaml and result.json"
    )
    add_flag(parser, "--overwrite", "remove a run that lies in the folder")
    add_flag(parser, "--resume", "go on with the run in the folder, exactly; begin it where there is none")
    add("--tokenizer", type=str | None, help="folder or hub id; default: the model's")
    add(
        "--prompt-field", type=str, default="prompt", help="field of the demonstrations that holds the prompt"
    )
    add(
        "--response-field",
        type=str,
        default="response",
        help="field that holds the response; TRL's completion is known, too",
    )
    add(
        "--response-prefix",
        type=str,
        default="",
        help="put before responses that do not begin with white space: a space, where prompts end in a word",
    )
    add("--eval-demos", type=str | None, help="held-out demonstrations")
    add(
        "--held-out",
        type=ClosedUnitInterval,
        default=0.05,
        help="without --eval-demos: share of the demonstrations, split by prompt, that is not learned from; 0: none",
    )
    add("--epochs", type=PositiveFloat, default=3.0, help="passes over the demonstrations")
    add("--max-steps", type=PositiveInt | None, help="optimiser steps, instead of --epochs")
    add("--batch-size", type=PositiveInt, default=16, help="demonstrations per step")
    add("--learning-rate", type=Rate, default=5e-5, help="its peak; small models bear 1e-3")
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
    add_lora(parser)
    add(
        "--eos-token-id",
        type=list[int] | int | None,
        help="what ends a response; default: the tokenizer's EOS",
    )
    add(
        "--samples",
        type=NonNegativeInt,
        default=4,
        help="prompts to be answered before and after, held-out ones where there are",
    )
    add(
        "--sample-temperature",
        type=NonNegativeFloat,
        default=0.0,
        help="of these answers; 0 takes the likeliest token each time",
    )
    add("--checkpoint-every", type=PositiveInt, default=100, help="steps between two checkpoints")
    add_run_options(parser)
    return parser


def add_lora(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--lora-r",
        type=PositiveInt | None,
        help="train a LoRA adapter of this rank instead of all weights; what is written has it merged",
    )


def ppo_parser() -> ArgumentParser:
    """Train a model by PPO to write what a reward model likes, from prompts or in a registered environment."""
    parser = new_parser("ppo", ppo_parser.__doc__)
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
    add_flag(parser, "--overwrite", "remove a run that lies in the folder")
    add_flag(parser, "--resume", "go on with the run in the folder, exactly; begin it where there is none")
    add("--n-episodes", type=PositiveInt, default=64, help="episodes per rollout, of all processes")
    add("--batch-size", type=PositiveInt, default=16, help="episodes per minibatch, of all processes")
    add(
        "--micro-batch-size",
        type=PositiveInt | None,
        help="episodes per forward pass; changes memory, not the result",
    )
    add(
        "--max-tokens-per-batch",
        type=PositiveInt | None,
        help="tokens per forward pass, padding counted; changes memory, not the result",
    )
    add_flag(parser, "--gradient-checkpointing", "compute layers anew in backward: more time, less memory")
    add("--n-epochs", type=PositiveInt, default=4, help="passes over each rollout")
    add(
        "--n-envs",
        type=PositiveInt | None,
        help="episodes generated side by side in each process; default: all that it plays, at most 64",
    )
    add("--learning-rate", type=Rate | None, help="default: from the number of parameters")
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
    add(
        "--value-model",
        type=Literal["shared", "separate", "from_reward_model"],
        default="shared",
        help="the critic's trunk: the policy's, its own, or that of --reward, where it is a learned reward model's folder",
    )
    add_lora(parser)
    add("--reference-model", type=str | None, help="what to stay near; default: the model as it starts")
    add(
        "--reference-kwargs",
        type=dict[str, str] | None,
        help='how it is held, as JSON: {"dtype": "bfloat16"} takes half the memory; "device" names another device',
    )
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
    add_run_options(parser)
    return parser


def generate_parser() -> ArgumentParser:
    """Let a model answer a prompt, or every prompt of a file."""
    parser = new_parser("generate", generate_parser.__doc__)
    add = parser.add_argument
    add("--model", type=str, required=True, help="folder or hub id of a causal LM")
    add("--prompt", type=str | None, help="the text to continue or answer")
    add("--prompts", type=str | None, help="a .jsonl[.gz] or .txt[.gz] file of them, instead")
    add(
        "--out",
        type=str | None,
        help="gets rows of prompt, response and origin, as `rlhf feedback import` takes them; default: replies are printed",
    )
    add_flag(parser, "--overwrite", "replace the file if it is there")
    add("--n", type=PositiveInt, default=1, help="replies to each prompt")
    add("--max-new-tokens", type=PositiveInt, default=48, help="longest reply in tokens")
    add("--temperature", type=PositiveFloat, default=1.0, help="lower is more predictable")
    add_flag(parser, "--greedy", "take the likeliest token each time")
    add("--stop", type=list[str] | str, default=[], help="text, or JSON list of texts, that ends a reply")
    add("--eos-token-id", type=list[int] | int | None, help="tokens that end a reply; default: the model's")
    add_run_options(parser)
    return parser


def demo_parser() -> ArgumentParser:
    """The whole loop in minutes on customer support: fine-tune a fresh tiny model, compare, learn a reward, PPO; twice."""
    parser = new_parser("demo", demo_parser.__doc__)
    add = parser.add_argument
    add(
        "--out",
        type=str | None,
        help="run folder; a demo that was stopped there goes on. Default: runs/demo-<date>-<time>",
    )
    add_flag(parser, "--quick", "end in a minute: no fine-tuning, one round")
    add(
        "--rater",
        type=Literal["simulated", "web", "terminal"],
        default="simulated",
        help="who compares the answers: a simulated rater, you on the rating page, or you here",
    )
    add(
        "--votes",
        type=PositiveInt | None,
        help="comparisons in each round; default: 800, 500 if quick, 40 if you are the rater",
    )
    add("--port", type=NonNegativeInt, default=8000, help="of the rating page")
    add("--sft-steps", type=PositiveInt, default=1150, help="steps of fine-tuning")
    add("--total-timesteps", type=PositiveInt | None, help="tokens of PPO in each round")
    # On two slow cores two take 5.6 minutes, one 8.7. On a busy machine they wait for each other: --threads 1.
    add_run_options(parser, threads=min(2, os.cpu_count() or 1))
    return parser


COMMANDS = {
    "sft": (sft_parser, "agents.sft_command:sft"),
    "ppo": (ppo_parser, "agents.commands:ppo"),
    "generate": (generate_parser, "agents.commands:generate"),
    "demo": (demo_parser, "agents.demo:demo"),
}
