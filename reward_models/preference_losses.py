"""How likely people's choices are, given scores: Bradley-Terry, Plackett-Luce, and what is added to them.

All are sums over contests. In a contest one response wins against one or more others, with the probability
`exp(winner) / (exp(winner) + sum of exp(loser + margin))`: with one loser that is Bradley and Terry's (1952) model of a
pair, and a ranking by Plackett (1975) and Luce (1959) is a row of contests, each the best of those that are left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import torch
from torch import Tensor

MOST_TIED = 10  # responses of one rank under Plackett-Luce: the contests double with each


@dataclass(frozen=True, slots=True)
class Contest:
    """One response that wins against others; the numbers are places among a group's responses.

    Attributes:
        winner: its place.
        losers: their places, at least one.
        weight: how much the contest counts.
        margin: by how much the winner's score should be ahead.
    """

    winner: int
    losers: tuple[int, ...]
    weight: float = 1.0
    margin: float = 0.0


def pair_contests(
    left: int, right: int, preference: float, weight: float = 1.0, margin: float = 0.0
) -> list[Contest]:
    """The contests of one pair: one that the better one wins; two of half the weight for a tie (`preference` 0.5)."""
    contests = []
    if preference > 0:
        contests.append(Contest(left, (right,), weight * preference, margin if preference == 1 else 0.0))
    if preference < 1:
        contests.append(
            Contest(right, (left,), weight * (1 - preference), margin if preference == 0 else 0.0)
        )
    return contests


def ranking_contests(ranks: Sequence[int | None], kind: str = "plackett_luce") -> list[Contest]:
    """The contests of one ranking; a response without a rank is in none. Their weights add up to 1.

    "plackett_luce": best of all, best of the rest, and so on, divided by their number, K - 1 of K responses. Tied
    responses come in every order alike: the loss is the mean over the orders, so that of two it is that of a tied pair.
    "pairs": every pair, divided by their number, K (K - 1) / 2 (Ouyang et al. 2022, 3.5); tied pairs count half each way.

    Raises:
        ValueError: under "plackett_luce", more than `MOST_TIED` responses share a rank.
    """
    ranked = [place for place, rank in enumerate(ranks) if rank is not None]
    if len(ranked) < 2:
        return []
    if kind == "pairs":
        share = 1 / comb(len(ranked), 2)
        return [
            contest
            for a, b in combinations(ranked, 2)
            for contest in pair_contests(a, b, _preference(ranks[a], ranks[b]), share)
        ]
    share = 1 / (len(ranked) - 1)
    return [
        Contest(winner, losers, share * chance)
        for tied, rest in _levels(ranks, ranked)
        for winner, losers, chance in _next_best(tied, rest)
        if losers
    ]


def _levels(ranks: Sequence[int | None], ranked: list[int]) -> Iterator[tuple[list[int], tuple[int, ...]]]:
    """For each rank from the best, the places that share it, and the places below."""
    for rank in sorted({ranks[place] for place in ranked}):  # type: ignore[type-var]
        tied = [place for place in ranked if ranks[place] == rank]
        if len(tied) > MOST_TIED:
            raise ValueError(
                f"{len(tied)} responses of one ranking share rank {rank}; Plackett-Luce takes {MOST_TIED} at most. "
                'Train on its pairs: ranking_loss="pairs".'
            )
        yield tied, tuple(place for place in ranked if ranks[place] > rank)  # type: ignore[operator]


def _next_best(tied: list[int], rest: tuple[int, ...]) -> Iterator[tuple[int, tuple[int, ...], float]]:
    """Winner, losers and chance of each contest among `tied` responses, over all orders of them, `rest` below.

    When n of m are left, each set of n is left in the same share of the orders, 1 / comb(m, n), and each of it comes next
    in one n-th of those.
    """
    m = len(tied)
    for n in range(m, 0, -1):
        for left in combinations(tied, n):
            for winner in left:
                losers = tuple(place for place in left if place != winner) + rest
                yield winner, losers, 1 / (n * comb(m, n))


def _preference(left: int | None, right: int | None) -> float:
    assert left is not None and right is not None
    return 0.5 if left == right else float(left < right)


@dataclass
class Contests:
    """Contests of a batch as tensors, the numbers being rows of the batch.

    Attributes:
        winner: int64, shape [contests]. losers: int64, shape [contests, most losers]; -1 where there is none.
        weight, margin: float32, shape [contests].
    """

    winner: Tensor
    losers: Tensor
    weight: Tensor
    margin: Tensor

    @classmethod
    def of(cls, contests: Sequence[Contest]) -> Contests:
        most = max(len(contest.losers) for contest in contests)
        return cls(
            winner=torch.tensor([contest.winner for contest in contests]),
            losers=torch.tensor([[*c.losers, *[-1] * (most - len(c.losers))] for c in contests]),
            weight=torch.tensor([contest.weight for contest in contests]),
            margin=torch.tensor([contest.margin for contest in contests]),
        )


def contest_losses(scores: Tensor, contests: Contests, label_smoothing: float = 0.0) -> Tensor:
    """Weighted negative log-likelihood of each contest, shape [contests], given `scores`, shape [n].

    Of a pair with difference d = winner - loser - margin it is -(1 - e) log sigmoid(d) - e log sigmoid(-d): with label
    smoothing e the other one wins with probability e (Chowdhury et al. 2024; Mitchell 2023). Among more, e is shared out
    between all losers.
    """
    absent = contests.losers < 0
    winner = scores[contests.winner]
    losers = scores[contests.losers.clamp(min=0)] + contests.margin[:, None]
    lost = losers.masked_fill(absent, -torch.inf)
    losses = torch.cat([winner[:, None], lost], dim=1).logsumexp(dim=1) - winner
    if label_smoothing:
        mean = losers.masked_fill(absent, 0.0).sum(1) / (~absent).sum(1)
        losses = losses + label_smoothing * (winner - mean)
    return contests.weight * losses


def centring(scores: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Mean over the groups of (2 x mean score of a group)^2, a scalar: it keeps scores near zero.

    Preferences say nothing about the level of scores. Of a pair this is (chosen + rejected)^2, TRL's term (Eisenstein et
    al. 2023).

    Args:
        group: int64, shape [n], the group that each score belongs to.
    """
    totals = scores.new_zeros(n_groups).index_add(0, group, scores)
    counts = scores.new_zeros(n_groups).index_add(0, group, torch.ones_like(scores))
    return (2 * totals / counts).square().mean()
