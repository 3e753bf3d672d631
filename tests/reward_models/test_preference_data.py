"""Comparisons and rankings become groups: one form, each response once."""

import pytest
import torch

from reward_models.encoding import CompletionEncoder
from reward_models.preference_data import BucketSampler, Group, collate, encode_groups, groups_of
from reward_models.preference_losses import Contest, Contests, contest_losses
from reward_models.preferences import Comparison, Demonstration, Ranking
from reward_models.preferences.rankings import pairs_of
from reward_models.preferences.records import RecordError
from text_envs.letters import letter_tokenizer

RANKING = Ranking("p", ("a", "b", "c"), (2, 1, 3), weight=2.0)


def test_a_comparison_is_a_group_of_two():
    assert groups_of([Comparison("p", ("a", "b"), "right")]) == [Group("p", ("a", "b"), (Contest(1, (0,)),))]
    tie = (Contest(0, (1,), 0.5), Contest(1, (0,), 0.5))
    for choice in ("tie", "both_bad"):
        assert groups_of([Comparison("p", ("a", "b"), choice)]) == [Group("p", ("a", "b"), tie)]


def test_margin_and_weight_are_kept():
    comparison = Comparison("p", ("a", "b"), "left", margin=3.0, weight=2.0)
    assert groups_of([comparison]) == [Group("p", ("a", "b"), (Contest(0, (1,), 1.0, 3.0),), 2.0)]
    assert groups_of([comparison], margin_scale=0.5)[0].contests[0].margin == 1.5


def test_votes_on_one_pair_are_one_group_however_it_was_shown():
    votes = [
        Comparison("p", ("a", "b"), "left", "ann"),
        Comparison("p", ("b", "a"), "right", "bob"),
        Comparison("p", ("a", "b"), "right", "cat"),
    ]
    (group,) = groups_of(votes)
    assert (group.responses, group.weight) == (("a", "b"), 3.0)
    assert [(c.winner, c.weight) for c in group.contests] == [(0, 1 / 3), (0, 1 / 3), (1, 1 / 3)]


def test_a_ranking_is_one_group_and_so_are_its_pairs():
    (ranked,) = groups_of([RANKING])
    assert ranked == Group("p", ("a", "b", "c"), (Contest(1, (0, 2), 0.5), Contest(0, (2,), 0.5)), 2.0)
    (whole,), (pairs,) = groups_of([RANKING], "pairs"), groups_of(pairs_of(RANKING))
    assert pairs.responses == whole.responses and pairs.weight == whole.weight == 2.0
    assert [(c.winner, c.losers) for c in pairs.contests] == [(c.winner, c.losers) for c in whole.contests]


def test_what_judges_nothing_makes_no_group():
    records = [
        Comparison("p", ("a", "b"), "skip"),
        Comparison("p", ("a", "a"), "left"),
        Ranking("p", ("a", "b"), (1, None)),
        Comparison("p", ("a", "b"), "left", weight=0.0),
    ]
    assert groups_of(records) == []


def test_other_records_and_losses_are_refused():
    with pytest.raises(RecordError, match="A Demonstration says nothing of which response is better"):
        groups_of([Demonstration("p", "a")])
    with pytest.raises(RecordError, match="ranking_loss is 'listnet'"):
        groups_of([RANKING], "listnet")


def test_an_unranked_response_is_not_encoded():
    ranking = Ranking("p", ("a", "bb", "ccc", "dddd"), (2, None, 1, 3))
    (encoded,) = encode_groups(groups_of([ranking]), CompletionEncoder(letter_tokenizer("pabcd")))
    assert [len(row) for row in encoded.rows] == [2, 4, 5]
    assert encoded.contests == (Contest(1, (0, 2), 0.5), Contest(0, (2,), 0.5))


def test_a_batch_has_each_response_once_and_the_loss_of_its_groups():
    records = [RANKING, Comparison("pp", ("a", "b"), "left")]
    encode = CompletionEncoder(letter_tokenizer("pabc"))
    examples = encode_groups(groups_of(records), encode)
    assert [example.weight for example in examples] == [4 / 3, 2 / 3]  # mean 1
    batch = collate(examples)
    assert batch["input_ids"].shape == (5, 3) and batch["lengths"].tolist() == [2, 2, 2, 3, 3]
    assert batch["group"].tolist() == [0, 0, 0, 1, 1] and batch["n_groups"] == 2
    scores = torch.tensor([0.5, 1.0, -1.0, 2.0, 1.0])
    contests = Contests(*(batch[name] for name in ("winner", "losers", "weight", "margin")))
    parts = [
        4 / 3 * contest_losses(scores[:3], Contests.of(examples[0].contests)).sum(),
        2 / 3 * contest_losses(scores[3:], Contests.of(examples[1].contests)).sum(),
    ]
    assert contest_losses(scores, contests).sum().item() == pytest.approx(sum(parts).item())


def test_buckets_hold_every_group_once_and_little_padding():
    lengths = [5, 50, 6, 49, 5, 51, 7, 48, 5] * 20
    order = list(BucketSampler(lengths, 4, seed=0))
    assert sorted(order) == list(range(180))
    batches = [order[start : start + 4] for start in range(0, 180, 4)]
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)
    assert order != list(BucketSampler(lengths, 4, seed=1))


def test_another_epoch_another_order():
    sampler = BucketSampler([1, 2, 3, 4] * 5, 2, seed=0)
    assert list(sampler) != list(sampler)
