"""`text_envs/DataToText-v0`: put data on a place to stay into words, E2E's problem (Novikova et al. 2017)."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from reward_models import Completion
from reward_models.completion import column_of
from reward_models.coverage import invented, slot_coverage, slots, values_of
from text_envs.env import TextGenerationEnv
from text_envs.tasks import lodging_grammar as grammar
from text_envs.tasks.judging import Judge, Language, ended, ramp, word_count
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

ASKED, ANSWERED = ("meaning_representation", "mr", "prompt"), ("human_reference", "ref", "target", "response")
PROMPTS = {"train": 4000, "held_out": 1000}
VOCAB_SIZE, VOCAB_SIZE_OF_FILE = 640, 2048
MAX_PROMPT_TOKENS, MAX_NEW_TOKENS = 40, 40
USUAL = 0.95
"""The share of known pairs of words in new texts of E2E: people's have 0.96 in the mean, shuffled ones 0.48."""

Facts = Callable[[str, str], tuple[int, int]]


@dataclass(frozen=True)
class SlotJudge(Judge):
    """Whether a response says all of the data and nothing else.

    Components:

    - coverage: the share of the slots that it says; to the third, so that the last one counts most.
    - faithful: the share of what it says that the data say too; to the third; 0 where it says nothing.
    - concise: at most 5 words a slot, nothing from 9 on.
    - ends_properly: the response ended by itself, on a full stop, exclamation or question mark.

    The guard, ``fluent``, is how much of it is made of word sequences of the language, less what it repeats. So the data
    themselves, words strung together and repetition score next to nothing.

    Attributes:
        language: what counts as fluent.
        facts: (meaning representation, text) -> how many slots the text says right, and how many it makes up.
    """

    language: Language
    facts: Facts
    weights = {"coverage": 0.40, "faithful": 0.40, "concise": 0.15, "ends_properly": 0.05}  # noqa: RUF012

    def components(self, completion: Completion) -> dict[str, float]:
        """The four components and ``fluent``, each 0 to 1.

        Raises:
            RewardError: without the column ``meaning``, the meaning representation.
        """
        text, meaning = completion.response, column_of(completion, "meaning", "SlotJudge")
        right, wrong = self.facts(meaning, text)
        total = len(slots(meaning))
        return {
            "coverage": (right / total) ** 3,
            "faithful": (right / max(right + wrong, 1)) ** 3,
            "concise": ramp(word_count(text), 9 * total, 5 * total),
            "ends_properly": ended(completion),
            "fluent": self.language.fluency(ANY_NAME.sub("<name>", text)),
        }


ANY_NAME = re.compile(rf"\b(?:{'|'.join(grammar.NAMES)})\b")


def facts(meaning: str, text: str) -> tuple[int, int]:
    """What a text says of a place of the grammar: slots right, statements wrong or made up."""
    given, told = set(slots(meaning).items()), grammar.told(text)
    return len(given & told), len(told - given)


@dataclass(frozen=True)
class FactsByRule:
    """As `facts`, of E2E's data: by the rules of `reward_models.coverage`, roughly.

    Attributes:
        values: those that each slot has in the file.
    """

    values: Mapping[str, set[str]]

    def __call__(self, meaning: str, text: str) -> tuple[int, int]:
        right = round(slot_coverage(meaning, text) * len(slots(meaning)))
        return right, len(invented(meaning, text, self.values))


def row(meaning: str, references: list[str] | None = None) -> dict[str, Any]:
    """A meaning representation as a prompt. Responses begin with a space: no token straddles the two."""
    columns = {} if references is None else {"references": references}
    return {"prompt": f"{meaning}\nText:", "meaning": meaning, **columns}


@functools.cache
def places(split: str) -> tuple[grammar.Place, ...]:
    """The places of a split; no meaning representation is in both."""
    found = [place for place in grammar.all_places() if in_split(grammar.meaning(place), split)]
    drawn = np.random.default_rng(0).permutation(len(found))[: PROMPTS[split]]
    return tuple(found[i] for i in drawn)


def prompts(split: str = "train", file: File | None = None) -> list[dict[str, Any]]:
    """The prompts of a split, of the grammar or of a user's file: dicts of prompt, meaning and, of a file, references.

    Raises:
        PromptError: a row of the file that tells no slot, or lacks a field.
    """
    if file is None:
        return [row(grammar.meaning(place)) for place in places(split)]
    return [
        row(meaning, references)
        for meaning, references in read_answers(
            file, ASKED, ANSWERED, slots, "slots, as in name[Amber], kind[inn]"
        ).items()
        if in_split(meaning, split)
    ]


def demonstrations(
    split: str = "train", n: int = 10_000, seed: int = 0, file: File | None = None
) -> list[dict[str, Any]]:
    """``n`` prompts of a split, drawn with replacement, with texts of mixed quality; those of a file, with its own.

    Returns:
        Dicts of prompt, response (with its leading space), meaning and quality.
    """
    if file is not None:
        return demonstrated(prompts(split, file), n, seed)
    rng = np.random.default_rng(seed)
    shares = list(grammar.QUALITIES.values())
    rows = []
    for quality in map(str, rng.choice(list(grammar.QUALITIES), size=n, p=shares)):
        place = choose(rng, places(split))
        response = " " + grammar.write(rng, place, quality)
        rows.append({**row(grammar.meaning(place)), "response": response, "quality": quality})
    return rows


@functools.cache
def judge() -> SlotJudge:
    """The judge of the grammar's language."""
    return SlotJudge(Language(grammar.language()), facts)


def judge_of(file: File | None) -> SlotJudge:
    """The judge of the grammar, or of the texts of a file, by their pairs of words."""
    if file is None:
        return judge()
    rows = prompts("train", file)
    values = values_of(row["meaning"] for row in rows)
    return SlotJudge(Language(texts_of(rows), orders=(2,), usual=USUAL), FactsByRule(values))


@functools.cache
def tokenizer() -> Any:
    """A byte-level BPE that knows nearly each word of the grammar as one token."""
    return tokenizer_for(demonstrations(n=4000), VOCAB_SIZE)


class DataToTextEnv(TextGenerationEnv):
    """Say in words what data say on a place to stay: every slot, and nothing that is not there.

    ## Description
    The problem of E2E (Novikova et al. 2017), in the small: the prompt is a meaning representation, a name and two to five
    slots, such as ``name[Otter], kind[inn], pets[no]``. `demonstrations` are of mixed quality: slots are missing, wrong or
    made up, the name is another, the text rambles.

    ## Action Space
    ``Discrete(V)``: the next token of a byte-level BPE trained in memory, V at most 640; with a file at most 2,048.

    ## Observation Space
    As `TextGenerationEnv`, with L = 40 + ``max_new_tokens``; with a file, or another tokenizer: as long as the prompts are.

    ## Rewards
    The gold score of the response, 0 to 1: see `SlotJudge`. The optimum is 1.

    ## Starting State
    A prompt of the split, drawn uniformly. `prompts` lists them, `demonstrations` answers them.

    ## Episode End
    At EOS, and after ``max_new_tokens`` tokens.

    ## Arguments
    * ``split="train"``: 4,000 prompts; or ``"held_out"``: 1,000, of other meaning representations.
    * ``file=None``: a ``.jsonl[.gz]`` of E2E's shape instead, ``{"mr": "name[Aromi], food[French]", "ref": "Aromi ..."}``;
      also ``prompt`` and ``response``. It is split by meaning representation, one in five held out. What is told of its
      slots is found by rules, roughly.
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
        self.task.optimum = 1.0 if isinstance(self.task.reward_model, SlotJudge) and file is None else None


make_vec = DataToTextEnv.make_vec
