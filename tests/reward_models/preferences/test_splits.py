"""Splits go by prompt, and depend on nothing but the prompts and the seed."""

import random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_models.preferences import Comparison
from reward_models.preferences.records import RecordError
from reward_models.preferences.splits import folds, split

PROMPTS = st.lists(st.text("abcde ", max_size=6), min_size=1, max_size=40)


def pairs(prompts):
    return [Comparison(prompt, ("a", "b"), "left", reason=str(i)) for i, prompt in enumerate(prompts)]


def same(prompt):
    return " ".join(prompt.split()).lower()


@settings(max_examples=100, deadline=None)
@given(PROMPTS, st.floats(0.05, 0.95), st.integers(0, 5), st.randoms(use_true_random=False))
def test_no_prompt_stands_on_both_sides_and_order_changes_nothing(prompts, share, seed, order):
    records = pairs(prompts)
    if len({same(prompt) for prompt in prompts}) < 2:
        with pytest.raises(RecordError, match="cannot be split by prompt"):
            split(records, share, seed)
        return
    train, held_out = split(records, share, seed)
    assert train and held_out
    assert not {same(r.prompt) for r in train} & {same(r.prompt) for r in held_out}
    assert [r for r in records if r in train] == train
    assert sorted(r.reason for r in train + held_out) == sorted(r.reason for r in records)
    shuffled = records[:]
    order.shuffle(shuffled)
    again = split(shuffled, share, seed)
    assert [sorted(r.reason for r in part) for part in again] == [
        sorted(r.reason for r in part) for part in (train, held_out)
    ]


@settings(max_examples=50, deadline=None)
@given(PROMPTS, st.integers(2, 5), st.randoms(use_true_random=False))
def test_each_record_is_tested_once_and_never_beside_its_prompt(prompts, k, order):
    records = pairs(prompts)
    if len({same(prompt) for prompt in prompts}) < k:
        return
    parts = folds(records, k)
    assert sorted(r.reason for _, test in parts for r in test) == sorted(r.reason for r in records)
    for train, test in parts:
        assert test and len(train) + len(test) == len(records)
        assert not {same(r.prompt) for r in train} & {same(r.prompt) for r in test}
    order.shuffle(records)
    shuffled = folds(records, k)
    assert [sorted(r.reason for r in test) for _, test in shuffled] == [
        sorted(r.reason for r in test) for _, test in parts
    ]


def test_a_prompt_keeps_its_side_when_others_come():
    early = pairs(map(str, range(200)))
    held_out = {r.prompt for r in split(early)[1]}
    later = {r.prompt for r in split(early + pairs(map(str, range(200, 400))))[1]}
    assert held_out == {prompt for prompt in later if int(prompt) < 200}


def test_the_share_and_the_seed_are_kept_to():
    records = pairs(map(str, range(2000)))
    assert 170 <= len(split(records, 0.1)[1]) <= 230
    assert {r.prompt for r in split(records, 0.1, seed=1)[1]} != {r.prompt for r in split(records, 0.1)[1]}
    assert [len(test) for _, test in folds(records, 5)] == [400] * 5


def test_prompts_that_differ_in_case_space_or_form_are_one():
    records = pairs(["What IS it?", "what  is\nit?", "Ｗhat is it?", "other"])
    train, held_out = split(records, 0.5)
    assert sorted(map(len, (train, held_out))) == [1, 3]


def test_folds_are_even_though_prompts_are_not():
    records = pairs(["big"] * 6 + ["middle"] * 4 + ["small"] * 2)
    random.Random(0).shuffle(records)
    assert [len(test) for _, test in folds(records, 2)] == [6, 6]


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, 2.0])
def test_a_share_lies_between_0_and_1(share):
    with pytest.raises(RecordError, match="between 0 and 1"):
        split([SimpleNamespace(prompt="a"), SimpleNamespace(prompt="b")], share)


@pytest.mark.parametrize("k", [1, 3])
def test_there_are_as_many_prompts_as_folds(k):
    with pytest.raises(RecordError, match=f"k is {k}, and there are 2 prompts"):
        folds(pairs(["a", "b"]), k)
