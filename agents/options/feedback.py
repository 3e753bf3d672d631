"""Options of `rlhf feedback rate`, `import`, `export` and `stats`."""

from typing import Any, Literal

from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt

from agents.options.parser import add_flag, new_parser

Kinds = Literal["comparisons", "rankings", "demonstrations", "ratings", "records"]


def rate_parser() -> ArgumentParser:
    """Rate in this terminal: compare, rank, rate and write answers, a line for each."""
    parser = new_parser("feedback rate", rate_parser.__doc__)
    add: Any = parser.add_argument
    _add_database(parser)
    add("--rater", type=str | None, help="who rates; default: this user's name")
    add("--n", type=PositiveInt | None, help="votes at most; default: until nothing is left")
    return parser


def import_parser() -> ArgumentParser:
    """Put prompts, samples and what was said elsewhere into the database, and ask raters about them."""
    parser = new_parser("feedback import", import_parser.__doc__)
    add: Any = parser.add_argument
    add("files", type=str, nargs="*", help="JSON lines, .jsonl[.gz]; of prompts also .txt[.gz]")
    _add_database(parser)
    add(
        "--kind",
        type=Literal[
            "auto", "prompts", "samples", "demonstrations", "comparisons", "rankings", "ratings", "gold"
        ],
        default="auto",
        help="what the rows are. auto: prompts where they hold nothing else, samples where they have an origin, else what "
        "raters said. samples: answers to be rated, whatever else the rows hold. gold: comparisons "
        "whose right answers are known: raters are asked for them, and their quality is measured on them",
    )
    add("--rater", type=str, default="import", help="who said what names no rater")
    add(
        "--score-field",
        type=str | None,
        help="of ratings: the field of the number; default: score, reward, ...",
    )
    add(
        "--on-error",
        type=Literal["raise", "drop"],
        default="raise",
        help="what a row that cannot be read does: refuse its file, or be left out and reported",
    )
    add(
        "--request",
        type=Literal["comparisons", "rankings", "ratings", "demonstrations"] | None,
        help="ask raters for these, about what was imported; default: ask for nothing yet",
    )
    add(
        "--overlap",
        type=PositiveInt | None,
        help="raters for each of them; default: 2 for comparisons, else 1",
    )
    add(
        "--pairing",
        type=Literal["random", "all"],
        default="random",
        help="of comparisons. random: each answer in one pair; all: every two answers to one prompt",
    )
    add("--k", type=PositiveInt, default=4, help="of rankings: answers in each")
    return parser


def export_parser() -> ArgumentParser:
    """Write what raters said to a file, in a form that trainers read; prints its sha256."""
    parser = new_parser("feedback export", export_parser.__doc__)
    add: Any = parser.add_argument
    _add_database(parser)
    add("--out", type=str, required=True, help="a .jsonl or .jsonl.gz file, written whole or not at all")
    add_flag(parser, "--overwrite", "replace the file if it is there")
    add(
        "--kind",
        type=Kinds,
        default="comparisons",
        help="what to write; records: everything, in the format full",
    )
    add(
        "--format",
        type=Literal["trl", "conversational", "ranked", "hh", "full"],
        default="trl",
        help="trl: prompt with chosen and rejected, or completion. conversational: the same as messages. ranked: prompt, "
        "completions, ranks. hh: whole dialogues. full: everything, ties, raters, reasons and origins too",
    )
    return parser


def stats_parser() -> ArgumentParser:
    """Show how far the collection is, whether raters agree, and what else than quality decides."""
    parser = new_parser("feedback stats", stats_parser.__doc__)
    _add_database(parser)
    add_flag(parser, "--json", "print JSON instead of tables")
    return parser


def _add_database(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--db", type=str, default="feedback.db", help="path of the SQLite database, or postgresql:// URL"
    )


COMMANDS = {
    "rate": (rate_parser, "agents.feedback_commands:rate"),
    "import": (import_parser, "agents.feedback_import:import_files"),
    "export": (export_parser, "agents.feedback_commands:export"),
    "stats": (stats_parser, "agents.feedback_stats:stats"),
}
