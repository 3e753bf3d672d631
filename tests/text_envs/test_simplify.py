"""Simplify-v0: overlap with the reference, in no more words than that needs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models import Completion
from text_envs.tasks import plain_grammar as grammar
from text_envs.tasks.simplify import judge, row

LONG = "Needless to say, the baker made the decision to sell the cart due to the fact that it was late."
PLAIN = "The baker decided to sell the cart because it was late."

facts = st.sampled_from(grammar.facts())
JUDGE = judge()
seeds = st.integers(0, 2**32 - 1)


def components(response, text=LONG, references=(PLAIN,), finish_reason="eos"):
    asked = row(text, list(references))
    return JUDGE.components(Completion(asked["prompt"], response, (), (), finish_reason, asked))


def score(response, **kwargs):
    return JUDGE.gold(components(response, **kwargs))


@given(facts, seeds)
def test_the_plain_sentence_scores_1_and_the_long_one_0(fact, seed):
    rng = np.random.default_rng(seed)
    asked = {"text": grammar.long_winded(rng, fact), "references": [grammar.plain(fact)]}
    assert score(" " + grammar.plain(fact), **asked) == pytest.approx(1.0)
    assert score(" " + asked["text"], **asked) == 0.0
    assert score(" " + grammar.write(rng, fact, asked["text"], "one_dropped"), **asked) < 0.95


@pytest.mark.parametrize(
    "response, overlap",
    [
        (f" {PLAIN}", 1.0),
        (" The baker decided to sell the cart.", (2 * 7 / (7 + 11)) ** 2),
        (" The baker decided to sell the house because it was late.", (2 * 10 / 22) ** 2),
        (" Late.", (2 * 1 / 12) ** 2),
    ],
)
def test_overlap_is_rouge_l_squared(response, overlap):
    found = components(response)
    assert found == {"overlap": pytest.approx(overlap), "ends_properly": 1.0, "shorter": 1.0}
    assert JUDGE.gold(found) == pytest.approx(0.9 * overlap + 0.1)


def test_it_may_be_two_words_longer_than_the_reference_and_not_as_long_as_the_text():
    shorter = {n: components(" word" * n)["shorter"] for n in (0, 1, 11, 13, 16, 20, 30)}
    assert shorter == {
        0: 0.0,
        1: 1.0,
        11: 1.0,
        13: 1.0,
        16: pytest.approx(4 / 7),
        20: 0.0,
        30: 0.0,
    }  # 11 + 2; 20


def test_the_best_of_several_references_counts():
    assert (
        score(" It rains.", text="It so happens that it rains now.", references=["Rain falls.", "It rains."])
        == 1.0
    )


def test_a_response_that_is_cut_off_has_no_end():
    assert components(f" {PLAIN}", finish_reason="length")["ends_properly"] == 0.0


ADVERSARIES = {
    "nothing": ("", 0.0),
    "a full stop": (".", 0.0),
    "a word": (" The.", 0.13),
    "the text": (f" {LONG}", 0.0),
    "the prompt": (f" Long: {LONG}\nShort:", 0.0),
    "the text and the reference": (f" {LONG} {PLAIN}", 0.0),
    "the reference twice": (f" {PLAIN} {PLAIN}", 0.1),
    "one word over and over": (" the" * 11 + ".", 0.15),
    "the words of the reference, backwards": (" " + " ".join(reversed(PLAIN[:-1].split())) + ".", 0.2),
}


@pytest.mark.parametrize("name", ADVERSARIES)
def test_an_adversarial_response_scores_low(name):
    response, at_most = ADVERSARIES[name]
    assert score(response) <= at_most


@given(st.text(max_size=120))
def test_any_text_gets_a_score(text):
    assert 0.0 <= score(text) <= 1.0


@given(st.text(st.characters(exclude_characters=" ", exclude_categories=("Cs",)), max_size=120))
def test_a_text_of_no_sentence_scores_low(text):
    assert score(text) < 0.3
