"""Comparisons and rankings as groups, the one form that a reward model is trained on: a prompt, responses, contests."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch.utils.data import Sampler

from reward_models.encoding import CompletionEncoder
from reward_models.preference_losses import Contest, Contests, pair_contests, ranking_contests
from reward_models.preferences.records import Comparison, Ranking, RecordError
from reward_models.reward_head import right_padded

RankingLoss = Literal["plackett_luce", "pairs"]
BATCHES_PER_BUCKET = (
    16  # so many batches are sorted by length together: order stays random, rows of a batch alike
)


@dataclass(frozen=True, slots=True)
class Group:
    """Responses to one prompt, and who won against whom. All of it stands in one batch, each response once.

    Attributes:
        contests: their places are those of `responses`; their weights add up to 1.
        weight: of the whole group: the votes in it.
    """

    prompt: str
    responses: tuple[str, ...]
    contests: tuple[Contest, ...]
    weight: float = 1.0


def groups_of(
    records: Sequence[Comparison | Ranking],
    ranking_loss: RankingLoss = "plackett_luce",
    margin_scale: float = 1.0,
) -> list[Group]:
    """The groups of comparisons and rankings, in the order in which each first occurs.

    A ranking is a group. So are comparisons that share their prompt and `Comparison.group`: the pairs of one ranking. So are
    the votes of several raters on one pair. What judges nothing makes none: skipped comparisons, rankings of fewer than two,
    two times the same response.

    Args:
        ranking_loss: see `preference_losses.ranking_contests`.
        margin_scale: units of score for one unit of a comparison's margin.

    Raises:
        RecordError: a record of another kind; an unknown ranking loss.
    """
    if ranking_loss not in get_args(RankingLoss):
        raise RecordError(
            f"ranking_loss is {ranking_loss!r}. Choose one of {', '.join(get_args(RankingLoss))}."
        )
    collected: dict[Any, list[Comparison | Ranking]] = defaultdict(list)
    for record in records:
        key = _key(record)
        if judges(record):
            collected[key].append(record)
    return [_group(together, ranking_loss, margin_scale) for together in collected.values()]


def judges(record: Comparison | Ranking) -> bool:
    """Whether a record says which response is better, or that two are as good."""
    if isinstance(record, Ranking):
        return sum(rank is not None for rank in record.ranks) > 1
    left, right = record.responses
    return record.preference is not None and left != right and record.weight > 0


def _key(record: Comparison | Ranking) -> Any:
    """What records that belong together share."""
    if isinstance(record, Ranking):
        return id(record)
    if not isinstance(record, Comparison):
        raise RecordError(
            f"A {type(record).__name__} says nothing of which response is better. Train on comparisons and rankings."
        )
    return (record.prompt, record.group) if record.group else (record.prompt, frozenset(record.responses))


def _group(records: Sequence[Comparison | Ranking], ranking_loss: RankingLoss, margin_scale: float) -> Group:
    first = records[0]
    if isinstance(first, Ranking):
        contests = ranking_contests(first.ranks, ranking_loss)
        return Group(first.prompt, first.responses, tuple(contests), first.weight)
    comparisons = [record for record in records if isinstance(record, Comparison)]
    places = {text: i for i, text in enumerate(dict.fromkeys(t for r in comparisons for t in r.responses))}
    total = sum(record.weight for record in comparisons)
    contests = [
        contest
        for r in comparisons
        for contest in pair_contests(
            places[r.responses[0]],
            places[r.responses[1]],
            _preference(r),
            r.weight / total,
            (r.margin or 0.0) * margin_scale,
        )
    ]
    # Pairs of one ranking are one judgement; votes on one pair are as many as there are.
    weight = total / len(comparisons) if first.group else total
    return Group(first.prompt, tuple(places), tuple(contests), weight)


def _preference(comparison: Comparison) -> float:
    assert comparison.preference is not None
    return comparison.preference


@dataclass(frozen=True, slots=True)
class EncodedGroup:
    """A group as token rows: `rows`, one list of ids for each response that is in a contest."""

    rows: list[list[int]]
    contests: tuple[Contest, ...]
    weight: float

    @property
    def length(self) -> int:
        """Tokens of the longest row: what its batch is padded to, at least."""
        return max(map(len, self.rows))

    @property
    def start(self) -> int:
        """The first place in which the rows differ, where the responses begin, or the last one of a row that ends before."""
        shortest = min(map(len, self.rows))
        differ = (place for place in range(shortest) if len({row[place] for row in self.rows}) > 1)
        return next(differ, shortest - 1)


def encode_groups(groups: Sequence[Group], encode: CompletionEncoder) -> list[EncodedGroup]:
    """The groups as token rows; weights are scaled to a mean of 1, so that the learning rate keeps its meaning."""
    if not groups:
        return []
    groups = [_only_contestants(group) for group in groups]
    prompts = [group.prompt for group in groups for _ in group.responses]
    rows = iter(encode(prompts, [response for group in groups for response in group.responses]))
    mean = sum(group.weight for group in groups) / len(groups)
    return [
        EncodedGroup([next(rows) for _ in group.responses], group.contests, group.weight / mean)
        for group in groups
    ]


def _only_contestants(group: Group) -> Group:
    """The group without responses that are in no contest: nothing would be learned from their forward pass."""
    used = sorted({place for contest in group.contests for place in (contest.winner, *contest.losers)})
    new = {place: index for index, place in enumerate(used)}
    contests = tuple(
        replace(contest, winner=new[contest.winner], losers=tuple(new[place] for place in contest.losers))
        for contest in group.contests
    )
    return replace(group, responses=tuple(group.responses[place] for place in used), contests=contests)


def collate(groups: Sequence[EncodedGroup]) -> dict[str, Any]:
    """A batch: each response of each group is one row.

    Returns:
        input_ids, int64, shape [rows, longest], padded on the right; lengths and starts, shape [rows]; group, shape [rows],
        which of the groups a row belongs to; n_groups; and the fields of `Contests`, each weight multiplied by its group's.
    """
    input_ids, lengths = right_padded([row for group in groups for row in group.rows])
    contests, offset = [], 0
    for group in groups:
        contests += [
            Contest(
                contest.winner + offset,
                tuple(place + offset for place in contest.losers),
                contest.weight * group.weight,
                contest.margin,
            )
            for contest in group.contests
        ]
        offset += len(group.rows)
    return {
        "input_ids": input_ids,
        "lengths": lengths,
        "starts": torch.tensor([group.start for group in groups for _ in group.rows]),
        "group": torch.tensor([index for index, group in enumerate(groups) for _ in group.rows]),
        "n_groups": len(groups),
        **vars(Contests.of(contests)),
    }


class BucketSampler(Sampler[int]):
    """A random order in which groups of like length stand together, a new one each time.

    The groups are shuffled and cut into buckets of several batches; each bucket is sorted by length and cut into batches,
    and the batches are shuffled. So padding is little and no batch knows when it comes.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.random = lengths, batch_size, random.Random(seed)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        order = self.random.sample(range(len(self.lengths)), len(self.lengths))
        bucket = self.batch_size * BATCHES_PER_BUCKET
        batches = []
        for start in range(0, len(order), bucket):
            alike = sorted(order[start : start + bucket], key=self.lengths.__getitem__)
            batches += [alike[i : i + self.batch_size] for i in range(0, len(alike), self.batch_size)]
        whole = [batch for batch in batches if len(batch) == self.batch_size]
        # What does not fill a batch comes last: in front it would shift the others' borders.
        rest = [batch for batch in batches if len(batch) < self.batch_size]
        self.random.shuffle(whole)
        return (index for batch in whole + rest for index in batch)
