"""How much of what a prompt asks for is in a response: slots of a meaning representation, concepts of a list; and which slots
it makes up. By rules, so roughly: the demonstrations themselves do not reach 1, and say what can be reached.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

SLOT = re.compile(r"([\w ]+)\[([^\]]*)\]")
# What a slot is known by where its value is seldom said in the words of the prompt.
WORDS = {
    "priceRange": {
        "cheap": "cheap|low|inexpensive|affordable",
        "moderate": "moderate|average|reasonabl|mid",
        "high": "high|expensive|pricey",
        "less than £20": "less than|under|below|cheap|low|£20",
        "more than £30": "more than|over|above|expensive|high|£30",
        "£20-25": "20|moderate|average|mid",
    },
    "customer rating": {
        "low": "low|poor|bad|not well|1 out of 5|one",
        "average": "average|3 out of 5|three|decent|moderate",
        "high": "high|excellent|great|well|5 out of 5|five",
        "1 out of 5": "1|one|low|poor",
        "3 out of 5": "3|three|average",
        "5 out of 5": "5|five|high|excellent",
    },
    "area": {"city centre": "city|cent(?:re|er)|downtown", "riverside": "river"},
    "food": {"Fast food": "fast[- ]food", "English": "english|british"},
}
FAMILY = r"famil|kid|child|adult"
NOT = r"\b(?:no|not|non|isn'?t|aren'?t|doesn'?t|don'?t|never|adults?)\b|non-"

# Slots whose values are names, so that a response that has another one has made it up; and words that are said of any place.
LITERAL = ("name", "near", "food", "area", "eatType")
COMMON = ("restaurant",)
# What tells that a slot is mentioned, whatever its value.
TELLTALES = {
    "familyFriendly": FAMILY,
    "priceRange": r"£|\bprice",
    "customer rating": r"out of 5|\brat(?:ed|ings?)\b",
}


def slots(prompt: str) -> dict[str, str]:
    """The slots of an E2E meaning representation: `name[Alimentum], area[city centre]`."""
    return {name.strip(): value for name, value in SLOT.findall(prompt)}


def slot_coverage(prompt: str, response: str) -> float:
    """The share of the slots that the response says, 0 to 1."""
    found = [says(name, value, response.lower()) for name, value in slots(prompt).items()]
    return sum(found) / len(found)


def says(name: str, value: str, text: str) -> bool:
    """Whether a text in lower case gives this slot this value."""
    if name == "familyFriendly":
        return bool(re.search(FAMILY, text)) and bool(re.search(NOT, text)) == (value == "no")
    if words := WORDS.get(name, {}).get(value):
        return bool(re.search(words, text))
    return value.lower() in text


def values_of(prompts: Iterable[str]) -> dict[str, set[str]]:
    """The values that each slot of `LITERAL` has somewhere in these meaning representations."""
    values: dict[str, set[str]] = {name: set() for name in LITERAL}
    for prompt in prompts:
        for name, value in slots(prompt).items():
            if name in values and value.lower() not in COMMON:
                values[name].add(value)
    return values


def invented(prompt: str, response: str, values: Mapping[str, Iterable[str]]) -> list[str]:
    """The slots that the response tells although the prompt does not, or gives another value of.

    Values that are said in their own words are looked for one by one, as far as ``values`` (of `values_of`) knows them; of a
    slot in `TELLTALES` only whether it is mentioned at all.
    """
    text, given = response.lower(), slots(prompt)
    said_anyhow = " ".join(given.values()).lower()
    found = [
        name
        for name, known in values.items()
        for value in known
        if value.lower() not in said_anyhow
        and re.search(WORDS.get(name, {}).get(value) or rf"\b{re.escape(value.lower())}\b", text)
    ]
    return found + [name for name, words in TELLTALES.items() if name not in given and re.search(words, text)]


def concept_coverage(prompt: str, response: str) -> float:
    """The share of the prompt's words that the response has, in any form that begins alike (run, running), 0 to 1."""
    words = re.findall(r"[a-z]+", response.lower())
    concepts = prompt.lower().split()
    return sum(any(alike(concept, word) for word in words) for concept in concepts) / len(concepts)


def alike(concept: str, word: str) -> bool:
    """Equal but for an ending: dance, dances, dancing; city, cities; run, running."""
    stem = concept.rstrip("ey") if len(concept) > 3 else concept
    return word == concept or (word.startswith(stem) and len(word) - len(stem) <= 4)
