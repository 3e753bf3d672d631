"""Text can be read on its ground, in light and in dark: WCAG 2.1's contrast, AA."""

import re

import pytest

from reward_models.preferences.server import STATIC

PAIRS = [
    ("ink", "ground"),
    ("ink", "card"),
    ("ink", "tint"),
    ("soft", "ground"),
    ("soft", "card"),
    ("soft", "tint"),
    ("accent", "ground"),
    ("accent", "card"),
    ("accent", "tint"),
    ("on-accent", "accent"),
    ("good", "ground"),
    ("trouble", "ground"),
    ("glyph", "glyph-ground"),
]


def themes():
    """The colours of the style sheet, light and dark."""
    blocks = re.findall(r":root \{(.*?)\n\s*\}", (STATIC / "style.css").read_text(), re.DOTALL)
    light, dark = (
        {name: code for name, code in re.findall(r"--([\w-]+): #(\w{6});", block)} for block in blocks[:2]
    )
    return {"light": light, "dark": light | dark}


def luminance(code):
    """Relative luminance of an sRGB colour, 0 to 1: WCAG 2.1, 1.4.3."""
    parts = [int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_the_measure_itself():
    assert contrast("000000", "ffffff") == pytest.approx(21)
    assert contrast("777777", "ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("text, ground", PAIRS)
def test_text_is_legible(theme, text, ground):
    colours = themes()[theme]
    assert contrast(colours[text], colours[ground]) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("ground", ["ground", "card"])
def test_what_can_be_pressed_has_a_visible_edge(theme, ground):
    colours = themes()[theme]
    assert contrast(colours["edge"], colours[ground]) >= 3
