"""Do raters agree with one another, and what else than quality decides their votes?

The coefficients themselves are in `coefficients`. What is not defined, because nobody shares an item or everybody says the
same one thing, is null.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reward_models.preferences.coefficients import (
    Estimate,
    Floats,
    agreeing_sums,
    alpha_of_labels,
    alpha_of_numbers,
    bootstrap,
    cohen_kappa,
    cohen_of,
    counts_of,
    divide,
    estimate,
    fleiss_kappa,
    fleiss_of,
    fleiss_sums,
    krippendorff_alpha,
    label_sums,
    number_sums,
    numbered,
    raw_agreement,
    raw_of,
    share,
)
from reward_models.preferences.rankings import pairs_of
from reward_models.preferences.records import Comparison, Ranking, Record

if TYPE_CHECKING:
    from reward_models.preferences.entries import Vote
    from reward_models.preferences.store import FeedbackStore

__all__ = [
    "Estimate",
    "agreement",
    "cohen_kappa",
    "fleiss_kappa",
    "krippendorff_alpha",
    "length_bias",
    "position_bias",
    "raw_agreement",
    "summary",
]

OPPOSITE: dict[str, dict[Hashable, Hashable]] = {
    "comparison": {"left": "right", "right": "left"},
    "ranking": {-1: 1, 1: -1},  # of two responses, as `_labels` has them
}

Said = Mapping[tuple[int, Hashable], Mapping[int, Hashable]]  # (item, what of it) -> rater -> label


def agreement(said: Said, opposite: Mapping[Hashable, Hashable] | None = None) -> dict[str, Any]:
    """Every coefficient of labels, each with its interval, as JSON values.

    Cohen's kappa is of two raters; of more, it is the mean over pairs of raters, weighted by what they share.

    Args:
        said: which label each rater gave to each thing; what only one rater judged does not count. The pairs of one ranking
            are things of one item: an interval draws whole items.
        opposite: of labels that name sides, what each becomes when the sides change. Which answer is the left one is
            arbitrary, so everything counts half as it is and half turned round: else the chance of agreement, and with it
            every coefficient, would depend on whether better answers happen to stand on one side.
    """
    shared = [(item, raters) for (item, _), raters in said.items() if len(raters) > 1]
    items = numbered(item for item, _ in shared)
    if opposite is not None:
        shared += [
            (item, {rater: opposite.get(label, label) for rater, label in raters.items()})
            for item, raters in shared
        ]
    weight = 1.0 if opposite is None else 0.5
    item_of = np.array([items[item] for item, _ in shared], int)
    labels = [raters for _, raters in shared]
    counts = counts_of([list(raters.values()) for raters in labels])

    def of_items(features: Floats) -> Floats:
        sums = np.zeros((len(items), features.shape[1]))
        np.add.at(sums, item_of, weight * features)
        return sums

    return {
        "items_shared": len(items),
        "raw_agreement": estimate(of_items(agreeing_sums(counts)), raw_of).to_json(),
        "cohen_kappa": _cohen_of_pairs(labels, item_of, len(items), weight).to_json(),
        "fleiss_kappa": estimate(of_items(fleiss_sums(counts)), fleiss_of).to_json(),
        "krippendorff_alpha": estimate(of_items(label_sums(counts)), alpha_of_labels).to_json(),
    }


def _cohen_of_pairs(
    shared: Sequence[Mapping[int, Hashable]], item_of: NDArray[np.int_], n_items: int, weight: float
) -> Estimate:
    labels = numbered(label for raters in shared for label in raters.values())
    items: dict[tuple[int, int], list[int]] = defaultdict(list)
    cells: dict[tuple[int, int], list[int]] = defaultdict(
        list
    )  # of the table of two raters' labels, flattened
    for item, raters in zip(item_of.tolist(), shared):
        for one, other in combinations(sorted(raters), 2):
            items[one, other].append(item)
            cells[one, other].append(labels[raters[one]] * len(labels) + labels[raters[other]])
    one_hot = {pair: weight * np.eye(len(labels) ** 2)[cells[pair]] for pair in items}

    def mean(weights: Floats) -> Floats:
        """Of shape [resamples], of how often each item was drawn, shape [resamples, items]."""
        total, size = np.zeros(len(weights)), np.zeros(len(weights))
        for pair in items:
            table = (weights[:, items[pair]] @ one_hot[pair]).reshape(-1, len(labels), len(labels))
            kappa, n = cohen_of(table), table.sum(axis=(1, 2))
            total += np.where(np.isnan(kappa), 0.0, kappa * n)
            size += np.where(np.isnan(kappa), 0.0, n)
        return divide(total, size)

    value = float(mean(np.ones((1, n_items)))[0])
    return Estimate(value, *bootstrap(mean, n_items), n_items)


def position_bias(votes: Iterable[Vote]) -> Estimate:
    """The share of comparisons in which the answer shown on the left won, among those in which one of the two did.

    Sides are random, so it is 0.5 for raters who do not look at them.
    """
    choices = Counter(vote.answer["choice"] for vote in votes if vote.kind == "comparison")
    return share(choices["left"], choices["left"] + choices["right"])


def length_bias(records: Iterable[Record]) -> Estimate:
    """The share in which the answer with more characters won, among comparisons and pairs of rankings with a winner.

    Above 0.5 is no fault by itself: a longer answer may say more. It is what a reward model that only counts would score.
    """
    longer = decided = 0
    for record in records:
        pairs = pairs_of(record) if isinstance(record, Ranking) else [record]
        for pair in pairs:
            if isinstance(pair, Comparison) and pair.chosen is not None and pair.rejected is not None:
                decided += len(pair.chosen) != len(pair.rejected)
                longer += len(pair.chosen) > len(pair.rejected)
    return share(longer, decided)


def summary(store: FeedbackStore) -> dict[str, Any]:
    """What an organiser wants to know of a collection, as JSON values. Votes taken back do not count, skips only as such.

    Returns:
        ``votes``, ``votes_needed``, ``items``, ``items_done``; of each kind that was voted on (``comparisons``, ``rankings``,
        ``ratings``, ``demonstrations``) its votes and skips, and the raters' `agreement` (rankings by the pairs that they
        imply; ratings by Krippendorff's alpha for numbers); ``position_bias``, ``length_bias``; ``seconds`` per vote (median,
        10 and 90 % points); ``raters``: name, votes, skips, median seconds, accuracy on gold items, agreement with the others
        on what they share, share of left.
    """
    progress, votes = store.progress(), store.votes(current=True)
    result: dict[str, Any] = {
        name: getattr(progress, name) for name in ("votes", "votes_needed", "items", "items_done")
    }
    by_kind: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        by_kind[vote.kind].append(vote)
    said = {kind: _said(of_kind) for kind, of_kind in by_kind.items()}
    for kind, of_kind in sorted(by_kind.items()):
        skips = sum(not _labels(vote) for vote in of_kind) if kind in ("comparison", "ranking") else 0
        result[f"{kind}s"] = {"votes": len(of_kind), "skips": skips}
        if kind in ("comparison", "ranking"):
            result[f"{kind}s"] |= agreement(said[kind], OPPOSITE[kind])
    if "comparison" in by_kind:
        result["comparisons"]["choices"] = dict(
            Counter(vote.stored["choice"] for vote in by_kind["comparison"])
        )
    if "rating" in by_kind:
        units = [list(raters.values()) for raters in said["rating"].values() if len(raters) > 1]
        alpha = estimate(number_sums(units), alpha_of_numbers)
        result["ratings"] |= {"items_shared": len(units), "krippendorff_alpha": alpha.to_json()}
    result["position_bias"] = position_bias(votes).to_json()
    result["length_bias"] = length_bias([*store.comparisons(), *store.rankings()]).to_json()
    result["seconds"] = _seconds(votes)
    result["raters"] = [_rater(row, votes, said) for row in progress.by_rater]
    return result


def _said(votes: Iterable[Vote]) -> dict[tuple[int, Hashable], dict[int, Hashable]]:
    """Who gave which label to what: an item, or a pair of places within a ranking."""
    said: dict[tuple[int, Hashable], dict[int, Hashable]] = defaultdict(dict)
    for vote in votes:
        for place, label in _labels(vote).items():
            said[vote.item, place][vote.rater] = label
    return said


def _labels(vote: Vote) -> dict[Hashable, Hashable]:
    """What a vote says of each thing that it judges, about the responses in stored order; nothing where it skips."""
    answer = vote.stored
    if vote.kind == "comparison":
        return {} if answer["choice"] == "skip" else {None: answer["choice"]}
    if vote.kind == "ranking":
        ranks = answer["ranks"]
        return {
            (i, j): int(np.sign(ranks[i] - ranks[j]))
            for i, j in combinations(range(len(ranks)), 2)
            if ranks[i] is not None and ranks[j] is not None
        }
    return {None: answer["score"]} if vote.kind == "rating" else {}


def _seconds(votes: Iterable[Vote]) -> dict[str, Any]:
    seconds = [vote.seconds for vote in votes if vote.seconds is not None]
    points = np.quantile(seconds, [0.1, 0.5, 0.9]).tolist() if seconds else [None] * 3
    return dict(zip(("p10", "median", "p90"), points), n=len(seconds))


def _rater(row: Mapping[str, Any], votes: Sequence[Vote], said: Mapping[str, Said]) -> dict[str, Any]:
    """One rater's row: as the store's progress has it, and how they stand to the others."""
    agreeing = pairs = 0
    for kind in ("comparison", "ranking"):
        for raters in said.get(kind, {}).values():
            if row["rater"] in raters:
                mine = raters[row["rater"]]
                agreeing += sum(label == mine for label in raters.values()) - 1
                pairs += len(raters) - 1
    own = [vote for vote in votes if vote.rater == row["rater"]]
    return {
        **row,
        "agreement": share(agreeing, pairs).to_json(),
        "position_bias": position_bias(own).to_json(),
    }
