"""The grammar behind `text_envs/Simplify-v0`: long-winded sentences, and the same in plain words.

A `Fact` is who did what with what and when or where. `long_winded` says it with the first wording of each part and words that
add nothing; `plain` with the second. A response is written for a fact, in one of the `QUALITIES`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from text_envs.tasks.sources import choose

# fmt: off
WHO = ("baker", "driver", "farmer", "miller", "painter", "sailor", "tailor", "teacher")
# fmt: on
WILL = (
    ("made the decision to", "decided to"),
    ("made an attempt to", "tried to"),
    ("was in a position to", "could"),
    ("was under an obligation to", "had to"),
    ("gave the promise to", "promised to"),
    ("came to an agreement to", "agreed to"),
)
DID = (
    *(
        "sell the cart",
        "sell the house",
        "paint the door",
        "paint the boat",
        "mend the roof",
        "mend the fence",
    ),
    *("clean the shop", "clean the yard", "close the gate", "close the shop", "build a wall", "build a boat"),
)
WHEN = (
    ("due to the fact that it was late", "because it was late"),
    ("in view of the fact that it rained", "because it rained"),
    ("in spite of the fact that it snowed", "although it snowed"),
    ("prior to the start of winter", "before winter"),
    ("subsequent to the end of the war", "after the war"),
    ("at that point in time", "then"),
    ("on a daily basis", "daily"),
    ("in close proximity to the river", "near the river"),
)
OPENERS = (
    "It should be noted that ",
    "As a matter of fact, ",
    "It goes without saying that ",
    "Needless to say, ",
    "",
)
ASIDES = (
    "",
    ", who is a person of many years,",
    ", who lives in our village,",
    ", of whom we have all heard,",
)

QUALITIES: Mapping[str, float] = {
    "good": 0.10,
    "half": 0.26,
    "copy": 0.16,
    "one_dropped": 0.18,
    "one_wrong": 0.20,
    "broken_off": 0.10,
}
"""The share of each kind of response among the demonstrations."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Who did what: indices into the tables; ``when`` is None where it is dropped."""

    who: int
    will: int
    did: int
    when: int | None


@functools.cache
def facts() -> tuple[Fact, ...]:
    """All that the grammar knows: 4,608."""
    return tuple(
        Fact(who, will, did, when)
        for who in range(len(WHO))
        for will in range(len(WILL))
        for did in range(len(DID))
        for when in range(len(WHEN))
    )


def say(fact: Fact, wordings: tuple[int, int], opener: str = "", aside: str = "") -> str:
    """A fact as a sentence; ``wordings`` of will and when: 0 long-winded, 1 plain."""
    will = WILL[fact.will][wordings[0]]
    when = "" if fact.when is None else f" {WHEN[fact.when][wordings[1]]}"
    text = f"{opener}the {WHO[fact.who]}{aside} {will} {DID[fact.did]}{when}."
    return text[0].upper() + text[1:]


def plain(fact: Fact) -> str:
    return say(fact, (1, 1))


def long_winded(rng: np.random.Generator, fact: Fact) -> str:
    return say(fact, (0, 0), choose(rng, OPENERS), choose(rng, ASIDES))


def write(rng: np.random.Generator, fact: Fact, asked: str, quality: str) -> str:
    """A response to the long-winded sentence ``asked``, in one of the `QUALITIES`."""
    if quality == "copy":
        return asked
    if quality == "half":
        opener, aside = choose(rng, OPENERS), choose(rng, ASIDES)
        return say(fact, choose(rng, ((0, 0), (0, 1), (1, 0))), opener, aside if rng.random() < 0.5 else "")
    if quality == "one_dropped":
        return plain(replace(fact, when=None))
    if quality == "one_wrong":
        other = choose(rng, facts())
        part = choose(rng, ("who", "will", "did", "when"))
        return plain(replace(fact, **{part: getattr(other, part)}))
    if quality == "broken_off":
        words = say(fact, (1, 0)).split()
        return " ".join(words[: int(rng.integers(3, len(words)))])
    return plain(fact)
