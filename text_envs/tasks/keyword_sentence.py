"""`text_envs/KeywordSentence-v0`: one good sentence with all of the keywords, CommonGen's problem (Lin et al. 2020)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from reward_models import Completion
from reward_models.completion import column_of
from reward_models.coverage import concept_coverage
from text_envs.env import TextGenerationEnv
from text_envs.tasks import keyword_grammar as grammar
from text_envs.tasks.judging import Judge, Language, ended, ramp, split_sentences, word_count
from text_envs.tasks.sources import (
    File,
    choose,
    demonstrated,
    in_split,
    read_answers,
    texts_of,
    tokenizer_for,
    with_defaults,
)

ASKED, ANSWERED = ("concepts", "keywords", "prompt"), ("target", "targets", "response", "reference")
VOCAB_SIZE, VOCAB_SIZE_OF_FILE = 640, 2048
MAX_PROMPT_TOKENS, MAX_NEW_TOKENS = 20, 32
USUAL = 0.85
"""The share of known pairs of words in new sentences of CommonGen: people's have 0.84 in the mean, shuffled ones 0.42."""


@dataclass(frozen=True)
class KeywordJudge(Judge):
    """Whether a response is one good sentence with all keywords.

    Components:

    - coverage: the share of the keywords that it has, inflected or not; squared, so that the last one counts most.
    - one_sentence: it is one, and not more.
    - concise: at most 14 words, nothing from 24 on; at least 4.
    - ends_properly: the response ended by itself, on a full stop, exclamation or question mark.

    The guard, ``fluent``, is how much of it is made of word sequences of the language, less what it repeats. So keywords
    strung together, the prompt and repetition score next to nothing.

    Attributes:
        language: what counts as fluent.
    """

    language: Language
    weights = {"coverage": 0.70, "one_sentence": 0.10, "concise": 0.10, "ends_properly": 0.10}  # noqa: RUF012

    def components(self, completion: Completion) -> dict[str, float]:
        """The four components and ``fluent``, each 0 to 1.

        Raises:
            RewardError: without the column ``keywords``, words with spaces between.
        """
        text, keywords = completion.response, column_of(completion, "keywords", "KeywordJudge")
        words = word_count(text)
        return {
            "coverage": concept_coverage(keywords, text) ** 2,
            "one_sentence": float(len(split_sentences(text.strip())) == 1),
            "concise": min(ramp(words, 24, 14), ramp(words, 1, 4)),
            "ends_properly": ended(completion),
            "fluent": self.language.fluency(text),
        }


def row(keywords: str, references: list[str] | None = None) -> dict[str, Any]:
    """Keywords, with spaces between, as a prompt. Responses begin with a space: no token straddles the two."""
    columns = {} if references is None else {"references": references}
    return {"prompt": f"Keywords: {keywords}\nSentence:", "keywords": keywords, **columns}


@functools.cache
def scenes(split: str) -> tuple[grammar.Scene, ...]:
    """The scenes of a split; no set of keywords is in both."""
    return tuple(scene for scene in grammar.all_scenes() if in_split(" ".join(scene.keywords), split))


def prompts(split: str = "train", file: File | None = None) -> list[dict[str, Any]]:
    """The prompts of a split, of the grammar or of a user's file: dicts of prompt, keywords and, of a file, references."""
    if file is None:
        return [row(" ".join(scene.keywords)) for scene in scenes(split)]
    answers = read_answers(file, ASKED, ANSWERED)
    return [
        row(keywords, references) for keywords, references in answers.items() if in_split(keywords, split)
    ]


def demonstrations(
    split: str = "train", n: int = 10_000, seed: int = 0, file: File | None = None
) -> list[dict[str, Any]]:
    """``n`` prompts of a split, drawn with replacement, with sentences of mixed quality; those of a file, with its own.

    Returns:
        Dicts of prompt, response (with its leading space), keywords and quality.
    """
    if file is not None:
        return demonstrated(prompts(split, file), n, seed)
    rng = np.random.default_rng(seed)
    shares = list(grammar.QUALITIES.values())
    rows = []
    for quality in map(str, rng.choice(list(grammar.QUALITIES), size=n, p=shares)):
        scene = choose(rng, scenes(split))
        response = " " + grammar.write(rng, scene, quality)
        rows.append({**row(" ".join(scene.keywords)), "response": response, "quality": quality})
    return rows


@functools.cache
def judge() -> KeywordJudge:
    """The judge of the grammar's language."""
    return KeywordJudge(Language(grammar.language()))


def judge_of(file: File | None) -> KeywordJudge:
    """The judge of the grammar, or of the sentences of a file, by their pairs of words."""
    if file is None:
        return judge()
    return KeywordJudge(Language(texts_of(prompts("train", file)), orders=(2,), usual=USUAL))


@functools.cache
def tokenizer() -> Any:
    """A byte-level BPE that knows nearly each word of the grammar as one token."""
    return tokenizer_for(demonstrations(n=4000), VOCAB_SIZE)


class KeywordSentenceEnv(TextGenerationEnv):
    """Write one good sentence with all of the given keywords.

    ## Description
    The problem of CommonGen (Lin et al. 2020), in the small: the prompt lists three or four words, such as a person, an act,
    a thing and a place, in alphabetical order. `demonstrations` are of mixed quality: a keyword is missing or replaced, the
    sentence rambles, there are two, or but a list of words.

    ## Action Space
    ``Discrete(V)``: the next token of a byte-level BPE trained in memory, V at most 640; with a file at most 2,048.

    ## Observation Space
    As `TextGenerationEnv`, with L = 20 + ``max_new_tokens``; with a file, or another tokenizer: as long as the prompts are.

    ## Rewards
    The gold score of the response, 0 to 1: see `KeywordJudge`. The optimum is 1.

    ## Starting State
    A prompt of the split, drawn uniformly. `prompts` lists them, `demonstrations` answers them.

    ## Episode End
    At EOS, and after ``max_new_tokens`` tokens.

    ## Arguments
    * ``split="train"``: some 3,800 prompts; or ``"held_out"``: some 1,000, of other sets of keywords.
    * ``file=None``: a ``.jsonl[.gz]`` of CommonGen's shape instead, ``{"concepts": ["dog", "run"], "target": "Dogs run."}``;
      also ``prompt`` and ``response``. It is split by its sets of keywords, one in five held out.
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
            lambda: judge_of(file),
            max_prompt_tokens=MAX_PROMPT_TOKENS,
            max_new_tokens=MAX_NEW_TOKENS,
        )
        super().__init__(**arguments)
        self.task.optimum = 1.0 if isinstance(self.task.reward_model, KeywordJudge) and file is None else None


make_vec = KeywordSentenceEnv.make_vec
