"""One self-contained HTML page: headings, figures, tables and texts to read. For people, on a screen or on paper.

The page asks nothing of the network, runs no script, and shows texts of models and strangers as text. It needs Jinja2
and, for figures, matplotlib: `pip install "text-envs[report]"`.
"""

from __future__ import annotations

import difflib
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reward_models.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "templates"

# Legible on white and on near-black alike, and told apart by people who do not see red and green (after Okabe and Ito).
PALETTE = ("#3b82c4", "#e08a1e", "#2a9d76", "#c2568c", "#8a6fc9", "#8b8f98")
INK = "#000000"  # what becomes the page's text colour in a figure


@dataclass(frozen=True)
class Answer:
    """One answer among `Report.samples`.

    Attributes:
        text: the answer.
        label: what stands above it: who wrote it.
        note: beside that: its score.
        compared_with: another answer; words that are new against it are marked. None: nothing is.
    """

    text: str
    label: str = ""
    note: str = ""
    compared_with: str | None = None

    @property
    def parts(self) -> list[tuple[str, bool]]:
        """The text in pieces, outer blanks left out, and whether each is marked."""
        text = self.text.strip()
        if self.compared_with is None or not text:
            return [(text, False)] if text else []
        ours, theirs = (re.findall(r"\s*\S+", words) for words in (text, self.compared_with.strip()))
        matcher = difflib.SequenceMatcher(
            None, [word.strip() for word in theirs], [word.strip() for word in ours], autojunk=False
        )
        return [
            ("".join(ours[start:end]), what != "equal")
            for what, _, _, start, end in matcher.get_opcodes()
            if end > start
        ]


class Report:
    """A page that is put together from the top down and written once.

    >>> report = Report("Reward model", "SupportReply, 2,000 comparisons")
    >>> report.facts({"Accuracy": ("0.87", "0.84 to 0.89"), "Held-out pairs": 602})
    >>> report.heading("Calibration")
    >>> report.write("report.html")

    Every text is shown as it is: nothing in it is markup, and characters that hide or act are shown as glyphs.

    Args:
        title: names the page.
        subtitle: stands below it: what was measured, on what, when.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self._blocks: list[dict[str, Any]] = []

    def heading(self, text: str) -> None:
        """The heading of what follows; headings are listed at the top of a long page."""
        number = sum(block["kind"] == "heading" for block in self._blocks)
        self._add("heading", text=text, anchor=f"section-{number + 1}")

    def text(self, paragraph: str) -> None:
        """A paragraph."""
        self._add("text", text=paragraph)

    def warning(self, text: str) -> None:
        """A paragraph that the reader should not miss."""
        self._add("warning", text=text)

    def facts(self, facts: Mapping[str, Any]) -> None:
        """The figures that matter most, large: what each is -> its value, or (value, a note below it)."""
        cells = [
            (name, *(value if isinstance(value, tuple) else (value, ""))) for name, value in facts.items()
        ]
        self._add("facts", facts=[(str(name), str(value), str(note)) for name, value, note in cells])

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> None:
        """A table; a column of numbers is set to the right.

        Raises:
            ValueError: a row with more or fewer cells than there are headings.
        """
        cells = [[str(cell) for cell in row] for row in rows]
        for number, row in enumerate(cells, 1):
            if len(row) != len(headings):
                raise ValueError(
                    f"Row {number} of a table has {len(row)} cells for {len(headings)} headings: {row}."
                )
        numeric = [
            bool(cells) and all(_is_number(row[column]) for row in cells) for column in range(len(headings))
        ]
        self._add("table", headings=list(map(str, headings)), rows=cells, numeric=numeric, caption=caption)

    def figure(self, figure: Figure, caption: str = "") -> None:
        """A matplotlib figure as inline SVG. What is black in it takes the page's text colour: see `new_figure`."""
        self.figures([figure], caption)

    def figures(self, figures: Sequence[Figure], caption: str = "") -> None:
        """Figures side by side, as many as there is room for, with one caption. None at all leave nothing on the page."""
        number = sum(block["kind"] == "figures" for block in self._blocks) + 1
        drawn = [svg_of(figure, prefix=f"figure{number}-{place}-") for place, figure in enumerate(figures, 1)]
        if drawn:
            self._add("figures", svgs=drawn, caption=caption)

    def samples(self, samples: Iterable[tuple[str, Sequence[Answer]]], caption: str = "") -> None:
        """Texts to read: each a prompt and the answers to it, side by side where there is room. Outer blanks are left out."""
        self._add(
            "samples", samples=[(prompt, list(answers)) for prompt, answers in samples], caption=caption
        )

    def html(self) -> str:
        """The page.

        Raises:
            ImportError: Jinja2 is missing.
        """
        try:
            from jinja2 import Environment, FileSystemLoader, StrictUndefined
        except ImportError as error:
            raise ImportError(f'A report needs Jinja2: pip install "text-envs[report]" ({error}).') from error
        from reward_models.preferences.glyphs import shown

        environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=lambda value: shown(value) if type(value) is str else value,
        )
        environment.globals["plain"] = lambda text: shown(text).striptags()
        sections = [block for block in self._blocks if block["kind"] == "heading"]
        return environment.get_template("report.html").render(
            title=self.title, subtitle=self.subtitle, blocks=self._blocks, sections=sections
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all."""
        page = self.html().encode("utf-8", "replace")  # a model's text may hold lone surrogates
        with replacing(path) as file:
            file.write(page)

    def _add(self, kind: str, **block: Any) -> None:
        self._blocks.append({"kind": kind, **block})


@contextmanager
def new_figure(width: float = 5.6, height: float = 3.4, columns: int = 1) -> Iterator[tuple[Figure, Any]]:
    """A figure in the page's style, its axes within one `with` block: `with new_figure() as (figure, axes)`.

    Args:
        width, height: inches; the page scales the figure down where it is narrower, to two thirds at least. 5.6 fits a phone.
        columns: axes side by side; with more than one, `axes` is an array of them.
    """
    matplotlib = _matplotlib()
    style = {
        "font.family": "sans-serif", "font.size": 10.5, "legend.frameon": False, "lines.linewidth": 2.0,
        "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 10,
        "axes.prop_cycle": matplotlib.cycler(color=PALETTE), "axes.linewidth": 0.8, "axes.axisbelow": True,
        "axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True,
        "axes.grid": True, "grid.color": INK, "grid.alpha": 0.13, "grid.linewidth": 0.8,
        "xtick.major.size": 0, "ytick.major.size": 0, "xtick.major.pad": 6, "ytick.major.pad": 6,
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = matplotlib.figure.Figure(figsize=(width, height))
        yield figure, figure.subplots(1, columns)


def ink(**line: Any) -> dict[str, Any]:
    """Arguments of a reference line, `axes.axhline(0, **ink())`: thin, dashed, in the page's text colour."""
    return {"color": INK, "alpha": 0.55, "linewidth": 1.0, "linestyle": (0, (4, 3)), **line}


def svg_of(figure: Figure, prefix: str = "") -> str:
    """A matplotlib figure as an `<svg>` element that inherits the page's font and, for what is black, its text colour.

    Args:
        prefix: begins every id in it, so that several figures can stand on one page.
    """
    matplotlib = _matplotlib()
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "text-envs", "svg.id": None}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}', svg).replace("url(#", f"url(#{prefix}")
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    width = figure.get_size_inches()[0]
    svg = svg.replace("<svg", f'<svg role="img" style="--width: {width * 96:.0f}px"', 1)
    return svg.replace(INK, "currentColor")


def _matplotlib() -> Any:
    try:
        import matplotlib
        import matplotlib.figure
    except ImportError as error:
        raise ImportError(f'A figure needs matplotlib: pip install "text-envs[report]" ({error}).') from error
    return matplotlib


def _is_number(cell: str) -> bool:
    """Whether a cell reads as a number, with a sign, a unit or an interval after it."""
    return bool(re.match(r"[-+−]?[\d.,]+\s*(%|±|to\b|\(|$)", cell)) or cell in ("", "–", "—")
