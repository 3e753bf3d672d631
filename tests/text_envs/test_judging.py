"""What judges share: the weighted mean under guards, and fluency."""

from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models import Completion
from text_envs.tasks.judging import (
    Judge,
    Language,
    distinct,
    ended,
    ngrams,
    ramp,
    split_sentences,
    word_count,
)


class Polite(Judge):
    weights: ClassVar = {"thanks": 0.75, "short": 0.25}

    def components(self, completion):
        words = completion.response.split()
        return {"thanks": float("thanks" in words), "short": float(len(words) < 3), "clean": 0.5}


def completion(response, finish_reason="eos"):
    return Completion("", response, (), (), finish_reason)


def test_gold_is_the_weighted_mean_times_the_guards():
    assert Polite()([completion("thanks"), completion("thanks for all"), completion("so long")]) == [
        0.5 * (0.75 + 0.25),
        0.5 * 0.75,
        0.5 * 0.25,
    ]


def test_the_ngrams_of_a_sentence_have_edges_and_marks():
    assert list(ngrams(["a b."], 2)) == [("^", "a"), ("a", "b"), ("b", "."), (".", "$")]
    assert list(ngrams(["<name> is"], 1)) == [("^",), ("<name>",), ("is",), ("$",)]


CATS = Language(["The cat sat on the mat.", "A dog ran."])


@pytest.mark.parametrize(
    "text, fluency",
    [
        ("The cat sat on the mat.", 1.0),
        ("A dog ran. the cat  sat on the mat.", 1.0),  # case and spaces do not count
        ("A dog ran. A dog ran.", 0.25),  # half of the sentences are distinct
        ("A dog sat.", ((6 / 6 + 3 / 5 + 1 / 4) / 3) ** 5),  # ^ A dog sat . $
        ("", 0.0),
        ("zq", ((2 / 3 + 0 + 0) / 3) ** 5),
    ],
)
def test_fluency_is_the_share_of_known_ngrams_and_of_distinct_sentences(text, fluency):
    assert CATS.fluency(text) == pytest.approx(fluency)


def test_what_is_usual_counts_as_fluent():
    half = Language(["a b c"], orders=(2,), usual=0.5)
    assert half.fluency("a b x y") == pytest.approx((2 / 5 / 0.5) ** 5)  # ^a, ab known; bx, xy, y$ not
    assert half.fluency("a b c d") == 1.0  # ^a, ab, bc of 5


def test_six_words_said_again_are_repetition():
    assert distinct(["a b c d e f g"]) == 1.0
    assert distinct(["a b a b a b a b a b"]) == pytest.approx(4 / 7)  # ^babab.., ababab, bababa, babab$


@pytest.mark.parametrize(
    "response, finish_reason, value",
    [
        ("Yes.", "eos", 1.0),
        ("Yes! ", "eos", 1.0),
        ("Yes", "eos", 0.0),
        ("Yes.", "length", 0.0),
        ("", "eos", 0.0),
    ],
)
def test_a_proper_end(response, finish_reason, value):
    assert ended(completion(response, finish_reason)) == value


def test_sentences_and_words():
    assert split_sentences("One. Two! Three") == ["One.", "Two!", "Three"]
    assert word_count("It's one, two - three.") == 4


@given(st.floats(-10, 10), st.floats(-5, 5), st.floats(0.1, 5))
def test_a_ramp_goes_from_0_to_1_either_way(x, zero, width):
    for one in (zero + width, zero - width):
        assert 0.0 <= ramp(x, zero, one) <= 1.0
        assert (ramp(zero, zero, one), ramp(one, zero, one)) == (0.0, 1.0)


@given(st.text(max_size=80))
def test_any_text_has_a_fluency(text):
    assert 0.0 <= CATS.fluency(text) <= 1.0
