"""TerminalRater: one person rates in a terminal, over ssh if need be; every answer is a line."""

from __future__ import annotations

import contextlib
import getpass
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from reward_models.preferences.entries import Assignment, FeedbackError
from reward_models.preferences.glyphs import plain
from reward_models.preferences.raters import RatingDesk

with contextlib.suppress(ImportError):  # arrow keys in what is typed, where the system has it
    import readline  # noqa: F401

SIDE_BY_SIDE = 100  # columns of a terminal that is wide enough for two answers

CHOICES = {"1": "left", "2": "right", "0": "tie", "b": "both_bad", "s": "skip"}
HELP = {
    "comparison": "1 or 2: that one is better   0: a tie   b: both bad   s: skip   u: undo   q: quit",
    "ranking": "best first, such as 2>1=3; what you leave out cannot be ranked   s: skip   u: undo   q: quit",
    "rating": "a number, larger is better   s: later   u: undo   q: quit",
    "demonstration": "write the answer, then a line with a dot alone   /s: later   /u: undo   /q: quit   /clear: begin again",
}
REASON = "A reason may follow after a space: 1 it answers the question."


class _Quit(Exception):
    """The rater wants to stop."""


class _Unclear(Exception):
    """What was typed is no answer; says why."""


class TerminalRater:
    """Asks a person at a terminal, item by item.

    The answers are a model's and may hold anything: control and bidirectional characters are shown as ⟨their names⟩.

    Args:
        console: where to print; None: standard output.
        name: of the rater; None: the user's name.
        read_line: returns the next line typed, and raises EOFError where there is none.
    """

    def __init__(
        self,
        console: Console | None = None,
        name: str | None = None,
        read_line: Callable[[str], str] = input,
    ):
        self.console = console or Console()
        self.name = name or getpass.getuser()
        self.read_line = read_line

    def rate(self, desk: RatingDesk, n: int | None = None) -> int:
        """Ask until nothing is left, or the person quits (q, Ctrl-C or Ctrl-D). What was answered by then is stored.

        Args:
            desk: a `FeedbackStore`, or an `HTTPClient` of this rater's name.
            n: votes at most; None for no limit.

        Returns:
            How many votes were cast, without those taken back.
        """
        rater, votes = desk.rater(self.name), 0
        wanted = None if n is None else desk.progress().votes + n
        self._greet(desk)
        while n is None or votes < n:
            assignment = desk.assign(rater.id)
            if assignment is None:
                if votes and self._takes_back():
                    votes -= desk.undo(rater.id, key=str(uuid.uuid4())) is not None
                    continue
                if not votes:
                    self._say(f"Nothing is left to do for {plain(self.name)}.")
                break
            self._show(assignment, votes, desk, wanted)
            try:
                votes += self._ask(desk, assignment)
            except (_Quit, EOFError, KeyboardInterrupt):
                desk.release(assignment.id)
                break
            except FeedbackError as error:  # others have taken its place meanwhile
                self._say(str(error))
        self._say(f"{votes} vote{'' if votes == 1 else 's'} cast. Thank you!")
        return votes

    def _ask(self, desk: RatingDesk, assignment: Assignment) -> int:
        """Read lines until one of them settles the item. Returns how many votes that adds: 1, 0, or -1 for an undo."""
        started = time.monotonic()
        while True:
            try:
                command, answer, reason = self._read(desk, assignment)
            except _Unclear as unclear:
                self._say(str(unclear))
                continue
            if command == "u":
                if desk.undo(assignment.rater, key=str(uuid.uuid4())) is None:
                    self._say("There is nothing to take back.")
                    continue
                return -1
            if command == "s":
                desk.release(assignment.id)
                return 0
            seconds = time.monotonic() - started
            key = str(uuid.uuid4())
            desk.vote(assignment.id, answer, key=key, reason=reason, seconds=seconds, rater=assignment.rater)
            return 1

    def _read(self, desk: RatingDesk, assignment: Assignment) -> tuple[str, dict[str, Any], str]:
        """(command, answer, reason); the command is "u", "s" (to be left for later), or "" where there is an answer.

        Raises:
            _Unclear: a line that is none of these. _Quit: the rater said so.
        """
        if assignment.kind == "demonstration":
            return self._read_text(desk, assignment)
        word, _, reason = self.read_line("> ").strip().partition(" ")
        word = word.lower()
        if word == "q":
            raise _Quit
        if word == "u" or (word == "s" and assignment.kind == "rating"):
            return word, {}, ""
        return "", _ANSWERS[assignment.kind](word, len(assignment.responses)), reason.strip()

    def _read_text(self, desk: RatingDesk, assignment: Assignment) -> tuple[str, dict[str, Any], str]:
        lines = assignment.draft.splitlines()
        while (line := self.read_line("| ")) != ".":
            match line.strip():
                case "/q":
                    raise _Quit
                case "/s" | "/u":
                    return line.strip()[1], {}, ""
                case "/clear":
                    lines = []
                case _:
                    lines.append(line)
            desk.save_draft(assignment.id, "\n".join(lines))
        text = "\n".join(lines).strip()
        if not text:
            raise _Unclear(
                "There is nothing in it yet. Write the answer first, or type /s to leave it for later."
            )
        return "", {"response": text}, ""

    def _takes_back(self) -> bool:
        """Whether the person, at the end, wants to change the last vote."""
        self._say("Nothing is left to rate. Enter ends; u takes the last vote back.")
        try:
            return self.read_line("> ").strip().lower() == "u"
        except (EOFError, KeyboardInterrupt):
            return False

    # --- what is shown -----------------------------------------------------------------------------------------

    def _greet(self, desk: RatingDesk) -> None:
        if guidelines := getattr(desk, "guidelines", ""):
            self.console.print(Panel(Text(plain(guidelines)), title="Guidelines", title_align="left"))

    def _show(self, assignment: Assignment, votes: int, desk: RatingDesk, wanted: int | None) -> None:
        progress = desk.progress()
        needed = min(wanted or progress.votes_needed, progress.votes_needed)
        self.console.rule(f"{progress.votes} of {needed} votes, {votes} just now", align="left")
        self.console.print(_box("Prompt", assignment.prompt))
        boxes = [_box(str(place), response) for place, response in enumerate(assignment.responses, 1)]
        if len(boxes) == 2 and self.console.width >= SIDE_BY_SIDE:
            grid = Table.grid(expand=True, padding=(0, 1))
            for _ in boxes:
                grid.add_column(ratio=1)
            grid.add_row(*boxes)
            boxes = [grid]
        for box in boxes:
            self.console.print(box)
        if assignment.draft:
            self.console.print(_box("Your draft; go on, or send it with a dot", assignment.draft))
        self._say(
            HELP[assignment.kind] + ("" if votes or assignment.kind == "demonstration" else f"\n{REASON}")
        )

    def _say(self, message: str) -> None:
        self.console.print(Text(message, style="dim"))


def _box(title: str, text: str) -> Any:
    return Panel(Text(plain(text)), title=title, title_align="left")


# --- what is typed ---------------------------------------------------------------------------------------------


def _choice(word: str, n: int) -> dict[str, Any]:
    if word not in CHOICES:
        raise _Unclear(f"Type one of {', '.join([*CHOICES, 'u', 'q'])}, then Enter.")
    return {"choice": CHOICES[word]}


def ranks_of(word: str, n: int) -> dict[str, Any]:
    """ "2>1=3" as the ranks of n responses: 2 is the best, 1 and 3 tie; the others cannot be ranked."""
    if word == "s":
        return {"ranks": [None] * n}
    ranks: list[int | None] = [None] * n
    if not re.fullmatch(r"\d+([>=]\d+)*", word):
        raise _Unclear("Type the numbers from the best down, such as 2>1=3, without spaces; or s, u, q.")
    for rank, tied in enumerate(word.split(">"), 1):
        for place in map(int, tied.split("=")):
            if not 1 <= place <= n or ranks[place - 1] is not None:
                raise _Unclear(f"Type each number from 1 to {n} once at most.")
            ranks[place - 1] = rank
    return {"ranks": ranks}


def _score(word: str, n: int) -> dict[str, Any]:
    try:
        return {"score": float(word)}
    except ValueError:
        raise _Unclear("Type a number, such as 4 or 3.5; or s, u, q.") from None


_ANSWERS: dict[str, Callable[[str, int], dict[str, Any]]] = {
    "comparison": _choice,
    "ranking": ranks_of,
    "rating": _score,
}
