"""The grammar behind `text_envs/KeywordSentence-v0`: everyday scenes, their keywords, and sentences on them.

A `Scene` is who does what to which thing where. Its keywords are all four, or all but who or but where. A sentence is written
for keywords, in one of the `QUALITIES`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from text_envs.tasks.sources import choose

# fmt: off
ACTORS = ("man", "woman", "boy", "girl", "farmer", "teacher", "nurse", "driver", "sailor", "student")
PLACES = {
    "park": "in the park", "garden": "in the garden", "kitchen": "in the kitchen", "market": "at the market",
    "beach": "on the beach", "river": "by the river", "school": "at school", "station": "at the station",
    "street": "in the street", "yard": "in the yard",
}
VERBS = {  # the word: how it ends after "she", and what it is done to
    "throw": ("throws", ("ball", "stone", "hat", "stick")),
    "read": ("reads", ("book", "letter", "map", "sign")),
    "paint": ("paints", ("wall", "fence", "boat", "chair")),
    "wash": ("washes", ("plate", "dog", "cup", "shirt")),
    "carry": ("carries", ("box", "bag", "ladder", "lamp")),
    "ride": ("rides", ("bike", "horse", "pony", "camel")),
    "cut": ("cuts", ("bread", "rope", "cake", "hedge")),
    "watch": ("watches", ("bird", "game", "train", "cat")),
    "build": ("builds", ("shed", "swing", "tent", "bench")),
    "buy": ("buys", ("coat", "ticket", "fish", "plant")),
}
# fmt: on
ARTICLES = ("A ", "The ")
MANNERS = ("", "young ", "happy ", "tired ")
ENDINGS = ("", " today", " again", " with great care")
RAMBLES = (
    "and then goes home to have a rest",
    "and thinks of all that is still to be done",
    "and talks about it for a very long time",
    "while the rain falls and the wind blows",
)
SECONDS = ("It is a nice day.", "Nobody is there.", "It takes a long time.", "That is all.")


@dataclass(frozen=True, slots=True)
class Scene:
    """Who does what to which thing where, by the words of the grammar; None for what is left open."""

    verb: str
    thing: str
    actor: str | None = None
    place: str | None = None

    @property
    def keywords(self) -> tuple[str, ...]:
        """In alphabetical order, so that their order tells nothing."""
        return tuple(sorted(word for word in (self.actor, self.verb, self.thing, self.place) if word))


@functools.cache
def all_scenes() -> tuple[Scene, ...]:
    """Each one that the grammar knows: 40 pairs of verb and thing, with who, with where, and with both."""
    return tuple(_scenes())


def _scenes() -> Iterator[Scene]:
    for verb, (_, things) in VERBS.items():
        for thing in things:
            yield from (Scene(verb, thing, actor=actor) for actor in ACTORS)
            yield from (Scene(verb, thing, place=place) for place in PLACES)
            yield from (Scene(verb, thing, actor, place) for actor in ACTORS for place in PLACES)


QUALITIES: Mapping[str, float] = {
    "good": 0.10,
    "one_missing": 0.25,
    "one_wrong": 0.20,
    "other_scene": 0.15,
    "rambling": 0.12,
    "two_sentences": 0.10,
    "list": 0.08,
}
"""The share of each kind of sentence among the demonstrations."""


def write(rng: np.random.Generator, scene: Scene, quality: str) -> str:
    """A response to the keywords of a scene, in one of the `QUALITIES`."""
    if quality == "list":
        return ", ".join(rng.permutation(scene.keywords)) + "."
    if quality == "other_scene":
        scene = choose(rng, all_scenes())
    if quality in ("one_missing", "one_wrong"):
        scene = spoilt(rng, scene, missing=quality == "one_missing")
    rambles = f" {choose(rng, RAMBLES)} {choose(rng, RAMBLES)}"
    text = sentence(
        scene,
        article=choose(rng, ARTICLES),
        manner=choose(rng, MANNERS),
        thing_article=choose(rng, ARTICLES).lower(),
        ending=rambles if quality == "rambling" else choose(rng, ENDINGS),
        place_first=bool(rng.random() < 0.2),
    )
    return f"{text} {choose(rng, SECONDS)}" if quality == "two_sentences" else text


def spoilt(rng: np.random.Generator, scene: Scene, missing: bool) -> Scene:
    """The scene with one part left out or, what cannot be, replaced by another."""
    part = choose(rng, [part for part in ("actor", "thing", "place") if getattr(scene, part)])
    if missing and part != "thing":
        return replace(scene, actor=None) if part == "actor" else replace(scene, place=None)
    others = {"actor": ACTORS, "thing": VERBS[scene.verb][1], "place": tuple(PLACES)}[part]
    return replace(scene, **{part: choose(rng, [word for word in others if word != getattr(scene, part)])})


def sentence(
    scene: Scene, article: str, manner: str, thing_article: str, ending: str, place_first: bool
) -> str:
    """One sentence on the scene; somebody does it where nobody is named."""
    who = f"{article}{manner}{scene.actor}" if scene.actor else "Someone"
    place = PLACES[scene.place] if scene.place else ""
    first = f"{place[0].upper()}{place[1:]}, {who[0].lower()}{who[1:]}" if place and place_first else who
    last = f" {place}" if place and not place_first else ""
    return f"{first} {VERBS[scene.verb][0]} {thing_article}{scene.thing}{last}{ending}."


def language() -> Iterator[str]:
    """Sentences that hold every sequence of three words that `write` can give in a sentence: what counts as fluent."""
    endings = (*ENDINGS, *(f" {one} {other}" for one in RAMBLES for other in RAMBLES))
    both = (False, True)
    for verb, (_, things) in VERBS.items():
        for article, manner, actor, the, first in product(ARTICLES, MANNERS, ACTORS, ("a ", "the "), both):
            yield sentence(Scene(verb, things[0], actor, "park"), article, manner, the, "", first)
        for thing, the in product(things, ("a ", "the ")):
            for place, first in product((None, *PLACES), both):
                yield sentence(Scene(verb, thing, None, place), "", "", the, "", first)
            for ending in endings:
                yield sentence(Scene(verb, thing, None, "park"), "", "", the, ending, place_first=True)
    for place in PLACES:
        for ending in endings:
            yield sentence(Scene("read", "book", "man", place), "A ", "", "a ", ending, place_first=False)
        for article in ARTICLES:
            yield sentence(Scene("read", "book", "man", place), article, "", "a ", "", place_first=True)
    yield from SECONDS
