"""Arithmetic-v0: which numbers are right, sums and their working, and files in GSM8K's shape."""

import gzip
import json

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import text_envs  # noqa: F401 (registers)
from reward_models import Completion
from text_envs import PromptError
from text_envs.tasks.arithmetic import (
    QUALITY_SHARES,
    AnswerJudge,
    demonstrations,
    prompts,
    tokenizer,
    write,
)

numbers = st.integers(0, 10**6)


def score(response, answer, **kwargs):
    (value,) = AnswerJudge(**kwargs)([Completion("", response, (), (), "eos", {"answer": answer})])
    return value


# --- the judge


@pytest.mark.parametrize(
    "response, answer, reward",
    [
        (" 65", "65", 1.0),
        ("65", "65", 1.0),
        (" 065", "65", 1.0),
        (" 65.", "65", 1.0),
        (" 66", "65", 0.0),
        (" 65 66", "65", 0.0),  # no guessing twice
        ("", "65", 0.0),
        (" -", "65", 0.0),
        (" 7+8=15, 1+4+1=6 #### 65", "65", 1.0),
        (" 7+8=15, 1+4+1=6", "65", 0.0),
        (" #### 65 #### 66", "65", 0.0),  # the last one counts
        (" She pays $1,080.50. #### $1,080.50", "1080.5", 1.0),
        (" #### -3", "-3", 1.0),
        (" ####", "3", 0.0),
    ],
)
def test_the_number_must_be_exact(response, answer, reward):
    assert score(response, answer) == reward


@pytest.mark.parametrize(
    "response, reward",
    [(" 65", 1.0), (" 64", 0.25), (" 165", 1 / 3), (" 5", 0.25), (" 10", 0.0), (" x", 0.0)],
)
def test_partial_credit_is_half_the_share_of_digits_from_the_last_one(response, reward):
    assert score(response, "65", partial_credit=True) == pytest.approx(reward)


@given(st.text(max_size=30), numbers)
def test_any_text_gets_a_score_and_partial_credit_only_adds(text, answer):
    strict, kind = (score(text, str(answer), partial_credit=credit) for credit in (False, True))
    assert strict in (0.0, 1.0) and strict <= kind <= 1.0


def test_an_answer_that_is_no_number_is_named():
    with pytest.raises(ValueError, match="'many' is no number"):
        score(" 3", "many")


# --- sums


def test_working_goes_column_by_column_from_the_units():
    rng = np.random.default_rng(0)
    assert write(rng, 17, 48, "right", chain=True) == "7+8=15, 1+4+1=6 #### 65"
    assert write(rng, 5, 98, "right", chain=True) == "5+8=13, 0+9+1=10 #### 103"
    assert write(rng, 17, 48, "no_carry", chain=True) == "7+8=15, 1+4=5 #### 55"
    assert write(rng, 17, 48, "right", chain=False) == "65"


@given(numbers, numbers, st.booleans(), st.integers(0, 99))
def test_only_a_right_demonstration_is_right(a, b, chain, seed):
    rng = np.random.default_rng(seed)
    assert score(write(rng, a, b, "right", chain), str(a + b)) == 1.0
    assert score(write(rng, a, b, "slip", chain), str(a + b)) == 0.0


def test_no_sum_is_in_both_splits_in_either_order():
    train, held_out = (
        {tuple(sorted(int(n) for n in row["prompt"].rstrip(" =").split(" + "))) for row in prompts(split)}
        for split in ("train", "held_out")
    )
    assert len(prompts("train")) == 4000 and len(prompts("held_out")) == 1000
    assert not train & held_out


def test_digits_are_a_range():
    sums = [row["prompt"].rstrip(" =").split(" + ") for row in prompts(digits=(3, 4))]
    assert {len(n) for pair in sums for n in pair} == {3, 4}
    assert all(len(n) == 1 for row in prompts(digits=(1, 1)) for n in row["prompt"].rstrip(" =").split(" + "))


def test_demonstrations_are_of_mixed_quality_and_fixed_by_their_seed():
    rows = demonstrations(n=2000, seed=1)
    assert rows == demonstrations(n=2000, seed=1) != demonstrations(n=2000, seed=2)
    for quality, share in QUALITY_SHARES.items():
        assert np.mean([row["quality"] == quality for row in rows]) == pytest.approx(share, abs=0.04)
    right = [score(row["response"], row["answer"]) for row in rows]
    assert 0.6 < np.mean(right) < 0.8  # some sums have nothing to carry


def test_each_digit_is_a_token_and_everything_fits():
    assert tokenizer().tokenize("17 + 48") == ["1", "7", *tokenizer().tokenize(" +"), "Ġ", "4", "8"]
    for kwargs in ({}, {"chain": False}, {"digits": (3, 5), "chain": True}):
        env = gym.make("text_envs/Arithmetic-v0", **kwargs).unwrapped
        rows = demonstrations(n=500, **kwargs)
        asked, answered = (
            tokenizer()([row[name] for row in rows])["input_ids"] for name in ("prompt", "response")
        )
        assert max(map(len, asked)) <= env.max_prompt_tokens
        assert max(map(len, answered)) < env.max_new_tokens  # and EOS
        for row, one, other in zip(rows[:50], asked, answered):
            assert tokenizer()(row["prompt"] + row["response"])["input_ids"] == one + other


def test_an_episode():
    env = gym.make("text_envs/Arithmetic-v0", split="held_out").unwrapped
    env.reset(seed=0, options={"prompt": {"prompt": "17 + 48 =", "answer": "65"}})
    steps = [env.step(token) for token in [*tokenizer()(" 65")["input_ids"], 1]]
    assert [step[1] for step in steps] == [0.0, 0.0, 0.0, 1.0] and steps[-1][2]
    assert env.optimum == 1.0


# --- files

GSM8K = [
    {"question": "How much is 6 times 7?", "answer": "6 * 7 = <<6*7=42>>42\n#### 42"},
    {"question": "How far?", "answer": "Far. #### 1,080"},
]


def write_file(path, rows):
    with gzip.open(path, "wt") if path.suffix == ".gz" else open(path, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


@pytest.mark.parametrize("name", ["questions.jsonl", "questions.jsonl.gz"])
def test_a_file_of_questions(tmp_path, name):
    rows = [{**row, "question": f"{i}: {row['question']}"} for i in range(20) for row in GSM8K]
    file = write_file(tmp_path / name, rows)
    train, held_out = prompts("train", file=file), prompts("held_out", file=file)
    assert len(train) + len(held_out) == 40 and len(held_out) > 0
    assert {row["answer"] for row in train} == {"42", "1080"}
    assert train[0]["prompt"].endswith("times 7?\nAnswer:")
    assert all(score(row["response"], row["answer"]) == 1.0 for row in demonstrations(n=9, file=file))
    env = gym.make("text_envs/Arithmetic-v0", file=str(file), max_new_tokens=64).unwrapped
    env.reset(seed=0)
    for token in [*tokenizer()(" It is #### 42")["input_ids"], 1]:
        _, reward, _, _, info = env.step(token)
    assert reward == float(info["completion"].columns["answer"] == "42")


@pytest.mark.parametrize(
    "row, message",
    [
        ({"question": "How many?", "answer": "Some."}, r"line 2, has the answer 'Some.'.*after ####"),
        ({"question": "How many?", "answer": "#### some"}, "line 2, has the answer '#### some'"),
        (
            {"question": "How many?", "reply": "#### 3"},
            r"line 2, has not the strings.*\['question', 'reply'\]",
        ),
        ([1], "line 2, has not the strings"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_by_its_line(tmp_path, row, message):
    file = write_file(tmp_path / "questions.jsonl", [GSM8K[0], row])
    with pytest.raises(PromptError, match=message):
        gym.make("text_envs/Arithmetic-v0", file=file)


def test_the_real_gsm8k(data):
    rows = prompts("held_out", file=data / "demos" / "gsm8k" / "test.jsonl.gz")
    assert len(rows) > 150
    assert all(score(row["response"], row["answer"]) == 1.0 for row in rows)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"split": "test"}, "no split 'test'"),
        ({"digits": (3, 2)}, r"digits=\(3, 2\)"),
        ({"digits": (0, 2)}, r"digits=\(0, 2\)"),
        ({"digits": (1, 2, 3)}, "two integers"),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        gym.make("text_envs/Arithmetic-v0", **kwargs)
