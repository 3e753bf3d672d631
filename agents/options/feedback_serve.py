"""Options of `rlhf feedback serve`."""

from typing import Any

from jsonargparse import ArgumentParser
from jsonargparse.typing import restricted_number_type

from agents.options.parser import new_parser

Port = restricted_number_type("Port", int, [(">=", 0), ("<=", 65535)])


def serve_parser() -> ArgumentParser:
    """Serve the rating page: people compare, rank, rate and write answers in their browsers."""
    parser = new_parser("feedback serve", serve_parser.__doc__)
    add: Any = parser.add_argument
    add("--db", type=str, default="feedback.db", help="path of the SQLite database, or postgresql:// URL")
    add(
        "--host",
        type=str,
        default="127.0.0.1",
        help="address to listen at; another one than this machine's own needs --public",
    )
    add("--port", type=Port, default=8000, help="0: a free one")
    add(
        "--public",
        type=str | None,
        help="the address by which raters reach the page, such as https://rate.example.org; they then need personal links",
    )
    add("--rater", type=str, default="", help="who rates, on this machine; default: the page asks")
    add(
        "--columns",
        type=list[str] | str,
        default=[],
        help="field of the prompts that raters see, or JSON list of fields; others stay hidden: they may tell the model",
    )
    return parser


COMMANDS = {"serve": (serve_parser, "agents.feedback_serve:serve")}
