"""The sheet of styles: whole, safe to put into a page, and with all colours in both schemes."""

import re
from pathlib import Path

from distill.html.style import CSS
from tests.helpers.imports import ROOT


def colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"(--[a-z]+): (#[0-9a-f]{6})", block))


def test_braces_are_closed_and_nothing_is_loaded():
    depth = 0
    for sign in re.findall("[{}]", CSS):
        depth += 1 if sign == "{" else -1
        assert depth >= 0
    assert depth == 0
    assert not re.search(r"@import|url\(|<|expression", CSS)


def test_every_colour_has_a_value_in_the_light_and_the_dark_scheme():
    light, dark = (colours(block) for block in re.findall(r":root \{(.*?)\}", CSS, re.S))
    assert light.keys() == dark.keys()
    # ``--part`` is no colour: an element of a heat map sets it for itself.
    assert set(re.findall(r"var\((--[a-z]+)\)", CSS)) - {"--part"} <= light.keys()
    # Text on its card: at least the contrast of 4.5 that WCAG 2.1 asks for.
    for scheme in (light, dark):
        assert contrast(scheme["--ink"], scheme["--card"]) > 7
        assert contrast(scheme["--soft"], scheme["--card"]) > 4.5


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_classes_of_the_pages_are_styled():
    # Classes that pages use and no rule names would be words without effect.
    used = {"tiles", "gallery", "pair", "pairs", "scores", "bar", "scale", "ends", "charts", "digest", "soft"}
    text = "".join(path.read_text() for path in Path(ROOT, "distill").rglob("*.py"))
    for name in used:
        assert f'class_="{name}"' in text
        assert re.search(rf"\.{name}\b", CSS)
