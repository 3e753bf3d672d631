"""Opening a store: a new one, one of an older or a newer version, and what is no store at all."""

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from reward_models.preferences.records import Comparison, Origin, Ranking
from reward_models.preferences.schema import VERSION, metadata, sa
from reward_models.preferences.store import FeedbackError, FeedbackStore

HERE = Path(__file__).parent
STORED = metadata.tables.values()


def fill(url, statements):
    """Run SQL in an empty database."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            connection.executescript(statements)
    else:
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            connection.connection.cursor().execute(statements)
        engine.dispose()


@pytest.fixture
def version_1(store_url):
    """A database as the first version of the store left it, in the middle of a collection."""
    name = "sqlite" if store_url.startswith("sqlite") else "postgresql"
    fill(store_url, (HERE / f"version_1_{name}.sql").read_text())
    return store_url


def rows(url):
    """All that is in the database: table -> rows as mappings."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = {}
        for name in sa.inspect(connection).get_table_names():
            read = connection.exec_driver_sql(f"SELECT * FROM {name}").mappings()
            found[name] = sorted((dict(row) for row in read), key=str)
    engine.dispose()
    return found


def shape(url):
    """Columns, indexes and constraints of every table."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        inspect = sa.inspect(connection)
        found = {
            name: (
                {c["name"]: (str(c["type"]), c["nullable"]) for c in inspect.get_columns(name)},
                sorted(
                    (i["name"], tuple(i["column_names"]), bool(i["unique"]))
                    for i in inspect.get_indexes(name)
                ),
                sorted(tuple(key["constrained_columns"]) for key in inspect.get_foreign_keys(name)),
                sorted(check["sqltext"] for check in inspect.get_check_constraints(name)),
            )
            for name in inspect.get_table_names()
        }
    engine.dispose()
    return found


class TestAnOlderVersion:
    def test_nothing_is_lost(self, version_1):
        before = rows(version_1)
        FeedbackStore(version_1).close()
        after = rows(version_1)
        assert set(after) == set(before) == {table.name for table in STORED}
        for table, kept in before.items():
            now = [{name: row[name] for name in kept[0]} for row in after[table]]
            if table == "meta":
                assert {"key": "version", "value": str(VERSION)} in now
                assert [row for row in now if row["key"] != "version"] == [
                    r for r in kept if r["key"] != "version"
                ]
            else:
                assert now == kept, table

    def test_the_collection_goes_on(self, version_1, clock):
        clock.now = 1_700_000_100.0
        with FeedbackStore(version_1, clock=clock) as store:
            about = {"prompt": "What is 2 + 2?", "responses": ("Four.", "Five."), "columns": {"answer": "4"}}
            about["origins"] = tuple(Origin("abc", {"temperature": 0.7}, seed) for seed in (0, 1))
            assert store.records() == [
                Comparison(choice="left", rater="Ann", reason="right", **about),
                Ranking("Say\0it", ("a", "b", "c"), (1, 2, 2), "Ann", origins=(Origin(),) * 3),
                Comparison(choice="tie", rater="Bob", **about),
            ]
            ann = store.rater_of("the token of Ann")
            assert (ann.name, ann.organiser, store.guidelines) == ("Ann", True, "Be fair.")
            assert [work["gold_accuracy"] for work in store.progress().by_rater] == [1.0, 0.0]
            task = store.assign(ann.id)
            assert (task.kind, task.draft) == ("demonstration", "It is")
            assert store.vote(task.id, {"response": "It is 4."}, key="new").id == 6
            assert store.vote(4, {"choice": "tie"}, key="b1").repeated
            assert store.request_comparisons(overlap=1, prompts=[1]) == [1]

    def test_its_tables_become_those_of_a_new_store(self, version_1):
        FeedbackStore(version_1).close()
        upgraded = shape(version_1)
        with sa.create_engine(version_1).begin() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.exec_driver_sql(f"DROP TABLE {table.name}")
        FeedbackStore(version_1).close()
        assert upgraded == shape(version_1)

    def test_a_step_that_fails_changes_nothing(self, version_1, monkeypatch):
        from reward_models.preferences import migrations

        broken = {2: (*migrations.STEPS[2], "SELECT * FROM nowhere")}
        monkeypatch.setattr(migrations, "STEPS", broken)
        before = (rows(version_1), shape(version_1))
        with pytest.raises(FeedbackError, match="cannot be opened"):
            FeedbackStore(version_1)
        assert (rows(version_1), shape(version_1)) == before


def test_a_newer_version_is_left_alone(store_url):
    FeedbackStore(store_url).close()
    fill(store_url, f"BEGIN; UPDATE meta SET value = '{VERSION + 1}' WHERE key = 'version'; COMMIT;")
    before = rows(store_url)
    with pytest.raises(
        FeedbackError, match=f"newer version of text-envs.*version {VERSION + 1}.*Update text-envs"
    ):
        FeedbackStore(store_url)
    assert rows(store_url) == before


@pytest.mark.parametrize("version", ["0", "abc"])
def test_a_version_that_never_was_is_damage(store_url, version):
    FeedbackStore(store_url).close()
    fill(store_url, f"BEGIN; UPDATE meta SET value = '{version}' WHERE key = 'version'; COMMIT;")
    with pytest.raises(FeedbackError, match=f"the version of its tables is '{version}'. Restore a copy"):
        FeedbackStore(store_url)


def test_a_missing_table_is_told_in_a_sentence(store_url):
    with FeedbackStore(store_url) as store:
        fill(store_url, "BEGIN; DROP TABLE exports; DROP TABLE votes; COMMIT;")
        for use in (store.progress, store.votes, lambda: store.undo(1, key="k")):
            with pytest.raises(
                FeedbackError, match=r"cannot be used: .*votes.*\. If it .* restore a copy"
            ) as said:
                use()
            assert "SELECT" not in str(said.value) and said.value.status == 503


def test_tables_of_something_else_are_refused(store_url):
    fill(store_url, "BEGIN; CREATE TABLE votes (party TEXT); COMMIT;")
    with pytest.raises(FeedbackError, match=r"holds tables \(votes\) that are not a feedback store's"):
        FeedbackStore(store_url)
    assert rows(store_url) == {"votes": []}
    if store_url.startswith("sqlite"):
        with sqlite3.connect(store_url.removeprefix("sqlite:///")) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_what_is_there_is_opened_again(store_url):
    with FeedbackStore(store_url) as store:
        store.add_prompts(["a"])
    with FeedbackStore(store_url) as store:
        assert store.add_prompts(["b", "a"]) == [2, 1]


class TestFiles:
    def mode(self, path):
        return stat.S_IMODE(os.stat(path).st_mode)

    def test_only_the_owner_may_read(self, tmp_path):
        mask = os.umask(0)
        try:
            with FeedbackStore(tmp_path / "new.db") as store:
                store.add_prompts(["a"])
                files = {path.name: self.mode(path) for path in tmp_path.iterdir()}
        finally:
            os.umask(mask)
        assert files == {"new.db": 0o600, "new.db-wal": 0o600, "new.db-shm": 0o600}

    def test_a_file_that_others_could_read_is_closed_to_them(self, tmp_path):
        FeedbackStore(tmp_path / "old.db").close()
        os.chmod(tmp_path / "old.db", 0o644)
        FeedbackStore(tmp_path / "old.db").close()
        assert self.mode(tmp_path / "old.db") == 0o600

    def test_every_commit_is_synced_and_foreign_keys_hold(self, tmp_path):
        with FeedbackStore(tmp_path / "feedback.db") as store, store.database.read() as connection:
            asked = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in asked]
        assert found == ["wal", 2, 1, 30_000]

    @pytest.mark.parametrize("content", [b"{}", b"SQLite", b"a text that is longer than a header is\n" * 9])
    def test_what_is_no_database_is_not_touched(self, tmp_path, content):
        path = tmp_path / "notes.txt"
        path.write_bytes(content)
        os.chmod(path, 0o644)
        with pytest.raises(FeedbackError, match=r"notes\.txt is no SQLite database. Name another path"):
            FeedbackStore(path)
        assert (path.read_bytes(), self.mode(path), os.listdir(tmp_path)) == (content, 0o644, ["notes.txt"])

    def test_a_damaged_database(self, tmp_path):
        path = tmp_path / "feedback.db"
        path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
        with pytest.raises(FeedbackError, match=r"feedback\.db cannot be opened as a feedback store"):
            FeedbackStore(path)

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("{folder}", "is a folder. Name a file in it"),
            ("{folder}/none/feedback.db", "none does not exist. Create it"),
            ("sqlite://", "needs a file"),
            ("sqlite:///:memory:", "needs a file"),
            ("mysql://host/database", "cannot be kept in mysql"),
            ("nothing://", "cannot be kept in nothing"),
            ("://", "is no database URL"),
            (
                "postgresql://nobody:secret@127.0.0.1:1/none",
                r"nobody:\*\*\*@127.0.0.1:1/none cannot be opened",
            ),
        ],
    )
    def test_what_cannot_be_opened_is_explained(self, tmp_path, url, says):
        with pytest.raises(FeedbackError, match=says):
            FeedbackStore(url.format(folder=tmp_path))
        assert os.listdir(tmp_path) == []

    def test_a_relative_path_is_one_file_wherever_the_process_goes(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for url in ("feedback.db", Path("feedback.db"), "sqlite:///feedback.db"):
            with FeedbackStore(url) as store:
                assert store.database.where == str(tmp_path / "feedback.db")


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("reward_models.preferences", "sqlalchemy"),
        ("reward_models.preferences.entries", "sqlalchemy"),
        ("reward_models.preferences.store", "torch"),
    ],
)
def test_what_is_not_needed_is_not_imported(module, forbidden):
    code = f"import sys, {module}; sys.exit({forbidden!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(("missing", "extra"), [("sqlalchemy", "feedback"), ("psycopg", "postgres")])
def test_a_missing_extra_is_named(missing, extra):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from reward_models.preferences.store import FeedbackStore\n"
        "FeedbackStore('postgresql://127.0.0.1/none')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"pip install 'text-envs[{extra}]'" in ended.stderr.splitlines()[-1]
