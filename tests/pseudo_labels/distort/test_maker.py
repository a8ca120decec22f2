"""Sizes of shrunk references."""

import numpy as np
import pytest

from pseudo_labels.distort.maker import shrink, shrunk_size


@pytest.mark.parametrize(
    ("size", "max_side", "expected"),
    [
        ((768, 512), 384, (384, 256)),
        ((512, 768), 384, (256, 384)),
        ((384, 100), 384, (384, 100)),
        ((300, 200), None, (300, 200)),
        ((300, 200), 1000, (300, 200)),
        ((1001, 333), 500, (500, 166)),
        ((1000, 100), 384, (640, 64)),  # the short side stops at 64
        ((5000, 64), 384, (5000, 64)),
    ],
)
def test_shrunk_size(size: tuple[int, int], max_side: int | None, expected: tuple[int, int]) -> None:
    assert shrunk_size(*size, max_side) == expected


def test_shrink_averages(photo: np.ndarray) -> None:
    """The mean colour is kept, and a tone between two stripes comes out."""
    small = shrink(photo, 96)
    assert small.shape == (80, 96, 3)
    assert np.abs(small.mean(axis=(0, 1)) - photo.mean(axis=(0, 1))).max() < 1
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.abs(shrink(stripes, 64).astype(int) - 100)[:, 4:-4].max() <= 3
    assert shrink(photo, 192) is photo
