"""The part of FeedbackStore in which an organiser says what is to be rated: prompts, samples, items, gold answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from reward_models.preferences import pairing as pairings
from reward_models.preferences import requesting
from reward_models.preferences.database import Part, checked_id
from reward_models.preferences.entries import FeedbackError, Item, Kind, Sample
from reward_models.preferences.schema import sa


class Items(Part):
    """What is asked of raters."""

    def add_prompts(self, prompts: Iterable[str | Mapping[str, Any]]) -> list[int]:
        """Store prompts and return their ids. The same prompt again has the id that it had.

        Args:
            prompts: texts, or dataset rows whose "prompt" is the text and whose other fields are its columns. Rows with the
                same text and other columns are different prompts; a text alone is the first one of that text.
        """
        rows = [requesting.as_prompt(prompt, f"prompt {index}") for index, prompt in enumerate(prompts)]
        return self.database.write(requesting.add_prompts, rows)

    def add_samples(self, samples: Iterable[Sample]) -> list[int]:
        """Store samples, with their prompts, and return their ids. Same prompt, response and origin: same id."""
        rows = list(samples)
        for index, sample in enumerate(rows):
            requesting.check_sample(sample, f"sample {index}")
        return self.database.write(requesting.add_samples, rows)

    def request_comparisons(
        self,
        *,
        overlap: int = 2,
        pairing: str = "random",
        n: int | None = None,
        prompts: Collection[int] | None = None,
        samples: Collection[int] | None = None,
        seed: int = 0,
        uncertainty: pairings.Uncertainty | None = None,
        random_share: float = pairings.RANDOM_SHARE,
    ) -> list[int]:
        """Ask for comparisons of two samples of one prompt.

        A pair that was asked for before is the same item, whose overlap grows to `overlap`: a request that was interrupted
        can be made again.

        Args:
            overlap: how many raters see each pair; two, so that their agreement can be known.
            pairing: "random" (each sample in one pair; with `n`, n pairs spread over the prompts), "all", or "uncertain": the
                pairs about which `uncertainty` is largest, and a random share besides.
            n: how many pairs; None for as many as the pairing gives.
            prompts: ids; None for all.
            samples: ids; None for all.
            seed: of the choice.
            uncertainty: (prompt, responses) -> disagreement about each pair; see `pairings.Uncertainty`.
            random_share: of the uncertain pairing, drawn at random, from 0 to 1.

        Returns:
            Ids of the items, in the order in which they are handed out.

        Raises:
            FeedbackError: no prompt has two different answers, or an argument is out of range.
        """
        return self._request(
            "comparison",
            overlap,
            n,
            prompts,
            samples,
            lambda pool: pairings.comparisons(pool, pairing, n, seed, uncertainty, random_share),
            "No prompt has two different answers to compare.",
        )

    def request_rankings(
        self,
        *,
        k: int = 4,
        overlap: int = 1,
        n: int | None = None,
        prompts: Collection[int] | None = None,
        samples: Collection[int] | None = None,
        seed: int = 0,
    ) -> list[int]:
        """Ask for rankings of `k` different samples of one prompt, each in one of them at most. Else as comparisons."""
        if not 2 <= k <= 100:
            raise FeedbackError(f"k is {k}. Rank 2 to 100 answers at once.")
        return self._request(
            "ranking",
            overlap,
            n,
            prompts,
            samples,
            lambda pool: pairings.rankings(pool, k, n, seed),
            f"No prompt has {k} different answers to rank.",
        )

    def request_ratings(
        self,
        *,
        overlap: int = 1,
        n: int | None = None,
        prompts: Collection[int] | None = None,
        samples: Collection[int] | None = None,
        seed: int = 0,
    ) -> list[int]:
        """Ask for a score of each sample by itself, in random order; with `n`, of n of them."""
        return self._request(
            "rating",
            overlap,
            n,
            prompts,
            samples,
            lambda pool: pairings.singles(pool, n, seed),
            "There are no answers to rate.",
        )

    def request_demonstrations(
        self, *, overlap: int = 1, prompts: Collection[int] | None = None
    ) -> list[int]:
        """Ask raters to answer prompts themselves: `overlap` answers to each."""
        requesting.check_overlap(overlap, None)
        return self.database.write(_add_demonstrations, prompts, overlap, self.clock())

    def _request(
        self,
        kind: Kind,
        overlap: int,
        n: int | None,
        prompts: Collection[int] | None,
        samples: Collection[int] | None,
        choose: Callable[[pairings.Pool], list[tuple[int, ...]]],
        none: str,
    ) -> list[int]:
        requesting.check_overlap(overlap, n)
        with self.database.read() as connection:
            pool, prompt_of = requesting.pool(connection, prompts, samples)
        groups = choose(pool)  # a judge of uncertainty may take its time: nobody waits for it
        if not groups:
            raise FeedbackError(f"{none} Add samples with add_samples().")
        new = [(prompt_of[group[0]], group) for group in groups]
        return self.database.write(requesting.add_items, kind, new, overlap, self.clock())

    def add_gold(self, item_id: int, answer: Mapping[str, Any]) -> None:
        """Say what the right answer to an item is: raters' quality is measured on it.

        Args:
            item_id: of a comparison, a ranking or a rating.
            answer: as a rater gives it, but about the samples in stored order: for a comparison, "left" is the first of the
                two that `items` names.
        """
        self.database.write(requesting.add_gold, checked_id(item_id, "item"), answer)

    def items(self) -> list[Item]:
        """All that was requested, oldest first, with the responses in stored order."""
        with self.database.read() as connection:
            return requesting.load_items(connection)


def _add_demonstrations(
    connection: sa.Connection, prompts: Collection[int] | None, overlap: int, now: float
) -> list[int]:
    chosen = requesting.prompt_ids(connection, prompts)
    return requesting.add_items(
        connection, "demonstration", [(prompt, ()) for prompt in chosen], overlap, now
    )
