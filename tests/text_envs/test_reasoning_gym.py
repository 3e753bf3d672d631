"""ReasoningGym-v0: data sets by name, their verifiers, their splits, and what is said when something is missing."""

import pickle
import sys

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("reasoning_gym", reason="needs the extra [tasks]")

import text_envs  # noqa: F401 (registers)
from reward_models import Completion
from text_envs.tasks.reasoning_gym import Verifier, demonstrations, prompts

SMALL = dict(size=30, config={"min_animals": 1, "max_animals": 2, "max_instances": 3})


def completion(response, row):
    return Completion(row["prompt"], response, (), (), "eos", {"entry": row["entry"]})


def test_the_data_set_of_that_name_with_its_own_answers():
    row = prompts(**SMALL)[0]
    legs = row["entry"]["metadata"]["total_legs"]
    assert "how many legs" in row["prompt"] and row["prompt"].endswith("\nAnswer:")
    judge = Verifier("leg_counting")
    responses = [f" {legs}", f" {legs + 1}", "", f"I add up. <answer> {legs} </answer>"]
    assert judge([completion(response, row) for response in responses]) == [1.0, 0.0, 0.0, 1.0]


def test_verifiers_of_other_data_sets_judge_too():
    for name in ("spell_backward", "number_sorting", "basic_arithmetic"):
        row = prompts(dataset=name, size=3)[0]
        right, wrong = completion(f" {row['entry']['answer']}", row), completion(" \x00(", row)
        scores = Verifier(name)([right, wrong])
        assert scores[0] == 1.0 and 0.0 <= scores[1] < 1.0


def test_an_answer_on_which_the_verifier_fails_is_wrong(monkeypatch):
    judge = Verifier("leg_counting")
    monkeypatch.setattr(judge, "verify", lambda answer, entry: 1 / 0)
    assert judge([completion(" 3", prompts(**SMALL)[0])]) == [0.0]


def test_a_copied_verifier_judges_alike():
    row, judge = prompts(**SMALL)[0], pickle.loads(pickle.dumps(Verifier("leg_counting")))
    assert judge([completion(row["entry"]["answer"], row)]) == [1.0]


def test_splits_come_from_their_seeds_and_share_no_question():
    train, held_out = (prompts(split, **SMALL) for split in ("train", "held_out"))
    assert train == prompts("train", **SMALL) != prompts("train", seed=1, **SMALL)
    assert held_out
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in held_out}


def test_both_splits_have_the_same_spaces():
    train, held_out = (
        gym.make("text_envs/ReasoningGym-v0", split=split, **SMALL) for split in ("train", "held_out")
    )
    assert train.observation_space == held_out.observation_space
    assert train.action_space == held_out.action_space


def test_demonstrations_are_half_right_and_fixed_by_their_seed():
    rows = demonstrations(n=400, seed=1, **SMALL)
    assert rows == demonstrations(n=400, seed=1, **SMALL) != demonstrations(n=400, seed=2, **SMALL)
    right = Verifier("leg_counting")([completion(row["response"], row) for row in rows])
    assert np.mean([row["quality"] == "right" for row in rows]) == pytest.approx(0.5, abs=0.1)
    assert all(score == 1.0 for row, score in zip(rows, right) if row["quality"] == "right")
    assert np.mean(right) < 0.7


def test_an_episode():
    env = gym.make("text_envs/ReasoningGym-v0", **SMALL).unwrapped
    env.reset(seed=0)
    answer = env.episodes.prompts[0].columns["entry"]["answer"]
    for token in [*env.tokenizer(f" {answer}")["input_ids"], 1]:
        _, reward, terminated, _, _ = env.step(token)
    assert terminated and reward == env.optimum == 1.0


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"dataset": "leg_count"}, "'leg_count' is none of the .* data sets.*Close to it are: leg_counting"),
        ({"config": {"nonsense": 1}}, "'nonsense'"),
        ({"config": {"max_animals": 1}}, "max_animals must be"),
        ({"split": "test"}, "no split 'test'"),
        (
            {
                "split": "held_out",
                "size": 200,
                "config": {"min_animals": 1, "max_animals": 1, "max_instances": 1},
            },
            "so few questions",
        ),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        gym.make("text_envs/ReasoningGym-v0", **{"size": 20, **kwargs})


def test_without_the_package_the_install_line_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ImportError, match=r"pip install 'text-envs\[tasks\]'"):
        gym.make("text_envs/ReasoningGym-v0", size=21)
