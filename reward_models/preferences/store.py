"""FeedbackStore: what is asked of raters and what they answered, in SQLite or PostgreSQL, safe against crashes and crowds."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, cast

from reward_models.preferences.database import Database  # first: it says which extra is missing

from reward_models.preferences.schema import exports, meta, raters, sa, votes  # isort: skip
from reward_models.completion import excerpt
from reward_models.preferences import assigning, outcomes, pairing, requesting, voting
from reward_models.preferences.entries import (
    KINDS,
    Assignment,
    Conflict,
    FeedbackError,
    Kind,
    LeaseExpired,
    NotFound,
    Progress,
    Rater,
    RaterAccess,
    Sample,
    Vote,
)
from reward_models.preferences.records import Comparison, Demonstration, Ranking, Rating, Record

__all__ = [
    "KINDS",
    "Assignment",
    "Conflict",
    "FeedbackError",
    "FeedbackStore",
    "Kind",
    "LeaseExpired",
    "NotFound",
    "Progress",
    "Rater",
    "RaterAccess",
    "Sample",
    "Vote",
]

LEASE = 600.0
"""Seconds that a rater has for one item before its place is given to others. Ten minutes: a demonstration takes that long."""

_LARGEST_ID = 2**31 - 1


class FeedbackStore:
    """Prompts, samples, items to rate, raters, and their votes.

    Three promises hold in any number of threads and processes, and when one of them is killed:

    - a vote that `vote` returned is stored, once, however often the client sends it again with its key;
    - an item never has more votes and leases together than its overlap;
    - a rater rates an item at most once.

    Votes are only ever added. Taking one back adds a row that supersedes it.

    Args:
        url: a path (SQLite, made if it is missing, readable by its owner alone) or a URL: sqlite:///feedback.db,
            postgresql://user:password@host/database.
        clock: unix seconds; leases run by it.

    Raises:
        FeedbackError: the database cannot be opened, is not a feedback store, or is of a newer version.

    Example:
        >>> store = FeedbackStore("feedback.db")
        >>> store.add_samples([Sample("2 + 2 =", "4"), Sample("2 + 2 =", "five")])
        >>> store.request_comparisons()
        >>> ann = store.rater("Ann")
        >>> assignment = store.assign(ann.id)
        >>> store.vote(assignment.id, {"choice": "left"}, key=str(uuid.uuid4()))
        >>> store.comparisons()
    """

    def __init__(
        self, url: str | os.PathLike[str] = "feedback.db", *, clock: Callable[[], float] = time.time
    ):
        self.database = Database(url)
        self.clock = clock

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> FeedbackStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # What is asked

    def add_prompts(self, prompts: Iterable[str | Mapping[str, Any]]) -> list[int]:
        """Store prompts and return their ids. The same prompt again has the id that it had.

        Args:
            prompts: texts, or dataset rows whose "prompt" is the text and whose other fields are its columns. Rows with the
                same text and other columns are different prompts; a text alone is the first one of that text.
        """
        rows = [requesting.as_prompt(prompt, index) for index, prompt in enumerate(prompts)]
        with self.database.write() as connection:
            return requesting.add_prompts(connection, rows)

    def add_samples(self, samples: Iterable[Sample]) -> list[int]:
        """Store samples, with their prompts, and return their ids. Same prompt, response and origin: same id."""
        rows = list(samples)
        for index, sample in enumerate(rows):
            requesting.check_sample(sample, index)
        with self.database.write() as connection:
            return requesting.add_samples(connection, rows)

    def request_comparisons(
        self,
        *,
        overlap: int = 1,
        pairing: str = "random",
        n: int | None = None,
        prompts: Collection[int] | None = None,
        samples: Collection[int] | None = None,
        seed: int = 0,
        uncertainty: pairing.Uncertainty | None = None,
        random_share: float = pairing.RANDOM_SHARE,
    ) -> list[int]:
        """Ask for comparisons of two samples of one prompt.

        A pair that was asked for before is the same item, whose overlap grows to `overlap`: a request that was interrupted
        can be made again.

        Args:
            overlap: how many raters see each pair.
            pairing: "random" (each sample in one pair; with `n`, n pairs spread over the prompts), "all", or "uncertain": the
                pairs about which `uncertainty` is largest, and a random share besides.
            n: how many pairs; None for as many as the pairing gives.
            prompts: ids; None for all.
            samples: ids; None for all.
            seed: of the choice.
            uncertainty: (prompt, responses) -> disagreement about each pair; see `pairing.Uncertainty`.
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
            lambda pool: _pairs(pool, pairing, n, seed, uncertainty, random_share),
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
            lambda pool: pairing.rankings(pool, k, n, seed),
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
            lambda pool: pairing.singles(pool, n, seed),
            "There are no answers to rate.",
        )

    def request_demonstrations(
        self, *, overlap: int = 1, prompts: Collection[int] | None = None
    ) -> list[int]:
        """Ask raters to answer prompts themselves: `overlap` answers to each."""
        requesting.check_overlap(overlap, None)
        with self.database.write() as connection:
            chosen = requesting.prompt_ids(connection, prompts)
            return requesting.add_items(
                connection, "demonstration", [(prompt, ()) for prompt in chosen], overlap, self.clock()
            )

    def _request(
        self,
        kind: Kind,
        overlap: int,
        n: int | None,
        prompts: Collection[int] | None,
        samples: Collection[int] | None,
        choose: Callable[[pairing.Pool], list[tuple[int, ...]]],
        none: str,
    ) -> list[int]:
        requesting.check_overlap(overlap, n)
        with self.database.read() as connection:
            pool, prompt_of = requesting.pool(connection, prompts, samples)
        groups = choose(pool)  # a judge of uncertainty may take its time: nobody waits for it
        if not groups:
            raise FeedbackError(f"{none} Add samples with add_samples().")
        with self.database.write() as connection:
            new = [(prompt_of[group[0]], group) for group in groups]
            return requesting.add_items(connection, kind, new, overlap, self.clock())

    def add_gold(self, item_id: int, answer: Mapping[str, Any]) -> None:
        """Say what the right answer to an item is: raters' quality is measured on it.

        Args:
            item_id: of a comparison, a ranking or a rating.
            answer: as a rater gives it, but about the samples in stored order: for a comparison, "left" is the first of the
                two that `items(item_id)` names.
        """
        with self.database.write() as connection:
            requesting.add_gold(connection, _id(item_id, "item"), answer)

    # Who rates

    def add_rater(self, name: str, *, organiser: bool = False) -> RaterAccess:
        """Add a rater with a token for their personal link. The token is shown this once; the store keeps its sha256.

        Raises:
            Conflict: the name is taken. `new_token` gives that rater another token.
        """
        _check_name(name)
        token = secrets.token_urlsafe(24)
        with self.database.write() as connection:
            if connection.scalar(sa.select(raters.c.id).where(raters.c.name == name)) is not None:
                raise Conflict(
                    f"There is a rater {name!r} already. Choose another name, or give them a new token."
                )
            new = _insert_rater(connection, name, _hash(token), organiser, self.clock())
        return RaterAccess(new, name, token)

    def new_token(self, name: str) -> RaterAccess:
        """Give a rater another token; the old one no longer opens anything."""
        token = secrets.token_urlsafe(24)
        with self.database.write() as connection:
            rater = connection.scalar(sa.select(raters.c.id).where(raters.c.name == name))
            if rater is None:
                raise NotFound(f"There is no rater {name!r}. Add one with add_rater(name).")
            connection.execute(sa.update(raters).where(raters.c.id == rater).values(token_hash=_hash(token)))
        return RaterAccess(rater, name, token)

    def rater_of(self, token: str) -> Rater | None:
        """Whose token this is; None where it is nobody's."""
        with self.database.read() as connection:
            row = connection.execute(sa.select(raters).where(raters.c.token_hash == _hash(token))).first()
        return None if row is None else Rater(row.id, row.name, row.organiser)

    def rater(self, name: str) -> Rater:
        """The rater of that name, added without a token if there is none: for use on one's own machine."""
        _check_name(name)
        with self.database.write() as connection:
            row = connection.execute(sa.select(raters).where(raters.c.name == name)).first()
            if row is not None:
                return Rater(row.id, row.name, row.organiser)
            return Rater(_insert_rater(connection, name, None, False, self.clock()), name)

    def raters(self) -> list[Rater]:
        with self.database.read() as connection:
            rows = connection.execute(sa.select(raters).order_by(raters.c.id))
            return [Rater(row.id, row.name, row.organiser) for row in rows]

    # Rating

    def assign(
        self, rater: int, *, kinds: Collection[str] | None = None, lease: float = LEASE
    ) -> Assignment | None:
        """Hand one item to a rater; None where there is nothing for them to do.

        An item that they hold already is given again, its lease renewed; then one whose lease they let run out, with its
        draft; then the next one with room that they have not rated.

        Args:
            rater: id.
            kinds: only these; None for all.
            lease: seconds until its place may be given to others.
        """
        rater = _id(rater, "rater")
        unknown = set(kinds or ()) - set(KINDS)
        if unknown or not 0 <= lease <= 1e9:
            what = f"There is no kind {sorted(unknown)}" if unknown else f"The lease is {lease} seconds"
            raise FeedbackError(f"{what}. Kinds are {', '.join(KINDS)}; a lease is 0 seconds or more.")
        with self.database.write() as connection:
            return assigning.assign(connection, rater, kinds, lease, self.clock())

    def release(self, assignment: int, *, rater: int | None = None) -> None:
        """Give an item back unrated; others may have it at once, the same rater after all others.

        Args:
            rater: whose it must be; None where the caller has seen to that.
        """
        with self.database.write() as connection:
            assigning.release(connection, _id(assignment, "assignment"), rater)

    def save_draft(self, assignment: int, text: str, *, rater: int | None = None) -> None:
        """Keep an unfinished text; the assignment carries it as `draft`."""
        with self.database.write() as connection:
            assigning.save_draft(connection, _id(assignment, "assignment"), text, rater)

    def vote(
        self,
        assignment: int,
        answer: Mapping[str, Any],
        *,
        key: str,
        reason: str = "",
        seconds: float | None = None,
        rater: int | None = None,
    ) -> Vote:
        """Record an answer. When this returns, the vote is on disk.

        Args:
            assignment: id.
            answer: about the responses in the order shown. Comparison: {"choice": "left" | "right" | "tie" | "both_bad" |
                "skip"}; ranking: {"ranks": [1, 2, 2, None]}; demonstration: {"response": "..."}; rating: {"score": 4}.
            key: made by the client for this vote. Sent again with the same content, it gives the same vote, `repeated`.
            reason: the rater's own words.
            seconds: that the rater took.
            rater: whose assignment it must be; None where the caller has seen to that.

        Raises:
            FeedbackError: the answer is not of the kind's shape.
            NotFound: no such assignment, or another rater's.
            Conflict: the key was used for something else, or the assignment has its vote.
            LeaseExpired: the lease ran out and the item is full. As long as it has room, a late vote counts.
        """
        with self.database.write() as connection:
            return voting.vote(
                connection,
                _id(assignment, "assignment"),
                answer,
                key=key,
                reason=reason,
                seconds=seconds,
                rater=rater,
                now=self.clock(),
            )

    def undo(self, rater: int, *, key: str, lease: float = LEASE) -> Assignment | None:
        """Take back the rater's last vote and put its item into their hands again; None where they have no vote.

        Args:
            rater: id.
            key: made by the client for this undo, as for a vote.
            lease: seconds.
        """
        with self.database.write() as connection:
            return voting.undo(connection, _id(rater, "rater"), key=key, lease=lease, now=self.clock())

    # What came of it

    def progress(self) -> Progress:
        with self.database.read() as connection:
            return outcomes.progress(connection)

    def comparisons(self) -> list[Comparison]:
        """Current votes on comparisons, oldest first."""
        return cast(list[Comparison], self._records("comparison"))

    def rankings(self) -> list[Ranking]:
        """Current votes on rankings, oldest first."""
        return cast(list[Ranking], self._records("ranking"))

    def demonstrations(self) -> list[Demonstration]:
        """Current demonstrations, oldest first."""
        return cast(list[Demonstration], self._records("demonstration"))

    def ratings(self) -> list[Rating]:
        """Current votes on ratings, oldest first."""
        return cast(list[Rating], self._records("rating"))

    def records(self) -> list[Record]:
        """All of these, oldest first."""
        return self._records(None)

    def _records(self, kind: str | None) -> list[Record]:
        with self.database.read() as connection:
            return outcomes.records(connection, kind)

    def votes(self, since: int = 0, *, current: bool = False) -> list[Vote]:
        """Rows of the table of votes with an id larger than `since`, oldest first.

        Args:
            since: id of the last vote seen; 0 for all.
            current: leave out undos and what they took back.
        """
        query = voting.select_votes().where(votes.c.id > since)
        with self.database.read() as connection:
            rows = connection.execute(query.where(outcomes.current()) if current else query)
            return [voting.to_vote(row) for row in rows]

    def export(self, path: str | os.PathLike[str], *, kind: str = "comparisons", format: str = "trl") -> Any:
        """Write the records of one kind to a file, and remember its sha256.

        Args:
            path: of a .jsonl or .jsonl.gz file, written whole or not at all.
            kind: "comparisons", "rankings", "demonstrations", "ratings" or "records" (all).
            format: see `formats.write`.

        Returns:
            `formats.Export`: path, rows, sha256.
        """
        from reward_models.preferences import formats

        if kind not in _EXPORTED:
            raise FeedbackError(
                f"There is nothing called {kind!r} to export. Choose one of {', '.join(_EXPORTED)}."
            )
        export = formats.write(path, self._records(_EXPORTED[kind]), format=format)
        with self.database.write() as connection:
            connection.execute(
                sa.insert(exports).values(
                    path=os.path.abspath(path),
                    kind=kind,
                    format=format,
                    rows=export.rows,
                    sha256=export.sha256,
                    created=self.clock(),
                )
            )
        return export

    def wait(
        self,
        n: int,
        *,
        kind: Kind | None = None,
        timeout: float | None = None,
        poll: float = 0.5,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> int:
        """Wait until there are `n` current votes.

        Args:
            kind: only these; None for all.
            timeout: seconds at most; None for as long as it takes.
            poll: seconds between two looks.
            should_stop: asked at every look.

        Returns:
            The votes there are: fewer than `n` where time ran out or `should_stop` said so.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self.database.read() as connection:
                there = outcomes.count(connection, kind)
            late = deadline is not None and time.monotonic() >= deadline
            if there >= n or late or should_stop():
                return there
            time.sleep(poll if deadline is None else min(poll, max(0.0, deadline - time.monotonic())))

    # Notes

    @property
    def guidelines(self) -> str:
        """What the organiser tells raters; "" before they have written anything."""
        return self.get_meta("guidelines") or ""

    @guidelines.setter
    def guidelines(self, text: str) -> None:
        self.set_meta("guidelines", text)

    def get_meta(self, key: str, default: str | None = None) -> str | None:
        """A text that was kept under a name."""
        with self.database.read() as connection:
            value = connection.scalar(sa.select(meta.c.value).where(meta.c.key == key))
        return default if value is None else value

    def set_meta(self, key: str, value: str) -> None:
        """Keep a text under a name, at most 200 characters long; "version" is the store's own."""
        if key == "version" or not 1 <= len(key) <= 200 or "\0" in key:
            raise FeedbackError(
                f"{excerpt(key)} cannot be the name of a note. Choose another of 1 to 200 characters."
            )
        with self.database.write() as connection:
            changed = connection.execute(sa.update(meta).where(meta.c.key == key).values(value=value))
            if not changed.rowcount:
                connection.execute(sa.insert(meta).values(key=key, value=value))


_EXPORTED = {
    "comparisons": "comparison",
    "rankings": "ranking",
    "demonstrations": "demonstration",
    "ratings": "rating",
    "records": None,
}

_pairs = pairing.comparisons  # request_comparisons has an argument of the module's name


def _id(value: int, what: str) -> int:
    """`value`, if an id can be that large."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise FeedbackError(f"The {what} is {excerpt(value)}. Give its id, a whole number.")
    if not 0 < value <= _LARGEST_ID:
        raise NotFound(f"There is no {what} {value}.")
    return value


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not name.strip() or len(name) > 100:
        raise FeedbackError(f"A rater cannot be called {excerpt(name)}. Give a name of 1 to 100 characters.")


def _insert_rater(
    connection: sa.Connection, name: str, token_hash: str | None, organiser: bool, now: float
) -> int:
    values = {"name": name, "token_hash": token_hash, "organiser": organiser, "created": now}
    return connection.execute(sa.insert(raters).values(values).returning(raters.c.id)).scalar_one()
