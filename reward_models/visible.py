"""Text of a model or a stranger, made safe to look at."""

import unicodedata


def visible(text: str) -> str:
    """`text` with line breaks and tabs as they are, and every other character that shows nothing, or acts, as a glyph.

    A policy samples any bytes: control characters recolour a terminal, bidirectional ones (U+202E) show a text
    backwards. Control characters become their pictures, such as ␛; others their number, such as ⟨U+202E⟩.
    """
    return text if text.isprintable() else "".join(map(_glyph, text))


def _glyph(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character)[0] != "C":
        return character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"
