"""Sentiment, overlap and repetition: on sentences one can judge, and against people's ratings."""

import gzip
import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models import Completion, RewardError, make, score
from reward_models.lexical import longest_common_subsequence
from reward_models.sentiment_words import INTENSIFIERS, NEGATIONS, VALENCE


def judge(spec, *responses, **kwargs):
    return score(make(spec, **kwargs), [Completion("p", text) for text in responses]).tolist()


def rouge(response, reference):
    return score(make("rouge_l"), [Completion("p", response, columns={"reference": reference})])[0]


def test_sentiment_orders_sentences_as_people_do():
    worst_to_best = [
        "The worst, most horrible film ever.",
        "It was not good.",
        "It is a film.",
        "It was somewhat good.",
        "It was good.",
        "It was very good!",
        "I love it, a brilliant and beautiful film",
    ]
    scores = judge("sentiment", *worst_to_best)
    assert scores == sorted(scores) and len(set(scores)) == len(scores)
    assert scores[2] == 0.0 and scores[0] < -0.6 and scores[-1] > 0.6


def test_sentiment_formula():
    """good = 2, very adds 0.3, not times -0.74, "but" halves before and adds half after; x / sqrt(x^2 + 15)."""

    def normal(x):
        return x / np.sqrt(x * x + 15)

    expected = [normal(2.0), normal(2.3), normal(-1.48), normal(0.5 * 2 - 1.5 * 2)]
    assert judge("sentiment", "good", "very good", "isn’t it good", "good but bad") == pytest.approx(expected)


def test_sentiment_knows_inflected_forms():
    forms = "loved loving loves loveliest happily happiest grinned disgusting thrills worries failed"
    assert 0.0 not in judge("sentiment", *forms.split())
    assert judge("sentiment", "table", "the", "", "12", "\ud800") == [0.0] * 5
    assert judge("sentiment", "zorp", words={"Zorp": 3.0})[0] > 0.5


@given(st.text())
def test_sentiment_is_always_inside_its_range(text):
    assert -1 < judge("sentiment", text)[0] < 1


def test_lexicon_is_consistent():
    assert not {word for word in VALENCE if word != word.lower()}
    assert len(VALENCE) > 600 and {np.sign(value) for value in VALENCE.values()} == {-1.0, 1.0}
    assert not set(INTENSIFIERS) & set(VALENCE) and "not" in NEGATIONS


def spearman(a, b):
    ranks = []
    for values in (a, b):
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[inverse])
    return np.corrcoef(*ranks)[0, 1]


@pytest.mark.parametrize(("name", "floor"), [("vader_tweets", 0.75), ("vader_movie", 0.50)])
def test_sentiment_agrees_with_people(data, name, floor):
    """Spearman with the mean of 10 to 20 raters. Measured: tweets 0.79, film reviews 0.54."""
    file = data / "ratings" / name / "train.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"no ratings at {file}")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert (
        spearman(judge("sentiment", *(row["text"] for row in rows)), [row["score"] for row in rows]) > floor
    )


def test_vader_is_in_its_range_and_caps_the_length():
    pytest.importorskip("vaderSentiment")
    good, bad, nothing = judge("vader", "I love it!", "I hate it!", "")
    assert -1 <= bad < -0.3 < nothing == 0.0 < 0.3 < good <= 1
    started = time.monotonic()
    judge("vader", "😀" * 200_000)
    assert time.monotonic() - started < 10
    assert judge("vader", "I love it. " + "x" * 20 + " hate", max_characters=12)[0] > 0.3


def test_rouge_l_by_hand():
    """Lin (2004), section 3: "police kill the gunman" shares 2 words in order, "the gunman police killed" 2 of 4."""
    reference = "Police killed the gunman"
    assert rouge("police kill the gunman", reference) == pytest.approx(3 / 4)
    assert rouge("the gunman kill police", reference) == pytest.approx(2 / 4)
    assert rouge("police", reference) == pytest.approx(2 * 1 * 0.25 / 1.25)
    assert rouge("", reference) == rouge("police", "") == 0.0
    assert rouge("the gunman", ["nothing like it", "The gunman!"]) == 1.0


words = st.lists(st.sampled_from("abcd"), max_size=80)


@given(words, words)
def test_longest_common_subsequence_equals_the_table(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
    assert longest_common_subsequence(a, b) == table[-1, -1]


def test_rouge_l_of_long_texts_is_fast():
    started = time.monotonic()
    rouge("a b c d e f g h " * 5000, "h g f e d c b a " * 5000)
    assert time.monotonic() - started < 5


def test_missing_reference_is_named():
    with pytest.raises(RewardError, match="rouge_l needs the column 'reference'"):
        judge("rouge_l", "a")


def test_repetition_and_distinct_n():
    """The bigrams of "a b a b a" are ab ba ab ba: 2 of 4 are distinct."""
    assert judge("distinct_n", "a b a b a", "a b c", "a", "") == [0.5, 1.0, 0.0, 0.0]
    assert judge("repetition", "a b a b a", "a b c", "a", "") == [-0.5, 0.0, 0.0, 0.0]
    assert judge("distinct_n", "aaaa", n=1, unit="characters") == [0.25]
    tokens = [Completion("", "", (), (3, 3, 3, 4))]
    assert score(make("repetition", n=1, unit="tokens"), tokens).tolist() == [-0.5]
    for spec in ("repetition", "distinct_n"):
        with pytest.raises(RewardError, match=f"{spec}: n is 0"):
            make(spec, n=0)
