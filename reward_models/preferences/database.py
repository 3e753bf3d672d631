"""The database under a feedback store, SQLite or PostgreSQL. Writes come one after the other, reads never wait."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from reward_models.completion import excerpt
from reward_models.preferences.commits import SharedCommits
from reward_models.preferences.entries import FeedbackError, NotFound, Unavailable
from reward_models.preferences.migrations import open_tables
from reward_models.preferences.schema import sa

T = TypeVar("T")

BUSY_SECONDS = 30.0
"""How long a write waits for one of another process."""

_POOL: dict[str, Any] = {
    "pool_size": 8,
    "max_overflow": 8,
    "pool_use_lifo": True,
}  # the warm connection first

WRITE_LOCK = 0x7E87_E475
"""Key of the advisory lock that every write transaction takes in PostgreSQL. Such locks are per database."""


class Database:
    """Connections with the guarantees that a feedback store needs.

    SQLite: write-ahead log, every commit synced to disk, foreign keys enforced, mode 0600. Writes begin with BEGIN IMMEDIATE
    (a deferred one dies with "database is locked" when it first writes), and those of one process queue in order, for
    SQLite's own waiting is unfair. PostgreSQL: every write transaction first takes one advisory lock, because at the
    default isolation two of them would hand out the same place; reads see one moment.

    Args:
        url: a path, or a URL: sqlite:///feedback.db, postgresql://user:password@host/database.

    Raises:
        FeedbackError: no such folder, no feedback store there, another kind of database, or none that answers.
    """

    def __init__(self, url: str | os.PathLike[str]):
        self.url = _parse(url)
        self.where = self.url.database if self.is_sqlite else self.url.render_as_string(hide_password=True)
        if self.is_sqlite:
            _prepare_file(Path(str(self.url.database)))
            self.engine = sa.create_engine(self.url, **_POOL)
            sa.event.listen(self.engine, "connect", _connect_sqlite)
            sa.event.listen(self.engine, "begin", _begin_sqlite)
            self.readers = self.engine
        else:
            self.engine = _postgres_engine(self.url)
            sa.event.listen(self.engine, "connect", _connect_postgres)
            sa.event.listen(self.engine, "begin", _begin_postgres)
            self.readers = self.engine.execution_options(isolation_level="REPEATABLE READ")
        self.writers = self.engine.execution_options(writes=True)
        self.commits = SharedCommits(self.writers.begin)
        try:
            self.is_new = self.commits.write(open_tables, str(self.where))
            if self.is_sqlite:
                with self.engine.connect() as connection:
                    raw: Any = connection.connection.dbapi_connection
                    _make_safe(raw, Path(str(self.url.database)))
        except (sa.exc.DBAPIError, sqlite3.Error) as error:
            self.engine.dispose()
            cure = (
                "Restore a copy of it, see that its folder can be written to, or name another."
                if self.is_sqlite
                else "Start its server, or name another."
            )
            raise FeedbackError(
                f"{self.where} cannot be opened as a feedback store: {_reason(error)}. {cure}"
            ) from error
        except FeedbackError:
            self.engine.dispose()
            raise

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one moment of the database.

        Raises:
            Unavailable: the database is damaged or does not answer.
        """
        with self._available(), self.readers.connect() as connection, connection.begin():
            yield connection

    def write(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """`function(connection, *args, **kwargs)` in a transaction that no other write overlaps; on disk when this returns.

        Those of one process that wait for one another share a commit: see `SharedCommits`.

        Raises:
            What `function` raises; nothing of it is then stored. Unavailable: the database is damaged, busy or does not
            answer, and nothing is stored either.
        """
        with self._available():
            return self.commits.write(function, *args, **kwargs)

    @contextlib.contextmanager
    def _available(self) -> Iterator[None]:
        """Says in a sentence what the database's driver says in SQL."""
        try:
            yield
        except sa.exc.IntegrityError:  # the database is well: the mistake is ours
            raise
        except sa.exc.DBAPIError as error:
            raise Unavailable(
                f"{self.where} cannot be used: {_reason(error)}. If it is busy or away, try again; if it is damaged, restore "
                "a copy of it."
            ) from error

    def close(self) -> None:
        self.engine.dispose()


class Part:
    """What the parts of FeedbackStore share."""

    database: Database
    clock: Callable[[], float]


def checked_id(value: int, what: str) -> int:
    """`value`, if an id can be that large.

    Raises:
        FeedbackError: it is no whole number. NotFound: no row has it.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise FeedbackError(f"The {what} is {excerpt(value)}. Give its id, a whole number.")
    if not 0 < value < 2**31:
        raise NotFound(f"There is no {what} {value}.")
    return value


def _reason(error: Exception) -> str:
    """The first line of what the database's driver said."""
    return str(getattr(error, "orig", error)).strip().splitlines()[0].rstrip(".")


def _parse(url: str | os.PathLike[str]) -> sa.URL:
    text = os.fspath(url)
    if "://" not in text:
        parsed = sa.URL.create("sqlite", database=os.path.expanduser(text))
    else:
        try:
            parsed = sa.make_url(text)
        except sa.exc.ArgumentError as error:
            raise FeedbackError(f"{text!r} is no database URL: {error}") from error
    system = parsed.get_backend_name()
    if system == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if system != "sqlite":
        raise FeedbackError(
            f"A feedback store cannot be kept in {system}. Give the path of a SQLite file, or "
            "postgresql://user:password@host/database."
        )
    if parsed.database in (None, "", ":memory:"):
        raise FeedbackError("A feedback store needs a file: its votes must outlive the process. Give a path.")
    return parsed.set(drivername="sqlite+pysqlite", database=os.path.abspath(str(parsed.database)))


def _prepare_file(path: Path) -> None:
    """Make the file if it is missing, readable by its owner alone; say plainly why it cannot be a store."""
    if path.is_dir():
        raise FeedbackError(f"{path} is a folder. Name a file in it, such as {path / 'feedback.db'}.")
    if not path.parent.is_dir():
        raise FeedbackError(f"The folder {path.parent} does not exist. Create it, or name another path.")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        with path.open("rb") as file:
            header = file.read(16)
    except OSError as error:
        raise FeedbackError(
            f"{path} cannot be opened for writing: {error.strerror}. Reading needs that, too: "
            "ask its owner for the right, or copy it to a folder of your own."
        ) from error
    if header and header != b"SQLite format 3\0":
        raise FeedbackError(f"{path} is no SQLite database. Name another path; the file was not changed.")


def _make_safe(connection: sqlite3.Connection, path: Path) -> None:
    """Switch to the write-ahead log, for good, and close the files to others. (A file of another user is theirs to close.)"""
    deadline = time.monotonic() + BUSY_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except (
            sqlite3.OperationalError
        ) as error:  # two openers; SQLite does not wait here, whatever busy_timeout says
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    for name in (path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            os.chmod(name, 0o600)


def _connect_sqlite(connection: sqlite3.Connection, record: Any) -> None:
    connection.isolation_level = (
        None  # transactions begin where `_begin_sqlite` says, not where sqlite3 guesses
    )
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _postgres_engine(url: sa.URL) -> sa.Engine:
    try:
        return sa.create_engine(url, pool_pre_ping=True, **_POOL)
    except ImportError as error:
        raise ImportError(
            "A feedback store in PostgreSQL needs psycopg. Install it with: pip install 'text-envs[postgres]'"
        ) from error


def _connect_postgres(connection: Any, record: Any) -> None:
    """Acknowledged is on disk, even where the database's default says otherwise."""
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )
    connection.commit()


def _begin_postgres(connection: sa.Connection) -> None:
    if connection.get_execution_options().get("writes"):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})")
