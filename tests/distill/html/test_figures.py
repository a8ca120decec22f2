import base64
import io
import re
import urllib.parse

import numpy as np
import pytest
from PIL import Image

from distill.html import figures
from distill.html.figures import colours, overlay, thumbnail
from tests.helpers.report_sample import picture


def decoded(markup: str) -> Image.Image:
    """The image as a browser reads it: percent signs first, then base64."""
    match = re.search(r'src="data:image/jpeg;base64,([^"]+)"', markup)
    assert match
    return Image.open(io.BytesIO(base64.b64decode(urllib.parse.unquote(match[1]))))


def test_thumbnail_is_stored_at_twice_its_size_and_keeps_the_aspect() -> None:
    markup = thumbnail(picture(0, 600, 1200), alt='a "quoted" <name>')
    image = decoded(markup)
    assert image.size == (480, 240)
    assert 'width="240" height="120"' in markup
    assert 'alt="a &quot;quoted&quot; &lt;name&gt;"' in markup


def test_small_images_are_not_blown_up() -> None:
    assert decoded(thumbnail(picture(0, 70, 90), alt="x")).size == (90, 70)


def test_thumbnail_shows_the_image() -> None:
    rgb = picture(3, 300, 400)
    shown = np.asarray(decoded(thumbnail(rgb, alt="x")).resize((40, 30)), float)
    wanted = np.asarray(Image.fromarray(rgb).resize((40, 30)), float)
    assert np.abs(shown - wanted).mean() < 4


def test_no_address_arises_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = base64.b64decode("AAAAhttpAAAA")
    address = figures._data_address(chance)
    assert "http" not in address
    assert base64.b64decode(urllib.parse.unquote(address.split(",")[1])) == chance


def test_colours_run_from_dark_to_bright() -> None:
    mapped_colours = colours(np.array([-1.0, 0.0, 0.5, 1.0, 2.0]))
    luma = mapped_colours.astype(float) @ [0.299, 0.587, 0.114]
    assert mapped_colours.dtype == np.uint8
    assert luma[0] == luma[1] < luma[2] < luma[3] == luma[4]


def test_overlay_is_dark_where_the_quality_is_low() -> None:
    rgb = np.full((80, 120, 3), 128, np.uint8)
    quality = np.ones((4, 6))
    quality[:, :3] = 0.2
    shown = overlay(rgb, quality).mean(axis=2)
    assert shown.shape == (80, 120)
    assert shown[:, :40].mean() < shown[:, 80:].mean() - 20
    assert np.isfinite(overlay(rgb, np.full((4, 6), 0.5))).all()
