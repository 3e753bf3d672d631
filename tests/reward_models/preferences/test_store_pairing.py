"""Which answers are put beside one another: on pools so small that every pair can be named."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models.preferences import pairing
from reward_models.preferences.store import FeedbackError, FeedbackStore, Sample

TWO = [("p", [(1, "a"), (2, "b"), (3, "c"), (4, "d")]), ("q", [(5, "a"), (6, "b")])]
ALL = [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4), (5, 6)]

pools = st.lists(st.lists(st.sampled_from("abcd"), max_size=5), max_size=4).map(
    lambda texts: [
        (f"p{i}", [(10 * i + j, text) for j, text in enumerate(answers)]) for i, answers in enumerate(texts)
    ]
)


def test_random_pairs_each_sample_once():
    pairs = pairing.comparisons(TWO, "random", None, seed=0)
    assert sorted(sample for pair in pairs for sample in pair) == [1, 2, 3, 4, 5, 6]


def test_random_pairs_up_to_n_take_turns_over_prompts():
    pairs = pairing.comparisons(TWO, "random", 2, seed=0)
    assert sorted(pair[0] > 4 for pair in pairs) == [False, True]
    assert sorted(pairing.comparisons(TWO, "random", 100, seed=0)) == ALL


def test_the_seed_decides():
    choices = [tuple(pairing.comparisons(TWO, "random", None, seed)) for seed in range(20)]
    assert choices == [tuple(pairing.comparisons(TWO, "random", None, seed)) for seed in range(20)]
    assert len(set(choices)) > 5


def test_all_pairs():
    assert sorted(pairing.comparisons(TWO, "all", None, seed=0)) == ALL
    assert len(pairing.comparisons(TWO, "all", 3, seed=0)) == 3


@given(pools, st.sampled_from(["random", "all"]), st.none() | st.integers(1, 12), st.integers(0, 3))
def test_pairs_are_of_one_prompt_differ_and_come_once(pool, how, n, seed):
    pairs = pairing.comparisons(pool, how, n, seed)
    text = {sample: (prompt, answer) for prompt, answers in pool for sample, answer in answers}
    assert len(set(pairs)) == len(pairs) <= (n or len(pairs))
    for first, second in pairs:
        assert first < second
        assert text[first][0] == text[second][0] and text[first][1] != text[second][1]
    possible = sum(a != b for _, answers in pool for (_, a), (_, b) in combinations(answers, 2))
    if how == "all" or n is not None:
        assert len(pairs) == min(possible, n or possible)


class TestUncertain:
    def matrix(self, prompt, responses):
        """Judges disagree most about what stands last."""
        k = len(responses)
        return np.array([[10 * i + j for j in range(k)] for i in range(k)], dtype=float)

    def test_the_most_disputed_pairs_without_a_random_share(self):
        pairs = pairing.comparisons(TWO, "uncertain", 2, 0, self.matrix, random_share=0)
        assert sorted(pairs) == [(2, 4), (3, 4)]  # 13 and 23; the next is (2, 3) with 12

    def test_a_flat_array_in_the_order_of_combinations(self):
        def flat(prompt, responses):
            return [responses == ["a", "b"] and 1.0] if len(responses) == 2 else [0, 0, 5, 0, 0, 0]

        pairs = pairing.comparisons(TWO, "uncertain", 2, 0, flat, random_share=0)
        assert sorted(pairs) == [(1, 4), (5, 6)]

    def test_a_fifth_is_random_by_default(self):
        pool = [(f"p{i}", [(2 * i, "a"), (2 * i + 1, "b")]) for i in range(100)]
        disputed = {f"p{i}" for i in range(50)}
        seen = Counter()
        for seed in range(20):
            pairs = pairing.comparisons(
                pool, "uncertain", 50, seed, lambda prompt, _: [float(prompt in disputed)]
            )
            assert len(set(pairs)) == 50
            seen["certain"] += sum(first >= 100 for first, _ in pairs)
        # 40 are the most disputed. Of the other 10, drawn from the 60 left, 50/60 are certain: 8.3 a time.
        assert 7.3 < seen["certain"] / 20 < 9.3

    def test_without_n_as_many_as_random(self):
        assert len(pairing.comparisons(TWO, "uncertain", None, 0, self.matrix)) == 3

    @pytest.mark.parametrize(
        ("returned", "says"),
        [
            ([1.0, 2.0], r"shape \(2,\) for 4 responses to 'p'.*shape \(4, 4\), or one for each of the 6"),
            (np.full((4, 4), np.nan), "finite"),
        ],
    )
    def test_a_wrong_answer_is_refused(self, returned, says):
        with pytest.raises(FeedbackError, match=says):
            pairing.comparisons(TWO, "uncertain", None, 0, lambda prompt, responses: returned)

    def test_it_is_asked_with_the_texts(self, quick_path):
        asked = []

        def uncertainty(prompt, responses):
            asked.append((prompt, responses))
            return np.ones((3, 3))

        with FeedbackStore(quick_path / "feedback.db") as store:
            store.add_samples([Sample("p", text) for text in "abc"])
            store.request_comparisons(overlap=1, pairing="uncertain", uncertainty=uncertainty, n=2)
            assert asked == [("p", ["a", "b", "c"])]
            assert len(store.items()) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"pairing": "best"}, "no pairing 'best'"),
        ({"pairing": "uncertain"}, "needs uncertainty"),
        ({"uncertainty": lambda prompt, responses: []}, "takes no uncertainty"),
        ({"pairing": "uncertain", "uncertainty": TestUncertain().matrix, "random_share": 2}, "from 0 to 1"),
    ],
)
def test_arguments_that_make_no_sense(quick_path, arguments, says):
    with FeedbackStore(quick_path / "feedback.db") as store:
        store.add_samples([Sample("p", text) for text in "ab"])
        with pytest.raises(FeedbackError, match=says):
            store.request_comparisons(overlap=1, **arguments)


class TestRankings:
    def test_groups_of_k_different_texts(self):
        pool = [("p", [(1, "a"), (2, "a"), (3, "b"), (4, "c"), (5, "d"), (6, "e")]), ("q", [(7, "a")])]
        (group,) = pairing.rankings(pool, 3, None, seed=0)
        texts = {1: "a", 2: "a", 3: "b", 4: "c", 5: "d", 6: "e"}
        assert group == tuple(sorted(group)) and len({texts[sample] for sample in group}) == 3

    def test_each_sample_in_one_group(self):
        pool = [("p", [(i, str(i)) for i in range(8)])]
        groups = pairing.rankings(pool, 4, None, seed=0)
        assert sorted(sample for group in groups for sample in group) == list(range(8))
        assert len(pairing.rankings(pool, 4, 1, seed=0)) == 1


def test_singles_in_random_order():
    assert sorted(pairing.singles(TWO, None, 0)) == [(i,) for i in range(1, 7)]
    assert len(pairing.singles(TWO, 4, 0)) == 4
    assert pairing.singles(TWO, None, 0) != pairing.singles(TWO, None, 1)
