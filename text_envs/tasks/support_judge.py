"""The gold judge of `text_envs/SupportReply-v0`: what a good answer to a customer is, by rules."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from reward_models import Completion
from text_envs.tasks.judging import Language, ramp, split_sentences
from text_envs.tasks.support_grammar import MOODS, PROBLEMS, PRODUCTS, RUDE_PHRASES, reply_sentences

WEIGHTS = {
    "addresses_problem": 0.20,
    "names_product": 0.15,
    "fitting_remedy": 0.30,
    "polite": 0.15,
    "concise": 0.10,
    "ends_properly": 0.10,
}
"""What each component counts for in the gold score."""


class SupportJudge:
    """The gold score of a reply, 0 to 1: the weighted mean of six components, times its fluency.

    Components, each 0 to 1, weighted by `WEIGHTS`:

    - addresses_problem: acknowledges the customer's problem with the customer's product, and no other.
    - names_product: names the customer's product and no other.
    - fitting_remedy: offers the remedy that the shop has for the problem, once, and no other remedy.
    - polite: apologises to an angry or worried customer, shows any courtesy to the others; rude words and
      grovelling lose it.
    - concise: 10 to 40 words (nothing below 4 and above 60), times the share of them that are to the point:
      in sentences with a product, an offer, an apology or a courtesy.
    - ends_properly: the reply ended by itself, on a full stop, exclamation or question mark.

    Fluency, the factor, is how much of the reply is made of word sequences of the grammar, less what it
    repeats. So keywords strung together, the customer's own message, gibberish and repetition score low.

    The facts of the ticket come from the completion's columns product, problem and mood, or where these are
    missing from the words of its prompt.
    """

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """The gold score of each reply.

        Raises:
            ValueError: if neither columns nor prompt tell the product and the problem.
        """
        return [self.gold(self.components(completion)) for completion in completions]

    @staticmethod
    def gold(components: Mapping[str, float]) -> float:
        """The gold score of a reply with these components."""
        return components["fluent"] * sum(weight * components[name] for name, weight in WEIGHTS.items())

    def components(self, completion: Completion) -> dict[str, float]:
        """The six components and ``fluent``, each 0 to 1."""
        product, problem, mood = facts(completion)
        text = normal(completion.response)
        named = {match.group(1) for match in PRODUCT.finditer(completion.response.lower())}
        no_other = named <= {product}
        ended = completion.finish_reason != "length" and text.endswith((".", "!", "?"))
        return {
            "addresses_problem": only(problem, ACKNOWLEDGED, text) * no_other,
            "names_product": float(named == {product}),
            "fitting_remedy": offers(problem, text) * no_other,
            "polite": politeness(text, mood),
            "concise": concision(text),
            "ends_properly": float(ended),
            "fluent": fluency(text),
        }


def facts(completion: Completion) -> tuple[str, str, str]:
    """Product, problem and mood of the ticket answered; a mood that cannot be told is "calm".

    Raises:
        ValueError: if neither columns nor prompt tell the product and the problem.
    """
    columns = completion.columns
    if "product" in columns and "problem" in columns:
        return columns["product"], columns["problem"], columns.get("mood", "calm")
    product = PRODUCT.search(completion.prompt.lower())
    text = normal(completion.prompt)
    problem = next((name for name, pattern in COMPLAINED.items() if pattern.search(text)), None)
    if product is None or problem is None:
        missing = "product" if product is None else "problem"
        raise ValueError(
            f"The support judge cannot tell the {missing} of the prompt {completion.prompt[:80]!r}. Give it "
            f"as a dict with the columns product ({PRODUCTS[0]}, {PRODUCTS[1]}, ...), problem "
            f"({', '.join(PROBLEMS)}) and mood ({', '.join(MOODS)})."
        )
    said = {name: [s for s in mood.openings + mood.closings if s] for name, mood in MOODS.items()}
    moods = (name for name, phrases in said.items() if any(s in completion.prompt for s in phrases))
    return product.group(1), problem, next(moods, "calm")


# The patterns below are matched against normal text: lower case, single spaces, any product as <product>.
PRODUCT = re.compile(rf"\b({'|'.join(PRODUCTS)})s?\b")
APOLOGY = re.compile(r"\b(?:sorry|apologi[sz]e|apology|apologies)\b")
COURTESY = re.compile(r"\b(?:thank you|thanks|please|kind regards|have a good day)\b")
RUDE = re.compile(rf"\b(?:{'|'.join(RUDE_PHRASES)})\b")
NEGATION = re.compile(r"\b(?:not|never|no|nor|cannot|without|refuse|\w+n't)\b")


def any_of(clauses: Sequence[str], before: str = "") -> re.Pattern[str]:
    """One of the clauses, after the regular expression ``before``."""
    options = "|".join(re.escape(clause.lower().format(product="<product>")) for clause in clauses)
    return re.compile(rf"\b{before}(?:{options})(?!\w)")


COMPLAINED = {name: any_of(problem.complaints) for name, problem in PROBLEMS.items()}
ACKNOWLEDGED = {name: any_of(problem.acknowledgements) for name, problem in PROBLEMS.items()}
OFFERED = {
    name: any_of(problem.remedies, before="(?:will|shall|can|let me|going to) ")
    for name, problem in PROBLEMS.items()
}


def normal(text: str) -> str:
    return PRODUCT.sub("<product>", " ".join(text.lower().split()))


def only(own: str, patterns: Mapping[str, re.Pattern[str]], text: str) -> float:
    """1 if the pattern of ``own`` is found once and none of the others; half if it is found more often."""
    found = Counter({name: len(pattern.findall(text)) for name, pattern in patterns.items()})
    if not found[own] or found.total() > found[own]:
        return 0.0
    return 1.0 if found[own] == 1 else 0.5


def offers(problem: str, text: str) -> float:
    """As `only`; with a negation in the sentence of an offer, nothing is offered."""
    offering = [s for s in split_sentences(text) if any(p.search(s) for p in OFFERED.values())]
    return 0.0 if any(map(NEGATION.search, offering)) else only(problem, OFFERED, text)


def politeness(text: str, mood: str) -> float:
    apologies, courtesies = len(APOLOGY.findall(text)), len(COURTESY.findall(text))
    if RUDE.search(text) or apologies > 2 or courtesies > 3:
        return 0.0
    if apologies == 2:
        return 0.5
    if apologies == 0 and mood in ("angry", "worried"):
        return 0.5 * (courtesies > 0)
    return float(apologies + courtesies > 0)


def concision(text: str) -> float:
    sentences = split_sentences(text)
    words = [len(re.findall(r"[\w']+", sentence)) for sentence in sentences]
    pointed = sum(n for n, sentence in zip(words, sentences) if to_the_point(sentence))
    total = sum(words)
    return min(ramp(total, 3, 10), ramp(total, 60, 40)) * pointed / max(total, 1)


def to_the_point(sentence: str) -> bool:
    patterns = (APOLOGY, COURTESY, *OFFERED.values())
    return "<product>" in sentence or any(pattern.search(sentence) for pattern in patterns)


def fluency(text: str) -> float:
    """How much of a reply is made of word sequences of the grammar, less what it repeats."""
    return language().fluency(text)


@functools.cache
def language() -> Language:
    """The language of all replies of the grammar."""
    return Language([normal(sentence.format(product=PRODUCTS[0])) for sentence in reply_sentences()])


judge = SupportJudge()
