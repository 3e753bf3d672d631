"""Each rule on texts whose score one can say."""

import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models import Completion, RewardError, make, score


def judge(spec, *responses, **kwargs):
    return score(make(spec, **kwargs), [Completion("p", text) for text in responses]).tolist()


def answered(response, answer, **kwargs):
    return score(make("exact_answer", **kwargs), [Completion("p", response, columns={"answer": answer})])[0]


def test_length_falls_linearly_from_the_target():
    assert judge("length", "a b c d", "a b c", "a b c d e f g h i", "", target=4) == [1.0, 0.75, 0.0, 0.0]
    assert judge("length", "abcd", "ab", target=4, unit="characters", spread=2) == [1.0, 0.0]
    assert judge("length", "", "a", target=0) == [1.0, 0.0]
    tokens = score(
        make("length", target=2, unit="tokens"), [Completion("", "", (), (4, 5)), Completion("", "x y")]
    )
    assert tokens.tolist() == [1.0, 0.0]


def test_keywords_match_whole_words_in_any_case():
    responses = ["Refund or RETURN it", "refunded", "we return\nthe  money back", ""]
    assert judge("keywords", *responses, words=["refund", "return"]) == [1.0, 0.0, 0.5, 0.0]
    assert judge("keywords", responses[2], words=["the money"]) == [1.0]
    assert judge("keywords", "a refund", "an idiot", words=["refund"], forbidden=["idiot", "fool"]) == [
        1.0,
        -0.5,
    ]
    assert judge("keywords", "C++ is it", "c-- is it", words=["c++"]) == [1.0, 0.0]
    assert judge("keywords", "Yes", "yes", words=["Yes"], case_sensitive=True) == [1.0, 0.0]


def test_pattern_searches_or_matches_the_whole():
    assert judge("pattern", "call 555 now", "555", "none", regex=r"\d{3}") == [1.0, 1.0, 0.0]
    assert judge("pattern", "call 555 now", "555", regex=r"\d{3}", full=True) == [0.0, 1.0]


def test_pattern_that_explodes_is_stopped():
    slow = dict(regex=r"(a|aa|a?)+$", timeout=0.2)
    text = "a" * 60 + "b"
    started = time.monotonic()
    with pytest.raises(RewardError, match=r"ran longer than 0.2 s on completion 1 of 2"):
        judge("pattern", "b", text, **slow)
    assert judge("pattern", "aaa", text, on_timeout=-1.0, **slow) == [1.0, -1.0]
    assert judge("exact_answer", extract=slow["regex"], timeout=0.2) == []
    assert answered(text, "b", extract=slow["regex"], timeout=0.2) == 0.0
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("response", "answer", "expected"),
    [
        ("Paris", "paris", 1.0),
        (" Paris. ", "Paris", 1.0),
        ("Lyon", "Paris", 0.0),
        ("1,000", 1000, 1.0),
        ("0.50", 0.5, 1.0),
        ("7", ["six", "7"], 1.0),
        ("", "", 1.0),
        ("nan", "0", 0.0),
    ],
)
def test_exact_answer(response, answer, expected):
    assert answered(response, answer) == expected


def test_exact_answer_is_extracted_from_response_and_reference():
    gsm8k = "First 3, then 4.\n#### 1,234"
    assert answered("I think\n#### 12\nno\n#### 1234", gsm8k, extract=r"####\s*(.+)") == 1.0
    assert answered("I think 1234", gsm8k, extract=r"####\s*(.+)") == 0.0
    assert answered("it is 42, surely", 42, extract=r"\d+") == 1.0


def test_missing_answer_names_the_prompt_and_its_columns():
    with pytest.raises(
        RewardError, match=r"column 'answer', .* prompt 'p', whose columns are \['solution'\]"
    ):
        score(make("exact_answer"), [Completion("p", "r", columns={"solution": 1})])


@pytest.mark.parametrize("name", ["exact_answer", "rouge_l"])
def test_a_reference_is_a_text_a_number_or_a_list_of_these(name):
    def judged(reference):
        return score(make(name, column="x"), [Completion("p", "seven", columns={"x": reference})])[0]

    assert judged("seven") == judged(["six", "seven"]) == judged(np.array(["seven"])) == 1.0
    assert judged(7) == judged(7.5) == judged([]) == 0.0
    with pytest.raises(RewardError, match=f"{name} needs a text, .* holds {{'seven': 1}}"):
        judged({"seven": 1})


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_what_json_writes_is_valid(value):
    assert judge("json", json.dumps(value)) == [1.0]


def test_json_is_strict_and_survives_attacks():
    responses = ["", "NaN", "{'a': 1}", '{"a": 1} ok', "[1,]", "[" * 200_000, "9" * 10_000]
    assert judge("json", *responses) == [0.0] * 6 + [1.0]
    assert judge("json", '{"a": 1, "b": 2}', '{"a": 1}', '["a", "b"]', keys=["a", "b"]) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("spec", "kwargs", "says"),
    [
        ("length", dict(target=3, unit="bytes"), "unit is 'bytes'"),
        ("length", dict(target=-1), "target -1"),
        ("length", dict(target=float("nan")), "target nan"),
        ("keywords", dict(words="refund"), "words is 'refund'. Give a list"),
        ("keywords", dict(words=[""]), "Give a list of words"),
        ("keywords", {}, "no words to look for"),
        ("pattern", dict(regex="("), r"'\(' is not a regular expression"),
        ("pattern", dict(regex="a", timeout=0), "timeout is 0"),
        ("exact_answer", dict(extract="["), "is not a regular expression"),
        ("json", dict(keys="a"), "keys is 'a'"),
    ],
)
def test_mistakes_are_named(spec, kwargs, says):
    with pytest.raises(RewardError, match=says):
        make(spec, **kwargs)
