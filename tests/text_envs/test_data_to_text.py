"""DataToText-v0: a judge that counts what is said right and what is made up; E2E's data by rules."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models import Completion
from reward_models.coverage import invented, values_of
from text_envs import PromptError
from text_envs.tasks import lodging_grammar as grammar
from text_envs.tasks.data_to_text import FactsByRule, facts, judge, places, prompts, row

OTTER = "name[Otter], kind[inn], price[low], pets[no]"
GOOD = " Otter is a cheap inn. Pets are not allowed."

some_place = st.sampled_from(places("train") + places("held_out"))
JUDGE = judge()  # made before hypothesis looks at the clock
seeds = st.integers(0, 2**32 - 1)


def components(response, meaning=OTTER, finish_reason="eos"):
    asked = row(meaning)
    return JUDGE.components(Completion(asked["prompt"], response, (), (), finish_reason, asked))


def score(response, **kwargs):
    return JUDGE.gold(components(response, **kwargs))


def written(place, quality, seed):
    return " " + grammar.write(np.random.default_rng(seed), place, quality)


@given(some_place, seeds)
def test_a_good_text_says_all_and_nothing_else(place, seed):
    text = written(place, "good", seed)
    assert facts(grammar.meaning(place), text) == (len(place), 0)
    assert score(text, meaning=grammar.meaning(place)) == pytest.approx(1.0)


@given(some_place, seeds)
def test_a_flawed_text_is_caught(place, seed):
    meaning = grammar.meaning(place)
    assert facts(meaning, written(place, "one_missing", seed)) == (len(place) - 1, 0)
    assert facts(meaning, written(place, "most_missing", seed)) == (2, 0)  # the name and one slot
    assert facts(meaning, written(place, "two_wrong", seed)) == (len(place) - 2, 2)


@pytest.mark.parametrize(
    "response, right, wrong",
    [
        (GOOD, 4, 0),
        (" Otter is a low-priced inn. You may not bring pets.", 4, 0),
        (" Otter is a cheap inn. Pets are welcome.", 3, 1),
        (" Otter is a cheap inn. You may bring pets. You may not bring pets.", 4, 1),
        (" Otter is a cheap inn. Pets are not allowed. Dinner is served.", 4, 1),  # made up
        (" Heron is a cheap inn. Pets are not allowed.", 3, 1),
        (" Otter is a cheap hotel by the harbour.", 2, 2),
        ("", 0, 0),
    ],
)
def test_what_a_text_says_right_and_wrong(response, right, wrong):
    assert facts(OTTER, response) == (right, wrong)


def test_components_and_gold_of_a_text_with_one_slot_wrong():
    found = components(" Otter is a cheap inn. Pets are welcome.")
    three_of_four = (3 / 4) ** 3
    assert found == {
        "coverage": three_of_four,
        "faithful": three_of_four,
        "concise": 1.0,
        "ends_properly": 1.0,
        "fluent": 1.0,
    }
    assert JUDGE.gold(found) == pytest.approx(0.8 * three_of_four + 0.2)


def test_long_and_cut_off_texts_lose():
    assert components(GOOD + 3 * f" {grammar.RAMBLES[0]}")["concise"] == 0.0
    assert components(GOOD, finish_reason="length")["ends_properly"] == 0.0


ADVERSARIES = {
    "nothing": "",
    "the data": f" {OTTER}.",
    "the prompt": f" {OTTER}\nText:",
    "the values": " Otter, inn, cheap, pets are not allowed.",
    "the values over and over": " Otter inn cheap pets are not allowed" * 4 + ".",
    "the name alone": " Otter.",
    "fluent, and about nothing": f" {grammar.RAMBLES[1]}",
    "everything that can be said": " "
    + " ".join(way for said in grammar.SAID.values() for ways in said.values() for way in ways),
    "all names": " " + " ".join(grammar.NAMES) + " is a cheap inn. Pets are not allowed.",
    "one sentence over and over": " Otter is a cheap inn." * 5,
}


@pytest.mark.parametrize("name", ADVERSARIES)
def test_an_adversarial_response_scores_low(name):
    assert score(ADVERSARIES[name]) < 0.35


@given(st.text(max_size=120))
def test_any_text_gets_a_score(text):
    assert 0.0 <= score(text) <= 1.0


@given(st.text(st.characters(exclude_characters=" ", exclude_categories=("Cs",)), max_size=120))
def test_a_text_of_no_sentence_scores_low(text):
    assert score(text) < 0.35


@given(some_place, seeds)
def test_saying_it_twice_never_pays(place, seed):
    once, meaning = written(place, "good", seed), grammar.meaning(place)
    assert score(once + once, meaning=meaning) < score(once, meaning=meaning) - 0.5


# -- E2E's data, by rules

AROMI = "name[Aromi], eatType[pub], area[riverside]"
VALUES = {
    "name": {"Aromi", "Cocum"},
    "food": {"French"},
    "area": {"riverside", "city centre"},
    "eatType": {"pub"},
}


def test_values_that_the_data_know():
    assert values_of([AROMI, "name[Cocum], eatType[restaurant], food[French]"]) == {
        "name": {"Aromi", "Cocum"},
        "near": set(),
        "food": {"French"},
        "area": {"riverside"},
        "eatType": {"pub"},  # any place may be called a restaurant
    }


@pytest.mark.parametrize(
    "text, slots",
    [
        ("Aromi is a pub by the river.", []),
        ("Aromi is a French pub by the river.", ["food"]),
        ("Cocum is a pub by the river.", ["name"]),
        ("Aromi is a pub in the centre of the city, good for families, rated 5 out of 5.",
         ["area", "familyFriendly", "customer rating"]),
        ("Aromi is a pub where meals cost £20.", ["priceRange"]),
    ],
)  # fmt: skip
def test_slots_that_a_text_makes_up(text, slots):
    assert sorted(invented(AROMI, text, VALUES)) == sorted(slots)


def test_facts_by_rule():
    assert FactsByRule(VALUES)(AROMI, " Aromi is a French pub.") == (2, 1)


def test_a_row_without_slots_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"mr": "Aromi, a pub", "ref": "Aromi is a pub."}) + "\n")
    with pytest.raises(
        PromptError, match=r"line 1, asks 'Aromi, a pub', which has no slots, as in name\[Amber\]"
    ):
        prompts(file=path)
