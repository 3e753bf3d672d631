"""Many threads and many processes at one store at once, some of them killed: nothing is lost, doubled or given too often."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.feedback.audit import audit
from reward_models.preferences.commits import SharedCommits
from reward_models.preferences.schema import meta, sa
from reward_models.preferences.store import Conflict, FeedbackStore

ROOT = Path(__file__).parents[3]
NOTHING_WRONG = {"lost": 0, "doubled": 0, "over_assigned": 0}
LEFT = {"choice": "left"}


class Rating:
    """A process of some threads that rate until nothing is left, and the file in which it says what was confirmed to it."""

    def __init__(self, url, folder, name, n_threads):
        self.said = folder / name
        command = [sys.executable, "-m", "tests.reward_models.preferences.crowd", url, name, str(n_threads)]
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=subprocess.PIPE, text=True)

    def wait_for_lines(self, n):
        while self.process.poll() is None and self.said.read_bytes().count(b"\n") < n:
            time.sleep(0.005)

    def end(self, kill=False):
        """Acknowledged votes, and undos."""
        if kill:
            self.process.kill()
        _, errors = self.process.communicate(timeout=120)
        assert kill or self.process.returncode == 0, errors
        lines = [line.split(" ", 1) for line in self.said.read_text().rpartition("\n")[0].splitlines()]
        return {key: LEFT for what, key in lines if what == "vote"}, {
            key for what, key in lines if what == "undo"
        }


def test_threads_share_a_store(store_url, pairs):
    with FeedbackStore(store_url) as store:
        store.add_samples(pairs(40))
        store.request_comparisons(overlap=3)
        acknowledged = {}

        def rate(number):
            rater = store.rater(f"rater {number}").id
            while (task := store.assign(rater)) is not None:
                key = f"{rater} {task.id}"
                store.vote(task.id, LEFT, key=key)
                acknowledged[key] = LEFT

        with ThreadPoolExecutor(12) as threads:
            list(threads.map(rate, range(12)))
        assert len(acknowledged) == store.progress().votes == 120
        assert audit(store, acknowledged) == NOTHING_WRONG


def test_one_item_and_many_who_want_it(store_url, pairs):
    with FeedbackStore(store_url) as store:
        store.add_samples(pairs(1))
        store.request_comparisons(overlap=2)
        raters = [store.rater(f"rater {i}").id for i in range(16)]
        at_once = threading.Barrier(16)

        def take(rater):
            at_once.wait()
            return store.assign(rater)

        with ThreadPoolExecutor(16) as threads:
            given = list(threads.map(take, raters))
        assert sum(task is not None for task in given) == 2


def test_one_key_sent_many_times_at_once_is_one_vote(store_url, pairs):
    with FeedbackStore(store_url) as store:
        store.add_samples(pairs(1))
        store.request_comparisons(overlap=1)
        task = store.assign(store.rater("Ann").id)
        with ThreadPoolExecutor(8) as threads:
            sent = list(threads.map(lambda _: store.vote(task.id, LEFT, key="k"), range(16)))
        assert {vote.id for vote in sent} == {1}
        assert sum(not vote.repeated for vote in sent) == 1


def test_processes_share_a_store_and_some_are_killed(store_url, pairs, tmp_path):
    with FeedbackStore(store_url) as store:
        store.add_samples(pairs(60))
        store.request_comparisons(overlap=3)
        killed, spared = (
            [Rating(store_url, tmp_path, f"{fate} {i}", 2) for i in range(2)] for fate in ("killed", "spared")
        )
        acknowledged, undone = {}, set()
        for process in killed:
            process.wait_for_lines(10)
        for process in (*killed, *spared):
            votes, undos = process.end(kill=process in killed)
            acknowledged |= votes
            undone |= undos
        # Each thread of a killed process may have stored a vote, or an undo, that it did not live to report.
        unreported = {vote.key for vote in store.votes()} - set(acknowledged) - undone
        assert len(unreported) <= 4
        assert audit(store, acknowledged, undone) == NOTHING_WRONG | {"doubled": len(unreported)}
        held = sum(name.startswith("killed") for name in names_of_open_assignments(store))
        assert store.progress().votes + held == 180


def names_of_open_assignments(store):
    with store.database.read() as connection:
        query = (
            "SELECT name FROM assignments JOIN raters ON raters.id = assignments.rater WHERE state = 'open'"
        )
        return list(connection.exec_driver_sql(query).scalars())


def test_processes_that_open_a_new_store_at_once_all_succeed(store_url, tmp_path):
    processes = [Rating(store_url, tmp_path, f"first {i}", 1) for i in range(3)]
    assert [process.end() for process in processes] == [({}, set())] * 3
    with FeedbackStore(store_url) as store:
        assert len(store.raters()) == 3


class TestSharedCommits:
    """Writes that are made to wait for one another, so that they end up in one transaction."""

    @pytest.fixture
    def store(self, store_url):
        with FeedbackStore(store_url) as store:
            self.gate = threading.Event()
            yield store

    def together(self, store, *writes):
        """Results or errors of writes that share a commit: all come while the one before them is held up."""
        inside = threading.Event()

        def hold(connection):
            inside.set()
            self.gate.wait()

        def outcome(write):
            try:
                return store.database.write(write)
            except Exception as error:
                return error

        with ThreadPoolExecutor(len(writes) + 1) as threads:
            first = threads.submit(store.database.write, hold)
            inside.wait()
            waiting = []
            for number, write in enumerate(writes, 2):
                waiting.append(threads.submit(outcome, write))
                while len(store.database.commits.waiting) < number:
                    pass
            self.gate.set()
            first.result()
            return [future.result() for future in waiting]

    def note(self, key):
        """A write that keeps "x" under `key`, and returns the key."""
        return lambda connection: connection.execute(sa.insert(meta).values(key=key, value="x")) and key

    def test_one_that_fails_takes_back_its_own_alone(self, store):
        def half(connection):
            self.note("half")(connection)
            raise Conflict("not this one")

        found = self.together(store, self.note("a"), half, self.note("a"), self.note("b"))
        assert (found[0], found[3]) == ("a", "b")
        assert isinstance(found[1], Conflict)
        assert isinstance(found[2], sa.exc.IntegrityError)
        assert [store.get_meta(key) for key in ("a", "half", "b")] == ["x", None, "x"]

    def test_they_are_done_in_the_order_in_which_they_came(self, store):
        order = []
        self.together(store, *(lambda connection, i=i: order.append(i) for i in range(5)))
        assert order == [0, 1, 2, 3, 4]

    def test_a_commit_that_fails_fails_all_of_them(self, store, monkeypatch):
        begin = store.database.commits.begin

        class Broken:
            def __enter__(self):
                self.transaction = begin()
                return self.transaction.__enter__()

            def __exit__(self, *error):
                self.transaction.__exit__(OSError, OSError("disk full"), None)
                raise OSError("disk full")

        monkeypatch.setattr(store.database.commits, "begin", Broken)
        assert [str(error) for error in self.together_all(store, "a", "b")] == ["disk full"] * 2
        monkeypatch.undo()
        assert store.database.write(self.note("c")) == "c"
        assert [store.get_meta(key) for key in ("a", "b", "c")] == [None, None, "x"]

    def together_all(self, store, *keys):
        def outcome(key):
            try:
                return store.database.write(self.note(key))
            except OSError as error:
                return error

        with ThreadPoolExecutor(len(keys)) as threads:
            return list(threads.map(outcome, keys))

    def test_an_interrupted_write_leaves_the_others_theirs(self, store):
        commits = SharedCommits(store.database.writers.begin)

        def interrupted(connection):
            self.note("interrupted")(connection)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            commits.write(interrupted)
        assert (commits.waiting, commits.leader) == ([], None)
        assert commits.write(self.note("next")) == "next"
        assert (store.get_meta("interrupted"), store.get_meta("next")) == (None, "x")
