import numpy as np
import pytest

from distill.stress.photograph import Photograph
from distill.stress.sizes import SIDES_PX, SizeScores, at_sizes, sizes
from tests.helpers.judges import Judge, constant
from tests.helpers.pools import photograph


def test_one_that_counts_pixels_is_caught():
    taken = Photograph("coffee", photograph("coffee", 512))
    found = at_sizes(Judge(lambda rgb: np.full((1, 1), max(rgb.shape) / 1024)), taken)
    assert found.scores == (0.375, 0.5, 0.75, 1)
    assert found.spread == 0.625


def test_one_that_looks_at_the_whole_is_not():
    taken = Photograph("coffee", photograph("coffee", 512))
    assert at_sizes(constant(), taken).spread == 0
    # Lanczos keeps the mean to a grey level.
    assert at_sizes(Judge(lambda rgb: rgb / 255), taken).spread < 1 / 255


def test_each_size_is_made_from_the_original():
    sides = []

    def look(rgb: np.ndarray) -> np.ndarray:
        sides.append(rgb.shape[:2])
        return np.zeros((1, 1))

    at_sizes(Judge(look), Photograph("large", np.zeros((1500, 3000, 3), np.uint8)))
    assert sides == [(side // 2, side) for side in SIDES_PX]


def test_summary_of_given_scores():
    found = sizes([SizeScores("a", (0.5, 0.52, 0.54, 0.5)), SizeScores("b", (0.2, 0.3, 0.3, 0.1))])
    assert found.mean_spread == pytest.approx(0.12)
    assert found.mean_score == pytest.approx((0.35, 0.41, 0.42, 0.3))
    assert [one.photograph for one in found.worst] == ["b", "a"]
