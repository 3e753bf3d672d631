"""The grammar behind `text_envs/SupportReply-v0`: what customers of a small shop write, and what it answers.

A `Ticket` is one customer message with its three facts: product, problem and mood. A reply is written for a
ticket, in one of the `QUALITIES`. The shop's policy is one table, `PROBLEMS`: how customers put a problem, how
a reply acknowledges it, and the remedy that fits it, in several wordings. The judge reads the same table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")

# Electrical goods, so that each of the problems below can befall each of them; none begins with a vowel.
# fmt: off
PRODUCTS = (
    "blender", "camera", "clock", "doorbell", "drill", "drone", "dryer", "fan", "freezer", "grill",
    "headset", "heater", "juicer", "kettle", "keyboard", "lamp", "microphone", "mixer", "monitor", "printer",
    "projector", "radio", "router", "scanner", "shaver", "speaker", "tablet", "toaster", "toothbrush", "vacuum",
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Problem:
    """What can go wrong, what the shop says to it, and what it does about it: clauses that hold `{product}`."""

    complaints: tuple[str, ...]  # sentences of the customer, without the full stop
    acknowledgements: tuple[str, ...]  # clauses that follow "I am sorry that"
    remedies: tuple[str, ...]  # clauses that follow "we will"


PROBLEMS: Mapping[str, Problem] = {
    "damaged": Problem(
        (
            "My {product} arrived with a crack down one side",
            "The {product} came out of the box in pieces",
            "My new {product} was dented when the parcel came",
            "I opened the parcel and the {product} was smashed",
            "The glass of my {product} was broken in the post",
        ),
        (
            "your {product} arrived damaged",
            "your {product} reached you broken",
            "your {product} was damaged on the way",
        ),
        ("send you a new {product}", "replace the {product}", "post a new {product} to you"),
    ),
    "late": Problem(
        (
            "My {product} has still not arrived",
            "The {product} I ordered is two weeks late",
            "I am still waiting for my {product}",
            "My {product} was due on Monday and never came",
            "Nobody can tell me where my {product} is",
        ),
        (
            "your {product} is late",
            "your {product} has not reached you yet",
            "you are still waiting for your {product}",
        ),
        ("trace the parcel", "call the driver about the parcel", "find the parcel"),
    ),
    "wrong_colour": Problem(
        (
            "I ordered a blue {product} and got a red one",
            "The {product} you sent me is the wrong colour",
            "My {product} should be white but it is green",
            "I asked for a black {product} and this one is pink",
            "The colour of my {product} is not what I chose",
        ),
        (
            "your {product} came in the wrong colour",
            "we sent you a {product} in the wrong colour",
            "your {product} is not the colour you ordered",
        ),
        ("swap it for the right colour", "exchange it for the colour you chose", "swap the colour"),
    ),
    "charged_twice": Problem(
        (
            "I was charged twice for my {product}",
            "You took the money for my {product} two times",
            "My bank shows two payments for one {product}",
            "I paid for the {product} once but the bill says twice",
            "There is a second payment for the {product} on my card",
        ),
        (
            "you were charged twice for your {product}",
            "you paid twice for your {product}",
            "we took the money for your {product} twice",
        ),
        ("refund the second payment", "pay the extra money back", "return the extra payment to your card"),
    ),
    "faulty": Problem(
        (
            "My {product} does not switch on",
            "The {product} stopped working after two days",
            "My {product} makes a loud noise and then dies",
            "The {product} I bought is dead",
            "Nothing happens when I turn the {product} on",
        ),
        (
            "your {product} does not work",
            "your {product} stopped working",
            "your {product} let you down so soon",
        ),
        ("repair it for free", "collect it and repair it", "repair the {product}"),
    ),
    "missing_part": Problem(
        (
            "The power cable of my {product} is missing",
            "My {product} came without the screws",
            "A part of my {product} was not in the box",
            "I cannot use the {product} because a piece is missing",
            "Half of the parts for my {product} are not there",
        ),
        (
            "your {product} came with a part missing",
            "a part of your {product} is missing",
            "your {product} was not complete",
        ),
        ("post the missing part", "send you the missing part", "put the missing part in the post"),
    ),
    "no_manual": Problem(
        (
            "I cannot find the manual for my {product}",
            "There was no manual with my {product}",
            "I do not know how to set up the {product}",
            "The manual for the {product} is in a language I cannot read",
            "How do I use my {product} without a manual",
        ),
        (
            "you have no manual for your {product}",
            "your {product} came without a manual",
            "you need the manual for your {product}",
        ),
        ("email you the manual", "send you the manual by email", "email the manual"),
    ),
    "cancel": Problem(
        (
            "Please cancel the {product} I ordered",
            "I no longer need the {product} and want to cancel it",
            "I ordered the {product} by mistake and want to cancel",
            "Can I still cancel my order for the {product}",
            "I changed my mind, do not ship the {product}",
        ),
        (
            "you want to cancel your {product}",
            "you no longer need your {product}",
            "you ordered the {product} by mistake",
        ),
        ("cancel the order", "stop the order", "cancel your {product}"),
    ),
    "return": Problem(
        (
            "I do not like the {product} and want to return it",
            "How can I send the {product} back",
            "The {product} is too big and I want to give it back",
            "My {product} is not for me, can I return it",
            "I would like to return the {product}",
        ),
        (
            "you want to return your {product}",
            "you are not happy with your {product}",
            "your {product} is not right for you",
        ),
        ("send you a return label", "email you a return label", "pay for the return"),
    ),
    "old_address": Problem(
        (
            "My {product} is on its way to my old address",
            "I moved and the {product} will go to the wrong house",
            "Please send the {product} to my new address",
            "I gave you the wrong address for my {product}",
            "The address on the order for my {product} is not right",
        ),
        (
            "your {product} is going to the wrong address",
            "the address for your {product} is wrong",
            "your {product} has the wrong address on it",
        ),
        ("change the address", "send it to your new address", "correct the address"),
    ),
}


@dataclass(frozen=True, slots=True)
class Mood:
    openings: tuple[str, ...]
    closings: tuple[str, ...]


MOODS: Mapping[str, Mood] = {
    "angry": Mood(
        ("This is a disgrace.", "I am very angry.", "What kind of shop is this?", "I have had enough.", ""),
        (
            "Fix this now!",
            "I will tell my friends.",
            "I want an answer today!",
            "Never again.",
            "Shame on you!",
        ),
    ),
    "worried": Mood(
        ("I am a little worried.", "I hope you can help me.", "I do not know what to do.", "Oh dear.", ""),
        (
            "Did I do this?",
            "What should I do now?",
            "I need it this week.",
            "Can you help?",
            "It cost a lot.",
        ),
    ),
    "calm": Mood(
        ("Hello.", "Good morning.", "I have a question.", "A short note.", ""),
        ("What can you do?", "Let me know.", "I look forward to your answer.", "That is all.", ""),
    ),
    "friendly": Mood(
        ("Hello there!", "I love your shop.", "I hope you are well.", "Hi, it is me again.", ""),
        ("Thanks a lot!", "Have a nice week.", "You are always so kind.", "Many thanks.", "No hurry at all."),
    ),
}

DETAILS = (
    "The {product} is a gift for my sister.",
    "I bought the {product} on your website.",
    "I have the bill for the {product} here.",
    "I need the {product} for work.",
    "The {product} is for the birthday of my son.",
    "I paid for the {product} by card.",
    "I saw the {product} in your spring sale.",
    "",
    "",
)

QUALITIES = ("good", "rude", "vague", "wrong_product", "wrong_remedy", "too_long")

OPENINGS = (
    "I am sorry to hear that {problem}.",
    "We are sorry to hear that {problem}.",
    "I am so sorry that {problem}.",
    "Thank you for telling us that {problem}.",
    "Thank you for your message. I see that {problem}.",
)
OFFERS = (
    "We will {remedy} today.",
    "We will {remedy} at once.",
    "I will {remedy} this week.",
    "Our team will {remedy} tomorrow.",
)
CLOSINGS = (
    "Thank you for your patience.",
    "Kind regards.",
    "Have a good day.",
    "Please write to us if you need more help.",
)
RUDE_OPENINGS = (
    "Not you again.",
    "Stop moaning about your {product}.",
    "That is your own stupid fault.",
    "Who cares about your {product}?",
    "So what if {problem}?",
    "You say that {problem}, what nonsense.",
)
RUDE_CLOSINGS = ("Now go away.", "Do not bother us again.", "Learn to read next time.", "Deal with it.")
# Phrases that make a reply rude, wherever they stand: those of the sentences above, and some of their kin.
# fmt: off
RUDE_PHRASES = (
    "not you again", "moaning", "stupid", "your fault", "who cares", "so what", "nonsense", "go away", "bother us",
    "learn to read", "deal with it", "idiot", "shut up", "dumb", "whatever", "get lost", "complaining", "hate",
)
# fmt: on
VAGUE_OPENINGS = (
    "Thank you for your message about your {product}.",
    "We have read about your {product}.",
    "I am sorry to hear about your {product}.",
    "Your message is with our team.",
)
VAGUE_MIDDLES = (
    "We will look into it.",
    "Someone may come back to you soon.",
    "We will see what can be done.",
    "It is hard to say more for now.",
    "There may be news later.",
)
RAMBLES = (
    "Our shop opened in a small town many years ago.",
    "We sell a lot of fine things for the home.",
    "The people in our team all work very hard.",
    "My own one at home has served me well for years.",
    "The weather has been rather wet here this month.",
    "We are proud of our long history and our good name.",
    "As you may know there is a sale on in the spring.",
    "It is always a joy to hear from people like you.",
)


@dataclass(frozen=True, slots=True)
class Ticket:
    product: str
    problem: str
    mood: str
    message: str


def choose(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def write_ticket(rng: np.random.Generator, product: str, problem: str) -> Ticket:
    """A customer's message about `problem` with `product`, in a mood of its own."""
    mood = choose(rng, tuple(MOODS))
    complaint = choose(rng, PROBLEMS[problem].complaints).format(product=product)
    end = "?" if complaint.startswith(("How", "Can")) or complaint.endswith("can I return it") else "."
    parts = (
        choose(rng, MOODS[mood].openings),
        complaint + end,
        choose(rng, DETAILS).format(product=product),
        choose(rng, MOODS[mood].closings),
    )
    return Ticket(product, problem, mood, " ".join(part for part in parts if part))


def write_reply(rng: np.random.Generator, ticket: Ticket, quality: str) -> str:
    """A reply to `ticket` of one of the `QUALITIES`."""
    product, remedied = ticket.product, ticket.problem
    if quality == "wrong_product":
        product = choose(rng, [other for other in PRODUCTS if other != product])
    if quality == "wrong_remedy":
        remedied = choose(rng, [other for other in PROBLEMS if other != remedied])
    sentences = list(_sentences(rng, quality))
    problem = choose(rng, PROBLEMS[ticket.problem].acknowledgements).format(product=product)
    remedy = choose(rng, PROBLEMS[remedied].remedies).format(product=product)
    return " ".join(sentences).format(product=product, problem=problem, remedy=remedy)


def _sentences(rng: np.random.Generator, quality: str) -> Iterator[str]:
    """The templates of a reply, in order."""
    if quality == "rude":
        yield choose(rng, RUDE_OPENINGS)
        if rng.random() < 0.3:
            yield choose(rng, OFFERS)
        yield choose(rng, RUDE_CLOSINGS)
    elif quality == "vague":
        yield choose(rng, VAGUE_OPENINGS)
        yield choose(rng, VAGUE_MIDDLES)
        if rng.random() < 0.5:
            yield choose(rng, CLOSINGS)
    elif quality == "too_long":
        yield choose(rng, OPENINGS)
        yield from (RAMBLES[i] for i in rng.permutation(len(RAMBLES))[: int(rng.integers(2, 4))])
        yield choose(rng, OFFERS)
        yield choose(rng, CLOSINGS)
    else:
        yield choose(rng, OPENINGS)
        yield choose(rng, OFFERS)
        if rng.random() < 0.6:
            yield choose(rng, CLOSINGS)


def reply_sentences() -> Iterator[str]:
    """Each sentence that a reply can hold, with `{product}` left open: the language that counts as fluent."""
    yield from (*CLOSINGS, *RUDE_CLOSINGS, *VAGUE_OPENINGS, *VAGUE_MIDDLES, *RAMBLES)
    for problem in PROBLEMS.values():
        for opening in (*OPENINGS, *RUDE_OPENINGS):
            yield from (opening.replace("{problem}", clause) for clause in problem.acknowledgements)
        for offer in OFFERS:
            yield from (offer.replace("{remedy}", clause) for clause in problem.remedies)
