"""Over-sharpening and contrast against scikit-image's unsharp mask and scipy's spline."""

import numpy as np
import pytest
from scipy.interpolate import CubicSpline
from skimage import color
from skimage.filters import unsharp_mask

from pseudo_labels.distort.sharpness import CONTRAST_AMOUNT, SHARPEN_AMOUNT, contrast_change, high_sharpen

LEVELS = [1, 2, 3, 4, 5]


@pytest.mark.parametrize("level", LEVELS)
def test_sharpening_is_an_unsharp_mask_of_lightness(level: int, photo: np.ndarray) -> None:
    gray = photo[..., 1:2].repeat(3, axis=2)
    lightness = color.rgb2lab(gray)[..., 0]
    masked = unsharp_mask(lightness, radius=3, amount=SHARPEN_AMOUNT[level], preserve_range=True)
    found = color.rgb2lab(high_sharpen(gray, level / 5, np.random.default_rng(0)))[..., 0]
    # Theirs reaches 4 deviations and mirrors nothing; ours 3. Away from the borders, and relative to the amount.
    difference = np.abs(found - np.clip(masked, 0, 100))[15:-15, 15:-15]
    assert difference.mean() < 0.2 + 0.1 * SHARPEN_AMOUNT[level]


def test_sharpening_leaves_flat_areas_alone() -> None:
    flat = np.full((64, 64, 3), (90, 140, 60), np.uint8)
    assert np.array_equal(high_sharpen(flat, 1.0, np.random.default_rng(0)), flat)


@pytest.mark.parametrize("level", LEVELS)
def test_contrast_is_the_spline_through_five_points(level: int) -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (64, 1, 3))
    move = CONTRAST_AMOUNT[level] / 4
    seen = set()
    for seed in range(12):
        found = contrast_change(ramp, level / 5, np.random.default_rng(seed))[0, :, 0].astype(int)
        direction = 1 if found[200] > 200 else -1
        spline = CubicSpline((0, 0.3, 0.5, 0.7, 1), (0, 0.3 - direction * move, 0.5, 0.7 + direction * move, 1))
        assert np.abs(found - np.clip(255 * spline(np.arange(256) / 255), 0, 255)).max() <= 0.5 + 1e-9
        seen.add(direction)
    assert seen == {1, -1}
