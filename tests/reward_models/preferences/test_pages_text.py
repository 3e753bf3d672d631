"""Hostile text on a page: nothing in it is markup, and nothing in it hides."""

import pytest

from reward_models.preferences.glyphs import shown


def glyph(code, name, label=None):
    return f'<span class="glyph" title="{code} {name}">{label or code}</span>'


def test_markup_is_text():
    assert (
        shown("<img src=x onerror='alert(1)'> & \"")
        == "&lt;img src=x onerror=&#39;alert(1)&#39;&gt; &amp; &#34;"
    )


@pytest.mark.parametrize(
    "character, expected",
    [
        ("\u202e", glyph("U+202E", "RIGHT-TO-LEFT OVERRIDE", "RLO")),
        ("\u2066", glyph("U+2066", "LEFT-TO-RIGHT ISOLATE", "LRI")),
        ("\u200b", glyph("U+200B", "ZERO WIDTH SPACE", "ZWSP")),
        ("\u200d", glyph("U+200D", "ZERO WIDTH JOINER", "ZWJ")),
        ("\ufeff", glyph("U+FEFF", "ZERO WIDTH NO-BREAK SPACE", "BOM")),
        ("\u00ad", glyph("U+00AD", "SOFT HYPHEN", "SHY")),
        ("\0", glyph("U+0000", "NULL", "NUL")),
        ("\x1b", glyph("U+001B", "ESCAPE", "ESC")),
        ("\r", glyph("U+000D", "CARRIAGE RETURN")),
        ("\x85", glyph("U+0085", "NEXT LINE")),
        ("\x9b", glyph("U+009B", "CONTROL CHARACTER")),
        ("\u2028", glyph("U+2028", "LINE SEPARATOR", "LS")),
        ("\U000e0041", glyph("U+E0041", "TAG LATIN CAPITAL LETTER A")),
        ("\u3164", glyph("U+3164", "HANGUL FILLER")),
        ("\ufe00", glyph("U+FE00", "VARIATION SELECTOR-1")),
        ("\ud800", glyph("U+D800", "CHARACTER WITHOUT A NAME")),
    ],
)
def test_what_hides_or_acts_is_shown(character, expected):
    assert shown(f"a{character}b") == f"a{expected}b"


RANGES = [(0x00, 0x20), (0x7F, 0xA0), (0x200B, 0x2010), (0x202A, 0x202F), (0x2060, 0x2070)]


@pytest.mark.parametrize("code", [code for start, end in RANGES for code in range(start, end)])
def test_whole_ranges_are_shown(code):
    text = str(shown(f"a{chr(code)}b"))
    assert text == f"a{chr(code)}b" if chr(code) in "\n\t" else f"U+{code:04X}" in text


@pytest.mark.parametrize(
    "text",
    [
        "two lines\n\tand a tab",
        "Zürich, 北京, עברית, naïve, é",
        "👨\u200d👩\u200d👧 and ❤\ufe0f\u200d🔥",  # joiners within one emoji
        "می\u200cخواهم",  # a joiner that Persian is spelt with
    ],
)
def test_honest_text_stays_as_it_is(text):
    assert shown(text) == text


def test_windows_line_ends_are_line_ends():
    assert shown("a\r\nb") == "a\nb"


def test_a_joiner_between_latin_letters_is_shown():
    assert "ZWNJ" in shown("pass\u200cword")
