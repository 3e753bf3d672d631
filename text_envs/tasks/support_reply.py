"""`text_envs/SupportReply-v0`: answer a customer politely, briefly, and with the remedy that fits."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from text_envs.env import TextGenerationEnv
from text_envs.tasks import support_grammar as grammar
from text_envs.tasks.support_grammar import PROBLEMS, PRODUCTS, Ticket
from text_envs.tasks.support_judge import WEIGHTS, SupportJudge, judge

__all__ = [
    "FOLDER",
    "REWARD_START",
    "WEIGHTS",
    "SupportJudge",
    "SupportReplyEnv",
    "demonstrations",
    "judge",
    "prompts",
]

FOLDER = Path(__file__).parent / "data" / "support_reply"
"""The tokenizer, and a language model fine-tuned on `demonstrations`: a Hugging Face folder, made by
scripts/make_support_reply.py."""

REWARD_START = FOLDER.with_name("support_reply_reward")
"""Where a reward model for the task can start: a sequence classifier that learned, from the demonstrations alone, to tell a
reply to its message from one to another. Made by the same script."""

SPLITS = ("train", "held_out")
PROMPTS_PER_PAIR = {"train": 30, "held_out": 15}
QUALITY_SHARES = {
    "good": 0.12,
    "rude": 0.28,
    "vague": 0.26,
    "wrong_product": 0.10,
    "wrong_remedy": 0.13,
    "too_long": 0.11,
}
# The longest prompt has 46 tokens, the longest good reply 42 with its EOS.
MAX_PROMPT_TOKENS = 48
MAX_NEW_TOKENS = 48


def pairs(split: str) -> list[tuple[str, str]]:
    """The (product, problem) pairs of a split: each product and each problem is in both, no pair is.

    One pair in five is held out. So held-out prompts differ from the training prompts by construction, and
    a policy answers them only by combining what it has seen apart.

    Raises:
        ValueError: for a split that is not one of `SPLITS`.
    """
    if split not in SPLITS:
        raise ValueError(f"SupportReply-v0 has no split {split!r}. Choose one of: {', '.join(SPLITS)}.")
    return [
        (product, problem)
        for i, product in enumerate(PRODUCTS)
        for j, problem in enumerate(PROBLEMS)
        if ((i + j) % 5 == 0) == (split == "held_out")
    ]


@functools.cache
def tickets(split: str) -> tuple[Ticket, ...]:
    """The tickets of a split, no message twice: 30 for each pair of "train", 15 for each of "held_out"."""
    of_split = pairs(split)
    rng = np.random.default_rng(SPLITS.index(split))
    found: dict[str, Ticket] = {}
    for product, problem in of_split:
        wanted = len(found) + PROMPTS_PER_PAIR[split]
        while len(found) < wanted:
            ticket = grammar.write_ticket(rng, product, problem)
            found.setdefault(ticket.message, ticket)
    return tuple(found.values())


def row(ticket: Ticket) -> dict[str, Any]:
    """A ticket as a prompt with its columns. Replies begin with a space: no token straddles the two."""
    return {
        "prompt": f"Customer: {ticket.message}\nReply:",
        "product": ticket.product,
        "problem": ticket.problem,
        "mood": ticket.mood,
    }


def prompts(split: str = "train") -> list[dict[str, Any]]:
    """The customer messages of a split: dicts of prompt, product, problem and mood."""
    return [row(ticket) for ticket in tickets(split)]


def demonstrations(split: str = "train", n: int = 10_000, seed: int = 0) -> list[dict[str, Any]]:
    """``n`` prompts of a split, drawn with replacement, with replies of mixed quality (`QUALITY_SHARES`).

    Returns:
        Dicts of prompt, response (with its leading space), product, problem, mood and quality.
    """
    rng = np.random.default_rng(seed)
    shares = np.array(list(QUALITY_SHARES.values()))
    drawn = rng.choice(list(QUALITY_SHARES), size=n, p=shares / shares.sum())
    rows = []
    for quality in map(str, drawn):
        ticket = grammar.choose(rng, tickets(split))
        response = " " + grammar.write_reply(rng, ticket, quality)
        rows.append({**row(ticket), "response": response, "quality": quality})
    return rows


class SupportReplyEnv(TextGenerationEnv):
    """Answer the customers of a small shop.

    ## Description
    A customer writes what is wrong with a product, in some mood. A good reply names the problem and the
    product, offers the shop's remedy for it, is polite, brief and complete. The language model that comes
    with the task learned from replies of mixed quality: rude, vague, about the wrong product, with the wrong
    remedy, too long, and some good ones.

    ## Action Space
    ``Discrete(1024)``: the next token of a byte-level BPE made for the task.

    ## Observation Space
    As `TextGenerationEnv`, with L = 48 + ``max_new_tokens``.

    ## Rewards
    The gold score of the reply, 0 to 1: see `text_envs.tasks.support_judge.SupportJudge`.

    ## Starting State
    A prompt of the split, drawn uniformly. `prompts` lists them, `demonstrations` answers them.

    ## Episode End
    At EOS, and after ``max_new_tokens`` tokens.

    ## Arguments
    * ``split="train"``: 7,200 prompts; or ``"held_out"``: 900, of other pairs of product and problem.
    * All of `TextGenerationEnv`; the tokenizer, prompts, judge and model of the task are the defaults.

    ## Version History
    * v0: first version.
    """

    def __init__(self, split: str = "train", **kwargs: Any):
        defaults = {
            "tokenizer": FOLDER,
            "prompts": prompts(split),
            "reward_model": judge,
            "max_prompt_tokens": MAX_PROMPT_TOKENS,
            "max_new_tokens": MAX_NEW_TOKENS,
            # Another tokenizer needs another model.
            "default_model": None if "tokenizer" in kwargs else FOLDER,
        }
        super().__init__(**{**defaults, **kwargs})


make_vec = SupportReplyEnv.make_vec
