"""Views by name and by pixels."""

import numpy as np
import pytest

from pseudo_labels.crops import FLIP, FULL, WHOLE, Crop, RandomCrops, crop_of
from pseudo_labels.errors import PocketiqaError


def test_a_window_is_the_same_part_at_every_size():
    window = Crop(0.25, 0.5, 0.5, 0.5)
    assert window.in_pixels(80, 40) == (20, 20, 40, 20)
    assert window.in_pixels(512, 512) == (128, 256, 256, 256)
    rgb = np.arange(80 * 40 * 3, dtype=np.uint8).reshape(80, 40, 3)
    assert np.array_equal(window.cut(rgb), rgb[20:60, 20:40])
    assert np.array_equal(WHOLE.cut(rgb), rgb)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (77, 513)])
def test_a_window_never_leaves_the_image(size: tuple[int, int]):
    for number in range(200):
        top, left, height, width = RandomCrops(0.01, 1.0).of(str(number)).in_pixels(*size)
        assert top >= 0 <= left
        assert 1 <= height <= size[0] - top
        assert 1 <= width <= size[1] - left


def test_a_view_is_read_back_from_its_name():
    assert crop_of(FULL) == crop_of(FLIP) == WHOLE
    for number in range(200):
        window = RandomCrops(0.3, 1.0, seed=2).of(str(number))
        assert crop_of(window.view) == window


def test_random_crops_follow_from_seed_and_image_and_fill_their_range():
    crops = RandomCrops(0.5, 0.9, seed=1)
    windows = [crops.of(str(number)) for number in range(400)]
    assert windows == [RandomCrops(0.5, 0.9, seed=1).of(str(number)) for number in range(400)]
    assert windows[0] != RandomCrops(0.5, 0.9, seed=2).of("0")
    fractions = np.array([window.height for window in windows])
    assert fractions.min() >= 0.5
    assert fractions.max() <= 0.9
    assert abs(fractions.mean() - 0.7) < 0.02
    assert all(window.height == window.width for window in windows)
    positions = np.array([[window.top, window.left] for window in windows]) / (1 - fractions[:, None])
    assert np.abs(positions.mean(axis=0) - 0.5).max() < 0.05


@pytest.mark.parametrize(
    "name", ["upside down", "crop", "crop 0.1 0.1 0.5 0.5", "crop 0.6000 0.0000 0.5000 0.5000",
             "crop 0.0000 0.0000 0.0000 0.5000", "crop 0.0000 0.0000 0.5000 0.5000 more"],
)  # fmt: skip
def test_other_views_are_refused(name: str):
    with pytest.raises(PocketiqaError, match=r"unknown view '.*': known are 'full', 'flip' and such as 'crop 0.1000"):
        crop_of(name)


@pytest.mark.parametrize("fractions", [(0.0, 0.5), (0.6, 0.5), (0.5, 1.1), (float("nan"), 0.5)])
def test_shares_out_of_range_are_refused(fractions: tuple[float, float]):
    with pytest.raises(PocketiqaError, match=r"crops from .* of a side: give two fractions above 0 and at most 1"):
        RandomCrops(*fractions)
