import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from distill.stress.formats import (
    SIDES_PX,
    FormatDifferences,
    SizeScores,
    at_sizes,
    formats,
    in_formats,
    sizes,
    turned_jpeg,
)
from distill.stress.photograph import Photograph
from students.runtime import Result
from tests.helpers.pools import photograph
from tests.helpers.predictors import Predictor, constant

CLEAN = photograph("coffee", 256)


def place_weighted(rgb: np.ndarray) -> np.ndarray:
    """Sees which way a picture is turned."""
    weight = np.linspace(0, 1, rgb.size).reshape(rgb.shape)
    return np.array([[(weight * rgb).mean() / 255]])


class FromFile(Predictor):
    """Says something of a file's own bytes, as a scorer with a decoder of its own would."""

    def __init__(self, look: Callable[[Image.Image], float]):
        self._look = look

    def score(self, image: Any, *, regions: Any = None) -> Result:
        with Image.open(io.BytesIO(image)) as opened:
            value = np.array([[self._look(opened)]])
        return Result(float(value.mean()), value, value)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_turned_files_are_stored_turned_and_shown_upright(orientation: int):
    with Image.open(io.BytesIO(turned_jpeg(CLEAN, orientation))) as stored:
        # Pillow's own reading of the tag, not ours.
        shown = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"), dtype=int)
        assert (stored.size == CLEAN.shape[1::-1]) == (orientation == 3)
    # Worst case measured: 4 levels.
    assert np.abs(shown - CLEAN).max() <= 6


def test_one_that_sees_pixels_says_the_same_of_all_files():
    differences = in_formats(Predictor(place_weighted), Photograph("coffee", CLEAN))
    assert differences.largest < 0.001
    assert differences.alpha == 0


def test_one_that_ignores_exif_is_caught():
    differences = in_formats(FromFile(lambda image: place_weighted(np.asarray(image.convert("RGB"))).item()), taken())
    assert differences.exif > 0.01
    assert differences.jpeg < 0.001


def test_one_that_goes_by_the_format_or_by_alpha_is_caught():
    assert in_formats(FromFile(lambda image: image.format == "PNG"), taken()).jpeg == 1
    differences = in_formats(FromFile(lambda image: image.mode == "RGBA"), taken())
    assert (differences.exif, differences.jpeg, differences.alpha) == (0, 0, 1)


def taken() -> Photograph:
    return Photograph("coffee", CLEAN)


def test_summary_takes_the_largest_of_each():
    summary = formats([FormatDifferences("a", 0.1, 0.2, 0), FormatDifferences("b", 0, 0.3, 0.05)])
    assert (summary.exif, summary.jpeg, summary.alpha) == (0.1, 0.3, 0.05)
    assert [one.photograph for one in summary.worst] == ["b", "a"]


def test_one_that_counts_pixels_is_caught():
    taken = Photograph("coffee", photograph("coffee", 512))
    scores = at_sizes(Predictor(lambda rgb: np.full((1, 1), max(rgb.shape) / 1024)), taken)
    assert scores.scores == (0.375, 0.5, 0.75, 1)
    assert scores.spread == 0.625


def test_one_that_looks_at_the_whole_is_not():
    taken = Photograph("coffee", photograph("coffee", 512))
    assert at_sizes(constant(), taken).spread == 0
    # Lanczos keeps the mean to a grey level.
    assert at_sizes(Predictor(lambda rgb: rgb / 255), taken).spread < 1 / 255


def test_each_size_is_made_from_the_original():
    sides = []

    def look(rgb: np.ndarray) -> np.ndarray:
        sides.append(rgb.shape[:2])
        return np.zeros((1, 1))

    at_sizes(Predictor(look), Photograph("large", np.zeros((1500, 3000, 3), np.uint8)))
    assert sides == [(side // 2, side) for side in SIDES_PX]


def test_summary_of_given_scores():
    summary = sizes([SizeScores("a", (0.5, 0.52, 0.54, 0.5)), SizeScores("b", (0.2, 0.3, 0.3, 0.1))])
    assert summary.mean_spread == pytest.approx(0.12)
    assert summary.mean_score == pytest.approx((0.35, 0.41, 0.42, 0.3))
    assert [one.photograph for one in summary.worst] == ["b", "a"]
