"""Text of a model or a stranger as HTML: what hides in it, or turns it round, is shown as a glyph that names itself."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from markupsafe import Markup, escape

# Shown as nothing, though Unicode calls them letters, marks or separators: fillers, variation selectors, line separators.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2028\u2029\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]"
)
# Where a joiner does its work: between the parts of one emoji, and between letters of scripts that join.
_JOINING = "[\u0600-\u06ff\u0750-\u077f\u0900-\u0dff\u1780-\u17ff]"
_JOINED = re.compile(
    f"(?<=[\u2600-\u27bf\ufe0f\U0001f300-\U0001faff])\u200d(?=[\u2190-\u27bf\u2b00-\u2bff\U0001f300-\U0001faff])"
    f"|(?<={_JOINING})[\u200c\u200d](?={_JOINING})"
)
_NAMES = {
    "\x00": "NUL", "\x1b": "ESC", "\x7f": "DEL", "\u00ad": "SHY", "\u061c": "ALM", "\u200b": "ZWSP", "\u200c": "ZWNJ",
    "\u200d": "ZWJ", "\u200e": "LRM", "\u200f": "RLM", "\u2028": "LS", "\u2029": "PS", "\u202a": "LRE", "\u202b": "RLE",
    "\u202c": "PDF", "\u202d": "LRO", "\u202e": "RLO", "\u2060": "WJ", "\u2066": "LRI", "\u2067": "RLI", "\u2068": "FSI",
    "\u2069": "PDI", "\ufeff": "BOM",
}  # fmt: skip
# Python's database names no control character; these are Unicode's aliases for the common ones.
_CONTROLS = {"\x00": "NULL", "\x07": "BELL", "\x08": "BACKSPACE", "\x0b": "LINE TABULATION", "\x0c": "FORM FEED",
             "\r": "CARRIAGE RETURN", "\x1b": "ESCAPE", "\x7f": "DELETE", "\x85": "NEXT LINE"}  # fmt: skip


def shown(text: object) -> Markup:
    """`text` as safe HTML. Line breaks and tabs stay; what shows nothing or acts becomes a labelled box with its name.

    A policy samples any bytes. U+202E shows an answer backwards, U+200B splits a word unseen, tag characters carry
    whole sentences that nobody sees: each stands there as `<span class="glyph" title="U+202E RIGHT-TO-LEFT
    OVERRIDE">RLO</span>`. Joiners inside one emoji, or between letters of Arabic and Indic scripts, are left alone.

    >>> shown("<b>\\u202e")
    Markup('&lt;b&gt;<span class="glyph" title="U+202E RIGHT-TO-LEFT OVERRIDE">RLO</span>')
    """
    return Markup("").join(escape(run) + (_glyph(hidden) if hidden else "") for run, hidden in _pieces(text))


def plain(text: object) -> str:
    """`text` safe for a terminal: as `shown`, with ⟨RLO⟩ in place of the box."""
    return "".join(run + (f"⟨{_label(hidden)}⟩" if hidden else "") for run, hidden in _pieces(text))


def _pieces(text: object) -> Iterator[tuple[str, str]]:
    """What can be shown as it is, and the character after it that cannot; "" after the last."""
    text = str(text).replace("\r\n", "\n")
    if text.isprintable() and not _BLANK.search(text):
        yield text, ""
        return
    kept = {match.start() for match in _JOINED.finditer(text)}
    start = 0
    for index, character in enumerate(text):
        if _hides(character) and index not in kept:
            yield text[start:index], character
            start = index + 1
    yield text[start:], ""


def _hides(character: str) -> bool:
    if character in "\n\t":
        return False
    return unicodedata.category(character)[0] == "C" or _BLANK.match(character) is not None


def _glyph(character: str) -> Markup:
    code = f"U+{ord(character):04X}"
    name = _CONTROLS.get(character) or unicodedata.name(character, "")
    if not name:
        name = "CONTROL CHARACTER" if unicodedata.category(character) == "Cc" else "CHARACTER WITHOUT A NAME"
    return Markup('<span class="glyph" title="{} {}">{}</span>').format(code, name, _label(character))


def _label(character: str) -> str:
    return _NAMES.get(character, f"U+{ord(character):04X}")
