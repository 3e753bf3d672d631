"""KeywordSentence-v0: the grammar's keywords are told apart, and its judge is not fooled."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models import Completion, make
from reward_models.coverage import alike
from text_envs.tasks import keyword_grammar as grammar
from text_envs.tasks.keyword_sentence import judge, row

KEYWORDS = "ball boy park throw"
GOOD = " A boy throws the ball in the park."

scenes = st.sampled_from(grammar.all_scenes())
JUDGE = judge()  # made before hypothesis looks at the clock
seeds = st.integers(0, 2**32 - 1)


def components(response, keywords=KEYWORDS, finish_reason="eos"):
    asked = row(keywords)
    return JUDGE.components(Completion(asked["prompt"], response, (), (), finish_reason, asked))


def score(response, **kwargs):
    return JUDGE.gold(components(response, **kwargs))


def written(scene, quality, seed):
    return " " + grammar.write(np.random.default_rng(seed), scene, quality)


def test_no_word_of_the_grammar_passes_for_another_keyword():
    words = set(re.findall(r"[a-z]+", " ".join(grammar.language()).lower()))
    for keyword in {keyword for scene in grammar.all_scenes() for keyword in scene.keywords}:
        forms = {keyword, grammar.VERBS.get(keyword, ("",))[0]} - {""}
        assert {word for word in words if alike(keyword, word)} <= forms


@given(scenes, seeds)
def test_a_good_sentence_scores_1(scene, seed):
    assert score(written(scene, "good", seed), keywords=" ".join(scene.keywords)) == pytest.approx(1.0)


@pytest.mark.parametrize("quality", ["one_missing", "one_wrong", "rambling", "two_sentences", "list"])
@given(scene=scenes, seed=seeds)
def test_a_flawed_one_scores_less(quality, scene, seed):
    assert score(written(scene, quality, seed), keywords=" ".join(scene.keywords)) < 0.96


@pytest.mark.parametrize(
    "response, expected",
    [
        (GOOD, {"coverage": 1.0, "one_sentence": 1.0, "concise": 1.0, "ends_properly": 1.0, "fluent": 1.0}),
        (" A boy throws the ball.", {"coverage": (3 / 4) ** 2, "fluent": 1.0}),
        (" The boy reads a book at school.", {"coverage": (1 / 4) ** 2, "fluent": 1.0}),
        (f"{GOOD} That is all.", {"coverage": 1.0, "one_sentence": 0.0, "concise": 1.0, "fluent": 1.0}),
        (GOOD[:-1], {"ends_properly": 0.0}),
        ("", {"coverage": 0.0, "one_sentence": 0.0, "concise": 0.0, "ends_properly": 0.0, "fluent": 0.0}),
    ],
)
def test_components(response, expected):
    found = components(response)
    assert {name: found[name] for name in expected} == expected


def test_a_sentence_that_is_cut_off_has_no_end():
    assert components(GOOD, finish_reason="length")["ends_properly"] == 0.0


def test_the_gold_score_of_a_sentence_that_misses_one_keyword():
    assert score(" A boy throws the ball.") == pytest.approx(0.7 * (3 / 4) ** 2 + 0.1 + 0.1 + 0.1)


ADVERSARIES = {
    "nothing": "",
    "a full stop": ".",
    "the keywords": f" {KEYWORDS}.",
    "the keywords with commas": " ball, boy, park, throw.",
    "the keywords with and": " A ball and a boy and a park and a throw.",
    "the prompt": f" Keywords: {KEYWORDS}\nSentence:",
    "the prompt and a sentence": f" Keywords: {KEYWORDS}\nSentence:{GOOD}",
    "one keyword over and over": " ball" * 12 + ".",
    "one good sentence over and over": GOOD * 3,
    "every thing there is": " A boy throws the ball the stone the hat the stick in the park in the garden on the beach.",
    "no spaces": " Aboythrowstheballinthepark.",
    "shuffled": " park the boy A in ball throws the.",
    "bytes": " \x00\ufffd\ud800 ☃",
}


@pytest.mark.parametrize("name", ADVERSARIES)
def test_an_adversarial_response_scores_low(name):
    assert score(ADVERSARIES[name]) < 0.3


@given(st.text(max_size=120))
def test_any_text_gets_a_score(text):
    assert 0.0 <= score(text) <= 1.0


@given(st.text(st.characters(exclude_characters=" ", exclude_categories=("Cs",)), max_size=120))
def test_a_text_of_no_sentence_scores_low(text):
    assert score(text) < 0.3


@given(scenes, seeds)
def test_saying_it_twice_never_pays(scene, seed):
    once, keywords = written(scene, "good", seed), " ".join(scene.keywords)
    assert score(once + once, keywords=keywords) < score(once, keywords=keywords) - 0.5


def test_the_judge_goes_by_its_module():
    assert make("text_envs.tasks.keyword_sentence:judge") is JUDGE
