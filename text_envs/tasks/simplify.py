"""`text_envs/Simplify-v0`: say a long-winded sentence in plain words."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from reward_models import Completion
from reward_models.completion import column_of, references_of
from reward_models.lexical import rouge_l
from text_envs.env import TextGenerationEnv
from text_envs.tasks import plain_grammar as grammar
from text_envs.tasks.judging import Judge, ended, ramp, word_count
from text_envs.tasks.sources import (
    File,
    choose,
    demonstrated,
    in_split,
    read_answers,
    tokenizer_for,
    with_defaults,
)

ASKED = ("source", "document", "text", "prompt")
ANSWERED = ("references", "responses", "simple", "summary", "target", "response")
VOCAB_SIZE, VOCAB_SIZE_OF_FILE = 640, 2048
MAX_PROMPT_TOKENS, MAX_NEW_TOKENS = 40, 36


@dataclass(frozen=True)
class PlainJudge(Judge):
    """How near a response comes to the reference, in no more words than that needs.

    Components:

    - overlap: ROUGE-L F1 with the reference, the best of several; squared, so that the last words count most.
    - ends_properly: the response ended by itself, on a full stop, exclamation or question mark.

    The guard, ``shorter``, is 1 up to two words more than the longest reference, and 0 from the length of the prompt's text
    on. So the prompt itself scores nothing, nor does an empty response; padding and repetition cost in both.
    """

    weights = {"overlap": 0.90, "ends_properly": 0.10}  # noqa: RUF012

    def components(self, completion: Completion) -> dict[str, float]:
        """The two components and ``shorter``, each 0 to 1.

        Raises:
            RewardError: without the columns ``text`` and ``references``.
        """
        response = completion.response
        references = references_of(completion, "references", "PlainJudge")
        text = column_of(completion, "text", "PlainJudge")
        words, enough = word_count(response), max(map(word_count, references)) + 2
        most = max(word_count(text), enough + 1)
        return {
            "overlap": max(rouge_l(response, reference) for reference in references) ** 2,
            "ends_properly": ended(completion),
            "shorter": ramp(words, most, enough) * (words > 0),
        }


judge_of_all = PlainJudge()


def judge() -> PlainJudge:
    """The judge, of the grammar and of any file: it goes by the references alone."""
    return judge_of_all


def row(text: str, references: list[str]) -> dict[str, Any]:
    """A text as a prompt. Responses begin with a space: no token straddles the two."""
    return {"prompt": f"Long: {text}\nShort:", "text": text, "references": references}


@functools.cache
def asked(split: str) -> tuple[tuple[grammar.Fact, str], ...]:
    """The facts of a split, each in a long-winded sentence; no fact is in both."""
    rng = np.random.default_rng(0)
    facts = [fact for fact in grammar.facts() if in_split(grammar.plain(fact), split)]
    return tuple((fact, grammar.long_winded(rng, fact)) for fact in facts)


def prompts(split: str = "train", file: File | None = None) -> list[dict[str, Any]]:
    """The prompts of a split, of the grammar or of a user's file: dicts of prompt, text and references."""
    if file is None:
        return [row(text, [grammar.plain(fact)]) for fact, text in asked(split)]
    answers = read_answers(file, ASKED, ANSWERED)
    return [row(text, references) for text, references in answers.items() if in_split(text, split)]


def demonstrations(
    split: str = "train", n: int = 10_000, seed: int = 0, file: File | None = None
) -> list[dict[str, Any]]:
    """``n`` prompts of a split, drawn with replacement, with responses of mixed quality; those of a file, with its own.

    Returns:
        Dicts of prompt, response (with its leading space), text, references and quality.
    """
    if file is not None:
        return demonstrated(prompts(split, file), n, seed)
    rng = np.random.default_rng(seed)
    shares = list(grammar.QUALITIES.values())
    rows = []
    for quality in map(str, rng.choice(list(grammar.QUALITIES), size=n, p=shares)):
        fact, text = choose(rng, asked(split))
        response = " " + grammar.write(rng, fact, text, quality)
        rows.append({**row(text, [grammar.plain(fact)]), "response": response, "quality": quality})
    return rows


@functools.cache
def tokenizer() -> Any:
    """A byte-level BPE that knows nearly each word of the grammar as one token."""
    return tokenizer_for(demonstrations(n=4000), VOCAB_SIZE)


class SimplifyEnv(TextGenerationEnv):
    """Say a long-winded sentence in plain words.

    ## Description
    The prompt is one sentence with phrases that a short word could replace ("due to the fact that"), and others that add
    nothing ("it should be noted that"). A good response keeps the facts and is plain. `demonstrations` are of mixed quality:
    half simplified, copied, with a fact dropped or another, broken off.

    ## Action Space
    ``Discrete(V)``: the next token of a byte-level BPE trained in memory, V at most 640; with a file at most 2,048.

    ## Observation Space
    As `TextGenerationEnv`, with L = 40 + ``max_new_tokens``; with a file, or another tokenizer: as long as the prompts are.

    ## Rewards
    The gold score of the response, 0 to 1: see `PlainJudge`. The optimum is 1, the reference itself.

    ## Starting State
    A prompt of the split, drawn uniformly. `prompts` lists them, `demonstrations` answers them.

    ## Episode End
    At EOS, and after ``max_new_tokens`` tokens.

    ## Arguments
    * ``split="train"``: some 3,700 prompts; or ``"held_out"``: some 900, of other facts.
    * ``file=None``: a ``.jsonl[.gz]`` of texts and references instead, ``{"text": "...", "references": ["..."]}``; also
      ``prompt`` and ``response``, for summaries as for simpler sentences. It is split by text, one in five held out.
    * All of `TextGenerationEnv`. There is no default model: make one by `agents.sft.finetune` on `demonstrations`, with this
      environment's ``tokenizer``.

    ## Version History
    * v0: first version.
    """

    def __init__(self, split: str = "train", file: File | None = None, **kwargs: Any):
        arguments = with_defaults(
            kwargs,
            file,
            lambda: prompts(split, file),
            lambda: (
                tokenizer() if file is None else tokenizer_for(prompts("train", file), VOCAB_SIZE_OF_FILE)
            ),
            judge,
            max_prompt_tokens=MAX_PROMPT_TOKENS,
            max_new_tokens=MAX_NEW_TOKENS,
        )
        super().__init__(**arguments)
        self.task.optimum = 1.0 if isinstance(self.task.reward_model, PlainJudge) and file is None else None


make_vec = SimplifyEnv.make_vec
