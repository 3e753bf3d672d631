import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from text_envs import TokenBatch

rows = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=4)


def test_a_row_by_hand():
    batch = TokenBatch(2, 5, filler_id=7)
    batch.start(np.array([0, 1]), [np.array([1, 2]), np.array([3])])
    batch.append(np.array([1]), np.array([4]))
    batch.append(np.array([1]), np.array([5]), chosen=False)
    assert batch.input_ids.tolist() == [[1, 2, 7, 7, 7], [3, 4, 5, 7, 7]]
    assert batch.attention_mask.tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]
    assert batch.action_mask.tolist() == [[False] * 5, [False, True, False, False, False]]
    assert batch.lengths.tolist() == [2, 3]
    assert batch.response_lengths.tolist() == [0, 2]
    assert batch.response(1) == [4, 5]


@given(first=rows, second=rows)
def test_a_restarted_row_remembers_nothing(first, second):
    n = max(len(first), len(second))
    used, fresh = TokenBatch(n, 6), TokenBatch(n, 6)
    used.start(np.arange(len(first)), [np.array(ids) for ids in first])
    used.append(np.arange(len(first)), np.ones(len(first), dtype=int))
    used.start(np.arange(n), [np.array(ids) for ids in (second * n)[:n]])
    fresh.start(np.arange(n), [np.array(ids) for ids in (second * n)[:n]])
    for name in ("input_ids", "attention_mask", "action_mask", "lengths", "prompt_lengths"):
        assert np.array_equal(getattr(used, name), getattr(fresh, name))


def test_observations_are_copies():
    batch = TokenBatch(1, 3)
    batch.start(np.array([0]), [np.array([1])])
    batch.observation()["input_ids"][:] = 9
    batch.observations(np.array([0]))[0]["attention_mask"][:] = 9
    assert batch.input_ids.tolist() == [[1, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 0, 0]]
