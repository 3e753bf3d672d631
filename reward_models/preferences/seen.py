"""What a rater may see before they vote: nothing that tells which model wrote an answer, or what others said of it."""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa

from reward_models.preferences import outcomes
from reward_models.preferences.entries import Assignment, Progress, Rater
from reward_models.preferences.schema import assignments
from reward_models.preferences.sessions import Settings


def seen_assignment(assignment: Assignment, settings: Settings) -> Assignment:
    """The assignment with those of the prompt's other fields that the organiser shows to raters."""
    shown = {name: assignment.columns[name] for name in settings.columns if name in assignment.columns}
    return replace(assignment, columns=shown)


def seen_progress(settings: Settings, rater: Rater) -> Progress:
    """The collection's numbers, and in `by_rater` the rater's own votes alone."""
    with settings.store.database.read() as connection:
        mine = connection.scalar(
            sa.select(sa.func.count())
            .select_from(assignments)
            .where(assignments.c.rater == rater.id, assignments.c.state == "voted")
        )
        row = {"rater": rater.id, "name": rater.name, "votes": mine or 0}
        return replace(outcomes.totals(connection), by_rater=(row,))
