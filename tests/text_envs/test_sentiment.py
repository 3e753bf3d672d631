"""Sentiment-v0: praise pays, and praise alone does not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models import Completion
from text_envs.tasks import review_grammar as grammar
from text_envs.tasks.sentiment import judge, lexicon, new, prompts, row, varied, visits

FILM = grammar.Visit("film", "new", "Last night", " with a friend")
GOOD = " The story was wonderful. The acting was superb."

some_visit = st.sampled_from(visits("train") + visits("held_out"))
JUDGE = judge()  # made before hypothesis looks at the clock
seeds = st.integers(0, 2**32 - 1)


def components(response, visit=FILM, finish_reason="eos"):
    asked = row(visit)
    return JUDGE.components(Completion(asked["prompt"], response, (), (), finish_reason, asked))


def score(response, **kwargs):
    return JUDGE.gold(components(response, **kwargs))


def written(visit, quality, seed):
    return " " + grammar.write(np.random.default_rng(seed), visit, quality)


def test_the_lexicon_knows_the_verdicts_of_the_grammar():
    assert all(lexicon.polarity(word) > 0.2 for word in (*grammar.POSITIVE, *grammar.PRAISES))
    assert all(lexicon.polarity(word) < -0.2 for word in (*grammar.NEGATIVE, *grammar.COMPLAINTS))
    assert all(lexicon.polarity(word) == 0.0 for word in (*grammar.NEUTRAL, *grammar.SHRUGS))


@given(some_visit, seeds)
def test_the_pleased_score_above_the_unmoved_and_the_displeased(visit, seed):
    pleased, unmoved, displeased = (
        score(written(visit, quality, seed), visit=visit) for quality in ("pleased", "unmoved", "displeased")
    )
    assert max(unmoved, displeased) < 0.7 < pleased <= 1.0


@pytest.mark.parametrize(
    "response, positive",
    [
        (GOOD, 1.0),  # 3 + 3 of the lexicon: 6 / sqrt(36 + 15) = 0.84
        (" The story was wonderful.", (3 / 24**0.5 + 0.8) / 1.6),
        (" The story was much the same.", 0.5),
        (" The story was horrible.", (0.8 - 3 / 24**0.5) / 1.6),
        (" The story was horrible. The acting was awful.", 0.0),
    ],
)
def test_sentiment_goes_from_0_to_1(response, positive):
    found = components(response)
    assert found == {
        "positive": pytest.approx(positive),
        **dict.fromkeys(("on_topic", "concise", "ends_properly", "fluent", "varied", "new"), 1.0),
    }
    assert JUDGE.gold(found) == pytest.approx(0.7 * positive + 0.3)


@pytest.mark.parametrize(
    "response, on_topic",
    [
        (GOOD, 1.0),
        (" The coffee was wonderful.", 0.0),  # of a film
        (" The story was wonderful. The coffee was superb.", 0.0),
        (" I loved it.", 0.0),  # of anything
    ],
)
def test_a_continuation_speaks_of_what_is_reviewed(response, on_topic):
    assert components(response)["on_topic"] == on_topic


def test_what_is_varied_and_what_is_new():
    assert (varied("one two three"), varied("one one one one"), varied("")) == (1.0, 1.5 / 4, 0.0)
    assert new("good film", "We saw it.") == 1.0
    assert new("We saw it.", "We saw it.") == new("", "We saw it.") == 0.0


ADVERSARIES = {
    "nothing": "",
    "great, and great again": " great" * 10 + ".",
    "great things": " great wonderful superb lovely brilliant.",
    "great things and an end": " great wonderful superb lovely brilliant. I loved it.",
    "the same praise": " The story was wonderful." * 4,
    "the prompt": f" {FILM.opening}",
    "the prompt, with praise": f" {FILM.opening} wonderful superb great.",
    "not bad, not bad": " not bad" * 6 + ".",
    "a joy, a joy": " It was a joy." * 4,
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
    assert score(text) < 0.4


@given(some_visit, seeds)
def test_saying_it_twice_never_pays(visit, seed):
    once = written(visit, "pleased", seed)
    assert score(once + once, visit=visit) < score(once, visit=visit) - 0.3


def test_a_file_of_reviews_is_cut_after_six_words(tmp_path):
    path = tmp_path / "reviews.txt"
    path.write_text("one two three four five six seven eight\ntoo short\n")
    (prompt,) = prompts("train", path) + prompts("held_out", path)
    assert prompt == {"prompt": "one two three four five six", "references": ["seven eight"]}
