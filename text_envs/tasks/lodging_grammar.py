"""The grammar behind `text_envs/DataToText-v0`: places to stay, as data and in words.

A place is a dict of slots: its name and some of `SLOTS`. `SAID` is the one table of what is said of each value; the judge
reads the same table.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from itertools import product

import numpy as np

from text_envs.tasks.sources import choose

Place = Mapping[str, str]

# fmt: off
NAMES = (
    "Amber", "Anchor", "Cedar", "Clover", "Falcon", "Heron", "Ivory", "Juniper", "Lantern", "Linden",
    "Maple", "Meadow", "Otter", "Pebble", "Raven", "Rosewood", "Saffron", "Swan", "Thistle", "Willow",
)
# fmt: on
SAID: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "kind": {"inn": ("inn",), "hostel": ("hostel",), "hotel": ("hotel",), "cabin": ("cabin",)},
    "price": {
        "low": ("cheap", "low-priced"),
        "medium": ("fairly priced", "mid-priced"),
        "high": ("costly", "high-priced"),
    },
    "area": {
        "harbour": ("by the harbour", "at the harbour"),
        "old town": ("in the old town",),
        "hills": ("in the hills", "up in the hills"),
        "station": ("near the station", "by the station"),
    },
    "meal": {
        "breakfast": ("It serves breakfast.", "Breakfast is served."),
        "dinner": ("It serves dinner.", "Dinner is served."),
    },
    "pets": {
        "yes": ("Pets are welcome.", "You may bring pets."),
        "no": ("Pets are not allowed.", "You may not bring pets."),
    },
}
SLOTS = tuple(SAID)
RAMBLES = (
    "We hope that this tells you what you want to know about the place.",
    "It is one of the places that people talk about from time to time.",
    "Of course there is much more that one could say about it.",
)

QUALITIES: Mapping[str, float] = {
    "good": 0.10,
    "one_missing": 0.20,
    "most_missing": 0.15,
    "two_wrong": 0.20,
    "one_invented": 0.12,
    "wrong_name": 0.15,
    "rambling": 0.08,
}
"""The share of each kind of text among the demonstrations."""


def meaning(place: Place) -> str:
    """The meaning representation: ``name[Amber], kind[inn], pets[no]``."""
    return ", ".join(f"{slot}[{value}]" for slot, value in place.items())


@functools.cache
def all_places() -> tuple[Place, ...]:
    """Each one with a name and two to five slots: some 17,000."""
    options = [(None, *values) for values in SAID.values()]
    return tuple(
        {"name": name} | {slot: value for slot, value in zip(SLOTS, values) if value}
        for name in NAMES
        for values in product(*options)
        if sum(value is not None for value in values) >= 2
    )


def write(rng: np.random.Generator, place: Place, quality: str) -> str:
    """A text about a place, in one of the `QUALITIES`."""
    text = describe(rng, spoilt(rng, place, quality))
    return f"{text} {choose(rng, RAMBLES)}" if quality == "rambling" else text


def spoilt(rng: np.random.Generator, place: Place, quality: str) -> dict[str, str]:
    """What is told of the place, right or wrong."""
    told = dict(place)
    slots = [slot for slot in rng.permutation(SLOTS).tolist() if slot in place]
    if quality == "one_missing":
        del told[slots[0]]
    elif quality == "most_missing":
        for slot in slots[1:]:
            del told[slot]
    elif quality == "two_wrong":
        for slot in slots[:2]:
            told[slot] = choose(rng, [value for value in SAID[slot] if value != place[slot]])
    elif quality == "one_invented":
        slot = choose(rng, [slot for slot in SLOTS if slot not in place] or slots)
        told[slot] = choose(rng, tuple(SAID[slot]))
    elif quality == "wrong_name":
        told["name"] = choose(rng, NAMES)
    return told


def describe(rng: np.random.Generator, place: Place) -> str:
    """The place in words: what it is and where, then meals and pets, in either order."""
    words = {slot: choose(rng, SAID[slot][value]) for slot, value in place.items() if slot != "name"}
    sentences = [words[slot] for slot in ("meal", "pets") if slot in words]
    if rng.random() < 0.3:
        sentences.reverse()
    first = opening(place["name"], words.get("price"), words.get("kind", "place"), words.get("area"))
    return " ".join([first, *sentences])


def opening(name: str, price: str | None, kind: str, area: str | None) -> str:
    noun = f"{price} {kind}" if price else kind
    article = "an" if noun[0] in "aeiou" else "a"
    return f"{name} is {article} {noun} {area}." if area else f"{name} is {article} {noun}."


def language() -> Iterator[str]:
    """Every sentence of the grammar, with one name: what counts as fluent."""

    def ways(slot: str) -> list[str]:
        return [way for said in SAID[slot].values() for way in said]

    prices, kinds, areas = [None, *ways("price")], ["place", *ways("kind")], [None, *ways("area")]
    yield from (opening("<name>", price, kind, area) for price, kind, area in product(prices, kinds, areas))
    yield from (*ways("meal"), *ways("pets"), *RAMBLES)


PATTERNS = {
    "name": {name: re.compile(rf"\b{name}\b", re.IGNORECASE) for name in NAMES},
    **{
        slot: {
            value: re.compile(
                rf"\b(?:{'|'.join(re.escape(way.rstrip('.')) for way in ways)})\b", re.IGNORECASE
            )
            for value, ways in values.items()
        }
        for slot, values in SAID.items()
    },
}


def told(text: str) -> set[tuple[str, str]]:
    """The slots that a text of the grammar's language tells, right or wrong: pairs of slot and value."""
    return {
        (slot, value)
        for slot, values in PATTERNS.items()
        for value, pattern in values.items()
        if pattern.search(text)
    }
