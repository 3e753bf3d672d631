"""A ranking as the pairs it implies, and pairs as the ranking they came from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from reward_models.preferences.records import Choice, Comparison, Origin, Ranking, RecordError

PLACES = "ranking"  # the column in which a pair remembers its places among the K responses


def pairs_of(ranking: Ranking) -> list[Comparison]:
    """All K(K-1)/2 pairs of a ranking: equal ranks are ties, what cannot be ranked is skipped. They share its group.

    Each keeps in `columns["ranking"]` how many responses there were, which two these are, and their ranks, so that
    `ranking_of` gives the ranking back.
    """
    pairs = []
    for i, j in itertools.combinations(range(len(ranking.responses)), 2):
        ranks = ranking.ranks[i], ranking.ranks[j]
        places = {"responses": len(ranking.responses), "places": [i, j], "ranks": list(ranks)}
        pairs.append(
            Comparison(
                ranking.prompt,
                (ranking.responses[i], ranking.responses[j]),
                _choice(*ranks),
                ranking.rater,
                ranking.reason,
                (ranking.origins[i], ranking.origins[j]),
                ranking.group,
                weight=ranking.weight,
                columns={**ranking.columns, PLACES: places},
            )
        )
    return pairs


def ranking_of(pairs: Sequence[Comparison]) -> Ranking:
    """The ranking that `pairs_of` made these pairs of, in whatever order and orientation they come.

    Pairs of another source may give `rank_chosen` and `rank_rejected` instead, from 0 or from 1: then each text is one
    response, in the order of the ranks.

    Raises:
        RecordError: the pairs are not of one ranking, or some of its responses are in none of them.
    """
    if not pairs:
        raise RecordError("There are no pairs, so there is no ranking. Give those of one ranking.")
    first = pairs[0]
    where = f"the ranking of group {first.group!r}, prompt {first.prompt[:60]!r},"
    if {(pair.group, pair.prompt) for pair in pairs} != {(first.group, first.prompt)}:
        raise RecordError(f"The pairs of {where} are mixed with others. Give those of one group at a time.")
    found: dict[Any, tuple[str, int | None, Origin]] = {}
    for pair in pairs:
        for key, rank, text, origin in zip(*_places(pair, where), pair.responses, pair.origins):
            found.setdefault(key, (text, rank, origin))
    size = first.columns[PLACES]["responses"] if PLACES in first.columns else len(found)
    if len(found) != size:
        raise RecordError(
            f"Of {where} {size - len(found)} of {size} responses are in no pair. Give all its pairs."
        )
    responses, ranks, origins = zip(*(found[key] for key in sorted(found)))
    if 0 in ranks:
        ranks = tuple(rank + 1 for rank in ranks)
    dropped = (PLACES, "rank_chosen", "rank_rejected")
    return Ranking(
        first.prompt,
        responses,
        ranks,
        first.rater,
        first.reason,
        origins,
        first.weight,
        {name: value for name, value in first.columns.items() if name not in dropped},
    )


def turned(pair: Comparison) -> Comparison:
    """The same comparison with left and right exchanged."""
    columns = dict(pair.columns)
    if PLACES in columns:
        places = columns[PLACES]
        columns[PLACES] = {**places, "places": places["places"][::-1], "ranks": places["ranks"][::-1]}
    choice: dict[Choice, Choice] = {"left": "right", "right": "left"}
    return replace(
        pair,
        responses=pair.responses[::-1],
        origins=pair.origins[::-1],
        choice=choice.get(pair.choice, pair.choice),
        columns=columns,
    )


def rankings_of(comparisons: Iterable[Comparison]) -> list[Ranking]:
    """The rankings that comparisons were made of, group by group, in the order in which the groups first appear.

    Raises:
        RecordError: a comparison that stands alone; an incomplete group.
    """
    groups: dict[str, list[Comparison]] = {}
    for pair in comparisons:
        if not pair.group:
            raise RecordError(
                f"The comparison on the prompt {pair.prompt[:60]!r} stands alone: it is of no ranking. Keep it a comparison."
            )
        groups.setdefault(pair.group, []).append(pair)
    return [ranking_of(pairs) for pairs in groups.values()]


def _choice(left: int | None, right: int | None) -> Choice:
    if left is None or right is None:
        return "skip"
    return "tie" if left == right else "left" if left < right else "right"


def _places(pair: Comparison, where: str) -> tuple[Sequence[Any], Sequence[int | None]]:
    """What orders the two responses of a pair among the K of its ranking, and their ranks from 1."""
    columns = pair.columns
    if PLACES in columns:
        return columns[PLACES]["places"], columns[PLACES]["ranks"]
    ranks = [columns.get("rank_chosen"), columns.get("rank_rejected")]
    if None in ranks or pair.chosen is None:
        raise RecordError(
            f"A pair of {where} does not say which places its responses have. Train on it as a pair."
        )
    if pair.choice == "right":
        ranks.reverse()
    return list(zip(ranks, pair.responses)), ranks
