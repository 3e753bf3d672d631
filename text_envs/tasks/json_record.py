"""`text_envs/JSONRecord-v0`: write what a text says of somebody as a JSON object."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from reward_models import Completion
from text_envs.env import TextGenerationEnv
from text_envs.grammar import JSONSchema
from text_envs.tasks.sources import choose, in_split
from text_envs.trained_tokenizer import trained_tokenizer

# fmt: off
NAMES = ("Anna", "Boris", "Clara", "David", "Emma", "Felix", "Greta", "Hugo", "Ines", "Jonas", "Karla", "Leo",
         "Mona", "Nils", "Olga", "Paul")
CITIES = ("Athens", "Berlin", "Cairo", "Dublin", "Essen", "Florence", "Geneva", "Hanoi", "Lima", "Madrid", "Naples", "Oslo")
JOBS = ("baker", "carpenter", "doctor", "farmer", "gardener", "lawyer", "nurse", "painter", "pilot", "teacher")
# fmt: on
AGES = range(18, 80)

FIELDS: Mapping[str, type] = {"name": str, "age": int, "city": str, "job": str}
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        name: {"type": "string", "pattern": "^[A-Za-z]{1,12}$"}
        if kind is str
        else {"type": "integer", "minimum": 0, "maximum": 120}
        for name, kind in FIELDS.items()
    },
    "required": list(FIELDS),
    "additionalProperties": False,
}
WEIGHTS = {"parses": 0.1, "valid": 0.2, "right": 0.7}
"""What each component counts for in the score."""
QUALITY_SHARES = {"good": 0.4, "wrong_value": 0.25, "missing_field": 0.1, "age_in_words": 0.1, "broken": 0.15}

PROMPTS = {"train": 4000, "held_out": 1000}
VOCAB_SIZE = 480
MAX_PROMPT_TOKENS = 40
MAX_NEW_TOKENS = 48


@dataclass(frozen=True)
class Person:
    """What a text tells, and a record holds."""

    name: str
    age: int
    city: str
    job: str

    def fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in FIELDS}


# -- the judge


def components(completion: Completion) -> dict[str, float]:
    """parses: the response is JSON; valid: it is so against `SCHEMA`; right: the share of fields with their value."""
    try:
        record = json.loads(completion.response, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return dict.fromkeys(WEIGHTS, 0.0)
    found = record if isinstance(record, dict) else {}
    right = sum(same(found.get(name), completion.columns[name]) for name in FIELDS) / len(FIELDS)
    return {"parses": 1.0, "valid": float(is_valid(record)), "right": right}


def judge(completions: Sequence[Completion]) -> list[float]:
    """The weighted sum of the `components`, 0 to 1. The prompt's columns name, age, city and job say what is right."""
    return [
        sum(WEIGHTS[name] * value for name, value in components(completion).items())
        for completion in completions
    ]


def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members; raises ValueError for a name that comes twice, as guessing again would."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name comes twice")
    return members


def same(value: Any, wanted: Any) -> bool:
    """Equal, and of the same type: 34, "34" and 34.0 are three things."""
    return type(value) is type(wanted) and value == wanted


def is_valid(record: Any) -> bool:
    """Whether a value is valid against `SCHEMA`."""
    if not isinstance(record, dict) or set(record) != set(FIELDS):
        return False
    words = all(
        value.isascii() and value.isalpha() and len(value) <= 12
        for value in (record[name] for name in FIELDS if FIELDS[name] is str)
        if isinstance(value, str)
    )
    kinds = all(type(record[name]) is kind for name, kind in FIELDS.items())
    return kinds and words and 0 <= record["age"] <= 120


# -- prompts and demonstrations

SENTENCES = (
    "{name} is a {job} in {city}, {age} years old.",
    "{name}, {age}, works as a {job} in {city}.",
    "In {city} lives {name}, a {job} of {age} years.",
    "At {age}, {name} is a {job} and lives in {city}.",
    "The {job} {name} from {city} is {age}.",
)


def row(person: Person, sentence: str) -> dict[str, Any]:
    """A person as a prompt. It ends in a line break, so that no token straddles it and the response."""
    return {"prompt": sentence.format(**person.fields()) + "\nJSON:\n", **person.fields()}


@functools.cache
def people(split: str) -> tuple[tuple[Person, str], ...]:
    """People of a split, and the sentences that tell of them. No name and city are together in both splits."""
    pairs = [pair for pair in product(NAMES, CITIES) if in_split(" ".join(pair), split)]
    rng, found = np.random.default_rng(0), dict[str, tuple[Person, str]]()
    while len(found) < PROMPTS[split]:
        name, city = choose(rng, pairs)
        person, sentence = Person(name, choose(rng, AGES), city, choose(rng, JOBS)), choose(rng, SENTENCES)
        found.setdefault(row(person, sentence)["prompt"], (person, sentence))
    return tuple(found.values())


def prompts(split: str = "train") -> list[dict[str, Any]]:
    """The prompts of a split: dicts of prompt, name, age, city and job."""
    return [row(person, sentence) for person, sentence in people(split)]


def demonstrations(split: str = "train", n: int = 10_000, seed: int = 0) -> list[dict[str, Any]]:
    """``n`` prompts of a split, drawn with replacement, with records of mixed quality (`QUALITY_SHARES`).

    Returns:
        Dicts of prompt, response, name, age, city, job and quality.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for quality in map(str, rng.choice(list(QUALITY_SHARES), size=n, p=list(QUALITY_SHARES.values()))):
        person, sentence = choose(rng, people(split))
        response = write(rng, person, quality)
        rows.append({**row(person, sentence), "response": response, "quality": quality})
    return rows


def write(rng: np.random.Generator, person: Person, quality: str) -> str:
    """The record of a person, in one of the `QUALITY_SHARES`."""
    record = person.fields()
    spoilt = str(rng.choice(list(FIELDS)))
    if quality == "wrong_value":
        others = {"name": NAMES, "age": AGES, "city": CITIES, "job": JOBS}[spoilt]
        record[spoilt] = choose(rng, [value for value in others if value != record[spoilt]])
    elif quality == "missing_field":
        del record[spoilt]
    elif quality == "age_in_words":
        record["age"] = f"{person.age} years"
    text = json.dumps(record)
    if quality == "broken":
        flaws = (text[:-1], text.replace('"', "'"), text.replace(", ", " "), text.replace(": ", " ", 1))
        return choose(rng, flaws)
    return text


# -- the environment


@functools.cache
def tokenizer() -> Any:
    """A byte-level BPE that knows nearly each word of the task as one token."""
    return trained_tokenizer((row["prompt"] + row["response"] for row in demonstrations(n=4000)), VOCAB_SIZE)


class JSONRecordEnv(TextGenerationEnv):
    """Write what a sentence says of somebody as a JSON object.

    ## Description
    The prompt is a sentence, such as ``Anna, 34, works as a baker in Oslo.``, the response
    ``{"name": "Anna", "age": 34, "city": "Oslo", "job": "baker"}``. `demonstrations` are of mixed quality: values are
    wrong, fields missing, the age is no number, brackets and commas are left out. With ``masked`` only tokens are legal
    that can still become valid JSON: what is left to learn is what is true.

    ## Action Space
    ``Discrete(V)``: the next token of a byte-level BPE trained in memory, V at most 480.

    ## Observation Space
    As `TextGenerationEnv`, with L = 40 + ``max_new_tokens``.

    ## Rewards
    0.1 if the response is JSON, plus 0.2 if it is valid against `SCHEMA` (just these four fields, age an integer of 0 to
    120), plus 0.7 times the share of fields with the right value. The optimum is 1.

    ## Starting State
    A prompt of the split, drawn uniformly. `prompts` lists them, `demonstrations` answers them.

    ## Episode End
    At EOS, and after ``max_new_tokens`` tokens.

    ## Arguments
    * ``split="train"``: 4,000 prompts; or ``"held_out"``: 1,000, in which other names and cities come together.
    * ``masked=False``: whether tokens are masked by `SCHEMA`, as by `text_envs.grammar.JSONSchema`; needs the extra
      ``[grammar]``.
    * All of `TextGenerationEnv`. There is no default model: make one by `agents.sft.finetune` on `demonstrations`, with this
      environment's ``tokenizer``.

    ## Version History
    * v0: first version.
    """

    def __init__(self, split: str = "train", masked: bool = False, **kwargs: Any):
        if masked and "allowed_tokens" in kwargs:
            raise ValueError(
                "masked=True and allowed_tokens are both given: there is one mask. Leave one of them out."
            )
        defaults: dict[str, Any] = {
            "tokenizer": kwargs["tokenizer"] if "tokenizer" in kwargs else tokenizer(),
            "prompts": kwargs["prompts"] if "prompts" in kwargs else prompts(split),
            "reward_model": judge,
            "max_prompt_tokens": None if "tokenizer" in kwargs else MAX_PROMPT_TOKENS,
            "max_new_tokens": MAX_NEW_TOKENS,
            "allowed_tokens": JSONSchema(SCHEMA) if masked else None,
        }
        super().__init__(**{**defaults, **kwargs})
        if "reward_model" not in kwargs:
            self.task.optimum = 1.0


make_vec = JSONRecordEnv.make_vec
