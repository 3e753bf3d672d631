"""A PostgreSQL server of one's own: in a temporary folder, on a private port, gone when the block ends."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "TEXT_ENVS_POSTGRES"
"""Environment variable: the URL of an empty database to use instead."""


class Unavailable(Exception):
    """No PostgreSQL can be had here. Says why."""


@contextlib.contextmanager
def server(*, durable: bool = True) -> Iterator[str]:
    """The URL of a database: the one that the environment names, or Debian's server, started for the block.

    The server listens on 127.0.0.1 alone and wants a password made for the occasion. It refuses to run as root: root runs it
    as the user postgres, whom Debian's package brings.

    Args:
        durable: commits are synced to disk, as in production. Tests in which nobody cuts the power do without, and are quick.

    Raises:
        Unavailable: there is no server program, or it does not start.
    """
    if os.environ.get(VARIABLE):
        yield os.environ[VARIABLE]
        return
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not programs:
        raise Unavailable(
            f"There is nothing under /usr/lib/postgresql. Install Debian's package postgresql, or set {VARIABLE} to a URL."
        )
    folder = Path(tempfile.mkdtemp(prefix="text-envs-postgres-"))
    try:
        with _running(programs[-1].parent, folder, durable) as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def empty(server_url: str) -> Iterator[str]:
    """The URL of an empty schema on a server, dropped when the block ends. (A database would serve as well, in ten times the
    time.)"""
    import sqlalchemy as sa

    url = sa.make_url(server_url)
    name = f"text_envs_{secrets.token_hex(6)}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {name}")
    try:
        yield url.update_query_dict({"options": f"-csearch_path={name}"}).render_as_string(
            hide_password=False
        )
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql("SET client_min_messages TO warning")
            connection.exec_driver_sql(f"DROP SCHEMA {name} CASCADE")
        engine.dispose()


@contextlib.contextmanager
def _running(programs: Path, folder: Path, durable: bool) -> Iterator[str]:
    password = secrets.token_hex(16)
    secret = folder / "password"
    secret.write_text(password)
    data, port = folder / "data", _free_port()
    user = []
    if os.geteuid() == 0:
        user = ["runuser", "-u", "postgres", "--"]
        try:
            for path in (folder, secret):
                shutil.chown(path, "postgres", "postgres")
        except LookupError as error:
            raise Unavailable("PostgreSQL does not run as root, and there is no user postgres.") from error
    initdb = [
        "-D",
        data,
        "-U",
        "postgres",
        "-A",
        "scram-sha-256",
        f"--pwfile={secret}",
        "-E",
        "UTF8",
        "--no-sync",
    ]
    _call([*user, programs / "initdb", *initdb, "--locale=C.UTF-8"], folder)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync={'on' if durable else 'off'}"
    pg_ctl = [*user, programs / "pg_ctl", "-D", data, "-w"]
    _call([*pg_ctl, "-l", folder / "log", "-o", options, "start"], folder)
    try:
        yield f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
    finally:
        _call([*pg_ctl, "-m", "immediate", "stop"], folder)


def _call(command: list[str | Path], folder: Path) -> None:
    """Run a command to its end. Output goes to a file: a server that inherits a pipe would keep it open."""
    with tempfile.TemporaryFile("w+") as output:
        if subprocess.run(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=folder
        ).returncode:
            output.seek(0)
            log = folder / "log"
            more = log.read_text(errors="replace") if log.exists() else ""
            raise Unavailable(f"{' '.join(map(str, command))} failed:\n{output.read()}{more}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
