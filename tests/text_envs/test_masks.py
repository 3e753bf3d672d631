import numpy as np
import pytest

from tests.text_envs.helpers import letter_env, letter_vector_env, play


def test_a_list_of_ids_and_strings():
    env = letter_env(allowed_tokens=[0, "c", 7], max_new_tokens=2)
    _, info = env.reset(seed=0)
    assert env.masks_actions
    assert np.flatnonzero(env.action_masks()).tolist() == [0, 2, 7]
    assert np.array_equal(info["action_mask"], env.action_masks())


def test_without_restriction_all_is_legal_and_infos_are_silent():
    env = letter_env()
    assert not env.masks_actions
    assert env.reset(seed=0)[1] == {}
    assert env.action_masks().tolist() == [True] * 8


def only_the_successor(batch):
    last = batch.input_ids[np.arange(len(batch)), batch.lengths - 1]
    return np.eye(8, dtype=bool)[(last + 1) % 8]


def test_a_function_of_the_tokens_so_far():
    env = letter_vector_env(2, ["a", "c"], allowed_tokens=only_the_successor, max_new_tokens=3)
    env.reset(options={"prompt": ["a", "c"]})
    assert [np.flatnonzero(mask).tolist() for mask in env.action_masks()] == [[1], [3]]
    infos = env.step(np.array([1, 3]))[4]
    assert [np.flatnonzero(mask).tolist() for mask in infos["action_mask"]] == [[2], [4]]
    assert infos["_action_mask"].tolist() == [True, True]


def test_the_last_info_has_no_mask():
    env = letter_env(allowed_tokens=[1], max_new_tokens=2)
    infos = [step[4] for step in play(env, [1, 1])]
    assert [list(info) for info in infos] == [["action_mask"], ["completion"]]


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda batch: np.zeros((len(batch), 8), dtype=bool), "episode 0 no token after"),
        (lambda batch: np.ones(8, dtype=bool), r"shape \(8,\)"),
        (lambda batch: np.ones((len(batch), 8)), "float64"),
    ],
)
def test_a_function_must_leave_a_token_of_each_row(function, message):
    with pytest.raises(ValueError, match=message):
        letter_env(allowed_tokens=function).reset(seed=0)
