"""Opens a store's tables: makes them, or brings those of an older version up to this one."""

from __future__ import annotations

from reward_models.preferences.entries import FeedbackError
from reward_models.preferences.schema import VERSION, meta, metadata, sa

STEPS: dict[int, tuple[str, ...]] = {
    2: (
        "ALTER TABLE exports ADD COLUMN last_vote INTEGER",
        "CREATE INDEX assignments_last ON assignments (rater, item)",
    ),
}
"""Version -> the statements that make it of the version before, in SQL that SQLite and PostgreSQL share."""


def open_tables(connection: sa.Connection, where: str) -> bool:
    """Leave the tables at `VERSION`, and tell whether it made them.

    To be called in a write transaction, so that of two openers one waits.

    Args:
        connection: to the database.
        where: what messages call the database.

    Raises:
        FeedbackError: the tables are of a newer version, or are not a feedback store's.
    """
    found = set(sa.inspect(connection).get_table_names())
    if not found & set(metadata.tables) and (connection.dialect.name != "sqlite" or not found):
        metadata.create_all(connection)
        connection.execute(sa.insert(meta).values(key="version", value=str(VERSION)))
        return True
    if "meta" not in found or not {"items", "votes"} <= found:
        raise FeedbackError(
            f"{where} holds tables ({', '.join(sorted(found)[:5])}) that are not a feedback store's. Name another database."
        )
    said = connection.scalar(sa.select(meta.c.value).where(meta.c.key == "version"))
    version = int(said) if said is not None and said.isdecimal() else 0
    if version < 1:
        raise FeedbackError(
            f"{where} is a damaged feedback store: the version of its tables is {said!r}. Restore a copy of it."
        )
    if version > VERSION:
        raise FeedbackError(
            f"{where} was written by a newer version of text-envs (its tables have version {version}, this one knows "
            f"{VERSION}). Update text-envs; nothing was changed."
        )
    for step in range(version + 1, VERSION + 1):
        for statement in STEPS[step]:
            connection.exec_driver_sql(statement)
    if version < VERSION:
        connection.execute(sa.update(meta).where(meta.c.key == "version").values(value=str(VERSION)))
    return False
