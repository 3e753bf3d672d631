"""Preferences from labels: of two answers to one dialogue, the one labelled good is preferred to the one labelled bad.

python examples/loop_coffee.py ratings.jsonl.gz preferences.jsonl

The file has rows of prompt, response and reward (Taskmaster-4's coffee orders: Byrne et al. 2020; the PERL paper, Sidahmed
et al. 2024). A dialogue with one label only is paired with a similar dialogue's answer of the other label.
"""

import sys

from reward_models.files import read_rows
from reward_models.preferences import Comparison
from reward_models.preferences.formats import write


def comparisons(rows: list[dict]) -> list[Comparison]:
    """One comparison for each good answer: against a bad one to the same last words, or else to another dialogue."""
    bad = [row for row in rows if row["reward"] < 0.5]
    by_turn = {row["prompt"].rsplit("\n", 1)[-1]: row for row in bad}
    pairs = []
    for index, row in enumerate(row for row in rows if row["reward"] >= 0.5):
        other = by_turn.get(row["prompt"].rsplit("\n", 1)[-1], bad[index % len(bad)])
        if other["response"] != row["response"]:
            pairs.append(
                Comparison(row["prompt"], (row["response"], other["response"]), "left", rater="labels")
            )
    return pairs


def main(ratings: str, preferences: str) -> int:
    """Write the comparisons; returns how many."""
    export = write(preferences, comparisons(read_rows(ratings)[0]), format="full")
    print(f"{export.rows} comparisons in {preferences}")
    return export.rows


if __name__ == "__main__":
    main(*sys.argv[1:])
