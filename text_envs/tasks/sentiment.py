"""`text_envs/Sentiment-v0`: go on with a review, in good spirits."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reward_models import Completion
from reward_models.lexical import Sentiment
from text_envs.env import TextGenerationEnv
from text_envs.tasks import review_grammar as grammar
from text_envs.tasks.judging import Judge, Language, ended, ngrams, normal, ramp, split_sentences, word_count
from text_envs.tasks.sources import (
    File,
    choose,
    demonstrated,
    in_split,
    read_texts,
    texts_of,
    tokenizer_for,
    with_defaults,
)

TEXT = ("text", "review", "prompt")
OPENING_WORDS = 6
"""So many words of a user's review are the prompt, and the rest is how it went on."""
VOCAB_SIZE, VOCAB_SIZE_OF_FILE = 512, 2048
MAX_PROMPT_TOKENS, MAX_NEW_TOKENS = 24, 40
USUAL = 0.55
"""The share of known pairs of words in new reviews of rt_polarity: 0.57 in the mean, and 0.40 in shuffled ones."""

lexicon = Sentiment()


@dataclass(frozen=True)
class ReviewJudge(Judge):
    """How pleased a continuation sounds, and whether it is a continuation.

    Components:

    - positive: the sentiment of `reward_models.lexical.Sentiment`, 0 at -0.8, 1 at 0.8: two strong words.
    - on_topic: it speaks of aspects of what is reviewed, and of no others; 1 where the prompt does not tell the aspects.
    - concise: 3 to 20 words, nothing from 30 on.
    - ends_properly: the response ended by itself, on a full stop, exclamation or question mark.

    Guards: ``fluent``, how much of it is made of word sequences of the language, less what it repeats; ``varied``, the share
    of distinct words, 1 from two thirds on; ``new``, the share of its words and sequences of three that the prompt has not.
    So "great great great", the same praise again and the prompt itself score next to nothing.

    Attributes:
        language: what counts as fluent.
    """

    language: Language
    weights = {"positive": 0.70, "on_topic": 0.10, "concise": 0.10, "ends_properly": 0.10}  # noqa: RUF012

    def components(self, completion: Completion) -> dict[str, float]:
        """The four components and three guards, each 0 to 1. Looks at the column ``aspects``, where there is one."""
        text = completion.response
        words = word_count(text)
        return {
            "positive": ramp(lexicon.polarity(text), -0.8, 0.8),
            "on_topic": on_topic(text, completion.columns.get("aspects")),
            "concise": min(ramp(words, 30, 20), ramp(words, 1, 3)),
            "ends_properly": ended(completion),
            "fluent": self.language.fluency(text),
            "varied": varied(text),
            "new": new(text, completion.prompt),
        }


def on_topic(text: str, aspects: Sequence[str] | None) -> float:
    """1 where the text names one of the aspects, and none that belongs to something else."""
    if aspects is None:
        return 1.0
    named = {aspect for aspect in grammar.ALL_ASPECTS if re.search(rf"\b{aspect}\b", text.lower())}
    return float(bool(named) and named <= set(aspects))


def varied(text: str) -> float:
    """The share of the words that are different ones, 1 from two thirds on; 0 for an empty text."""
    words = words_of(text)
    return min(1.5 * len(set(words)) / len(words), 1.0) if words else 0.0


def new(text: str, prompt: str) -> float:
    """The share of the words that are not the prompt's, 1 from half on, times that of sequences of three."""
    words, given = words_of(text), set(words_of(prompt))
    if not words:
        return 0.0
    said, threes = (list(ngrams(split_sentences(normal(t)), 3)) for t in (text, prompt))
    new_words = sum(word not in given for word in words) / len(words)
    return min(2 * new_words, 1.0) * sum(three not in threes for three in said) / len(said)


def words_of(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def row(visit: grammar.Visit) -> dict[str, Any]:
    """An opening as a prompt. Continuations begin with a space: no token straddles the two."""
    return {"prompt": visit.opening, "aspects": list(grammar.aspects_of(visit.subject))}


@functools.cache
def visits(split: str) -> tuple[grammar.Visit, ...]:
    """The visits of a split; no opening is in both."""
    return tuple(visit for visit in grammar.visits() if in_split(visit.opening, split))


def prompts(split: str = "train", file: File | None = None) -> list[dict[str, Any]]:
    """The prompts of a split, of the grammar or of a user's file: dicts of prompt and aspects, or prompt and references.

    Of a file, reviews of more than `OPENING_WORDS` words count: these open it, and the reference is the rest.
    """
    if file is None:
        return [row(visit) for visit in visits(split)]
    openings: dict[str, list[str]] = {}
    for text in read_texts(file, TEXT):
        words = text.split()
        if len(words) > OPENING_WORDS:
            rest = " ".join(words[OPENING_WORDS:])
            openings.setdefault(" ".join(words[:OPENING_WORDS]), []).append(rest)
    return [
        {"prompt": opening, "references": rests}
        for opening, rests in openings.items()
        if in_split(opening, split)
    ]


def demonstrations(
    split: str = "train", n: int = 10_000, seed: int = 0, file: File | None = None
) -> list[dict[str, Any]]:
    """``n`` prompts of a split, drawn with replacement, with continuations of mixed sentiment; those of a file, with its own.

    Returns:
        Dicts of prompt, response (with its leading space), aspects and quality.
    """
    if file is not None:
        return demonstrated(prompts(split, file), n, seed)
    rng = np.random.default_rng(seed)
    shares = list(grammar.QUALITIES.values())
    rows = []
    for quality in map(str, rng.choice(list(grammar.QUALITIES), size=n, p=shares)):
        visit = choose(rng, visits(split))
        rows.append({**row(visit), "response": " " + grammar.write(rng, visit, quality), "quality": quality})
    return rows


@functools.cache
def judge() -> ReviewJudge:
    """The judge of the grammar's language."""
    return ReviewJudge(Language(grammar.language()))


def judge_of(file: File | None) -> ReviewJudge:
    """The judge of the grammar, or of the reviews of a file, by their pairs of words."""
    if file is None:
        return judge()
    return ReviewJudge(Language(texts_of(prompts("train", file)), orders=(2,), usual=USUAL))


@functools.cache
def tokenizer() -> Any:
    """A byte-level BPE that knows nearly each word of the grammar as one token."""
    return tokenizer_for(demonstrations(n=4000), VOCAB_SIZE)


class SentimentEnv(TextGenerationEnv):
    """Go on with a review, in good spirits.

    ## Description
    The prompt opens a review of a film, a book, a cafe and the like, without a verdict. A good continuation is pleased,
    speaks of what is reviewed, and ends. `demonstrations` are of mixed sentiment: pleased, torn, displeased, unmoved, off the
    topic, rambling.

    ## Action Space
    ``Discrete(V)``: the next token of a byte-level BPE trained in memory, V at most 512; with a file at most 2,048.

    ## Observation Space
    As `TextGenerationEnv`, with L = 24 + ``max_new_tokens``; with a file, or another tokenizer: as long as the prompts are.

    ## Rewards
    The gold score of the response, 0 to 1: see `ReviewJudge`. The optimum is 1.

    ## Starting State
    A prompt of the split, drawn uniformly. `prompts` lists them, `demonstrations` answers them.

    ## Episode End
    At EOS, and after ``max_new_tokens`` tokens.

    ## Arguments
    * ``split="train"``: some 2,000 prompts; or ``"held_out"``: some 500 others.
    * ``file=None``: reviews instead, as rt_polarity's, a ``.jsonl[.gz]`` with the field ``text`` or a ``.txt[.gz]`` with one
      a line: their first six words are the prompts. It is split by these, one in five held out.
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
        self.task.optimum = 1.0 if isinstance(self.task.reward_model, ReviewJudge) and file is None else None


make_vec = SentimentEnv.make_vec
