import base64
import io
import re
import urllib.parse

import numpy as np
import pytest
from PIL import Image

from distill.html import figures
from distill.html.figures import OutlinedRegion, colours, enlarged, heat_map, overlay, regions_figure, thumbnail
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


def test_a_map_that_reaches_beyond_the_picture_is_cut_there() -> None:
    values = np.array([[0.0, 0.25, 0.5, 0.75, 1.0]] * 4)
    # The picture fills 4 of 5 columns: its right edge lies where 0.875 is, between the last two cells.
    assert enlarged(values, (400, 40), (4, 4))[20, -1] == pytest.approx(0.87, abs=0.03)
    assert enlarged(values, (400, 40))[20, -1] == pytest.approx(1, abs=0.05)
    assert (enlarged(np.full((2, 2), 0.7), (8, 8)) == 0.5).all()


def test_the_heat_map_has_the_picture_s_size_and_names_its_range() -> None:
    quality = np.linspace(0.2, 0.8, 12).reshape(3, 4)
    stored = Image.open(io.BytesIO(heat_map(quality, (400, 300))))
    assert (stored.format, stored.size) == ("PNG", (400, 300))
    assert stored.info["quality"] == "0.200000 dark to 0.800000 bright"
    pixels = np.asarray(stored)
    assert np.abs(pixels[2, 2].astype(int) - colours(np.array(0.0))).max() < 12
    assert np.abs(pixels[-3, -3].astype(int) - colours(np.array(1.0))).max() < 12
    assert Image.open(io.BytesIO(heat_map(quality, (8000, 100)))).size == (1600, 20)


def outlined(number: int, box: tuple[int, int, int, int]) -> OutlinedRegion:
    return OutlinedRegion(number, box, np.ones((box[3], box[2]), bool), 0.5)


@pytest.mark.parametrize(
    ("size", "panels"), [((480, 600), (600, 480)), ((150, 900), (900, 150)), ((64, 64), (480, 480))]
)
def test_both_panels_show_the_outlines(size: tuple[int, int], panels: tuple[int, int]) -> None:
    rgb = np.full((*size, 3), 128, np.uint8)
    quality = np.linspace(0, 1, 6).reshape(2, 3)
    regions = [outlined(0, (8, 8, size[1] // 2, size[0] // 2)), outlined(1, (size[1] - 1, size[0] - 1, 1, 1))]
    with_regions, without = (
        np.asarray(Image.open(io.BytesIO(regions_figure(rgb, quality, given, heading="a.png")))).astype(int)
        for given in (regions, [])
    )
    wide, tall = panels
    beside = wide <= 1.5 * tall
    assert with_regions.shape == without.shape
    assert with_regions.shape[1] == (2 * wide + 30 if beside else wide + 20)
    scale = wide / size[1]
    for panel in range(2):
        x, y = 10 + panel * (wide + 10) * beside, 10 + panel * (tall + 10) * (not beside)
        difference = np.abs(with_regions - without).sum(2)[y : y + tall, x : x + wide]
        # The upper edge of the first region, in red, and the single pixel in the corner.
        row, columns = int(8 * scale), slice(int(10 * scale), int((size[1] // 2) * scale))
        assert (with_regions[y + row, x:][columns] == [255, 0, 0]).all()
        assert difference[-1, -1] > 0
        assert difference[: int(6 * scale), : int(6 * scale)].sum() == 0


def test_thousands_of_regions_are_drawn_without_covering_the_picture() -> None:
    regions = [outlined(number, (number % 60 * 10, number // 60 * 10, 10, 10)) for number in range(3600)]
    data = regions_figure(
        picture(0, 600, 600), np.random.default_rng(0).random((9, 9)), iter(regions), heading="x" * 500
    )
    assert Image.open(io.BytesIO(data)).size == (1230, 654)
