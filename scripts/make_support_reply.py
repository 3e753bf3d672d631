"""Make the tokenizer, the language model and the reward model's start that come with `text_envs/SupportReply-v0`.

    python scripts/make_support_reply.py [--out FOLDER] [--steps 4000] [--reward-start-only]

All are made from the task's own grammar: a byte-level BPE of 1,024 tokens; a Llama of 2 layers fine-tuned on demonstrations
of mixed quality; and one of 4 layers, fine-tuned alike, that then learned to tell a demonstration from one of another prompt,
and from itself broken off: where reward models start. No judge was asked. The same seed, versions and machine give the same
files; it takes minutes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from transformers import LlamaConfig, PreTrainedTokenizerFast

from agents.sft import finetune
from reward_models.mismatches import pretrain
from text_envs.tasks.support_reply import FOLDER, demonstrations
from text_envs.trained_tokenizer import trained_tokenizer

VOCAB_SIZE = 1024
MISMATCHES = 16_000


def make_tokenizer() -> PreTrainedTokenizerFast:
    """It knows nearly each word of the grammar as one token."""
    return trained_tokenizer(
        (row["prompt"] + row["response"] for row in demonstrations("train", 20_000, seed=0)), VOCAB_SIZE
    )


def make_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """459,392 parameters, 1.8 MB in float32.

    Weights start four times as large as is usual, for layers this narrow: so the model learns within some
    hundred steps to copy the product's name from the message. With 0.02 it had not after 400.
    """
    return LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        initializer_range=0.08,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )


def make_reward_start(tokenizer: PreTrainedTokenizerFast, folder: Path, steps: int, seed: int) -> None:
    """792,832 parameters, 1.6 MB in bfloat16.

    Twice as deep as the language model: two layers do not learn to compare a reply with the message that it answers.
    """
    config = make_config(tokenizer)
    config.num_hidden_layers, config.initializer_range = 4, 0.06
    learned = demonstrations("train", 32 * steps, seed=seed)
    with tempfile.TemporaryDirectory() as scratch:
        finetune(
            config, learned, tokenizer, scratch, max_steps=steps, batch_size=32, learning_rate=2e-3, lr_schedule="cosine",
            warmup_steps=60, seed=seed, device="cpu",
        )  # fmt: skip
        pairs = [(row["prompt"], row["response"]) for row in learned[:MISMATCHES]]
        made = pretrain(scratch, pairs, n=MISMATCHES, seed=seed, device="cpu")
    made.model.to(torch.bfloat16).save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    print(f"{folder}: accuracy on held-out mismatches {made.epochs[-1].held_out_accuracy:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--reward-start-only", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # the order of sums, and so the last bits, depend on it
    tokenizer = make_tokenizer()
    make_reward_start(tokenizer, options.out.with_name("support_reply_reward"), 1200, options.seed)
    if options.reward_start_only:
        return
    tuned = finetune(
        make_config(tokenizer),
        demonstrations("train", 16 * options.steps, seed=options.seed),
        tokenizer,
        options.out,
        max_steps=options.steps,
        batch_size=16,
        learning_rate=3e-3,
        warmup_steps=60,
        eval_demonstrations=demonstrations("held_out", 512, seed=options.seed),
        seed=options.seed,
        device="cpu",
    )
    print(f"{options.out}: held-out loss {tuned.held_out_loss:.3f} nats per token, {tuned.seconds:.0f} s")


if __name__ == "__main__":
    main()
