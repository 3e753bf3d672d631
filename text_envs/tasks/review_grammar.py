"""The grammar behind `text_envs/Sentiment-v0`: how reviews open, and how they go on, pleased or not.

A `Visit` opens a review: what was reviewed, when, with whom. A continuation is written for a visit, in one of the
`QUALITIES`: a few sentences on aspects of what was reviewed, each with a verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from text_envs.tasks.sources import choose

# What is reviewed: the words that open, with room for a first impression, and its aspects.
SUBJECTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "film": ("saw the {} film", ("story", "acting", "ending", "music")),
    "book": ("read the {} book", ("story", "style", "ending", "cover")),
    "cafe": ("went to the {} cafe", ("coffee", "cake", "staff", "music")),
    "hotel": ("stayed at the {} hotel", ("room", "bed", "staff", "view")),
    "concert": ("heard the {} concert", ("singer", "band", "sound", "hall")),
    "game": ("played the {} game", ("story", "music", "sound", "ending")),
}
KINDS = ("new", "second", "small", "latest", "local", "next")
TIMES = (
    *("Last night", "On Monday", "This week", "In May", "At last", "Yesterday", "Last year", "In spring"),
    *("On Sunday", "In June", "This month", "Last week", "This year", "On Friday"),
)
COMPANIES = ("", " with my sister", " with a friend", " on my own", " with my class")

POSITIVE = ("wonderful", "superb", "lovely", "brilliant", "charming", "delightful", "great", "good")
NEGATIVE = ("dreadful", "awful", "poor", "horrible", "dull", "bad", "weak", "tedious")
NEUTRAL = ("as usual", "nothing new", "much the same", "what it was")
PRAISES = ("I loved it.", "It was a joy.", "I enjoyed it a lot.")
COMPLAINTS = ("I hated it.", "It was a waste of time.", "I regret it.")
SHRUGS = ("That is all.", "I may go back some day.", "There is not much to say.")


@dataclass(frozen=True, slots=True)
class Visit:
    subject: str
    kind: str
    time: str
    company: str

    @property
    def opening(self) -> str:
        did = SUBJECTS[self.subject][0].format(self.kind)
        return f"{self.time}{',' if self.time == 'Yesterday' else ''} I {did}{self.company}."


def visits() -> Iterator[Visit]:
    """All that the grammar knows: 2,520."""
    return (Visit(*parts) for parts in product(SUBJECTS, KINDS, TIMES, COMPANIES))


QUALITIES: Mapping[str, float] = {
    "pleased": 0.14,
    "torn": 0.26,
    "displeased": 0.24,
    "unmoved": 0.16,
    "off_topic": 0.10,
    "rambling": 0.10,
}
"""The share of each kind of continuation among the demonstrations."""


def write(rng: np.random.Generator, visit: Visit, quality: str) -> str:
    """A continuation of a visit's opening, in one of the `QUALITIES`."""
    subject = choose(rng, tuple(SUBJECTS)) if quality == "off_topic" else visit.subject
    aspects = [str(aspect) for aspect in rng.permutation(SUBJECTS[subject][1])]
    if quality == "torn":
        first, second = (POSITIVE, NEGATIVE) if rng.random() < 0.5 else (NEGATIVE, POSITIVE)
        return contrast(aspects[0], choose(rng, first), aspects[1], choose(rng, second))
    mood = {"pleased": 0, "displeased": 1, "unmoved": 2}.get(quality, int(rng.integers(3)))
    verdicts, closings = ((POSITIVE, PRAISES), (NEGATIVE, COMPLAINTS), (NEUTRAL, SHRUGS))[mood]
    count = 4 if quality == "rambling" else int(rng.integers(1, 3))
    sentences = [verdict(aspect, choose(rng, verdicts)) for aspect in aspects[:count]]
    if quality == "rambling" or rng.random() < 0.5:
        sentences.append(choose(rng, closings))
    return " ".join(sentences + [choose(rng, SHRUGS)] * (quality == "rambling"))


def verdict(aspect: str, word: str) -> str:
    return f"The {aspect} was {word}."


def contrast(aspect: str, word: str, other: str, other_word: str) -> str:
    return f"The {aspect} was {word}, but the {other} was {other_word}."


def aspects_of(subject: str) -> tuple[str, ...]:
    return SUBJECTS[subject][1]


ALL_ASPECTS = tuple(dict.fromkeys(aspect for _, aspects in SUBJECTS.values() for aspect in aspects))


def language() -> Iterator[str]:
    """Sentences that hold every sequence of three words of the grammar's: what counts as fluent."""
    words = (*POSITIVE, *NEGATIVE, *NEUTRAL)
    for aspect, word in product(ALL_ASPECTS, words):
        yield verdict(aspect, word)
        yield contrast(aspect, word, aspect, word)
    yield from (*PRAISES, *COMPLAINTS, *SHRUGS)
