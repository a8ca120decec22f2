"""Spatial distortions against counting, closed forms and scikit-image's Otsu thresholds."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import wasserstein_distance
from skimage.filters import threshold_multiotsu

from pseudo_labels.distort.scale import KADID_AREA_PX
from pseudo_labels.distort.spatial import (
    BLOCKS,
    JITTER_PX,
    PATCHES,
    PIXELATE_SCALE,
    THRESHOLDS,
    color_block,
    jitter,
    non_eccentricity_patch,
    otsu_levels,
    pixelate,
    quantization,
)

LEVELS = [1, 2, 3, 4, 5]


def _rng() -> np.random.Generator:
    return np.random.default_rng(2)


@pytest.mark.parametrize("level", LEVELS)
def test_jitter_displaces_by_its_deviation(level: int) -> None:
    """On a ramp of 8 a pixel the grey level is the place: five warps of s pixels are one of sqrt(5) s."""
    ramp = np.tile(np.arange(0, 256, 8, dtype=np.uint8)[None, :, None], (1000, 1, 3))
    moved = jitter(ramp, level / 5, _rng()).astype(float) - ramp
    expected = 64 * 5 * JITTER_PX[level] ** 2 + 1 / 12
    # 12,000 displacements: 4 % is three standard errors.
    assert moved[:, 10:-10].var() == pytest.approx(expected, rel=0.04)


def test_jitter_keeps_the_histogram(photo: np.ndarray) -> None:
    for level in LEVELS:
        moved = jitter(photo, level / 5, _rng())
        # Worst case measured: 1.7 grey levels.
        assert wasserstein_distance(moved.ravel(), photo.ravel()) < 3


@pytest.mark.parametrize("level", LEVELS)
def test_patches_are_copies_from_nearby(level: int) -> None:
    """On a picture whose colour is its place: whatever moved came from at most half a patch away."""
    rows, columns = np.mgrid[0:192, 0:240]
    positions = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    moved = non_eccentricity_patch(positions, level / 5, _rng()).astype(int)
    side = round(16 * math.sqrt(192 * 240 / KADID_AREA_PX))
    changed = (moved != positions).any(axis=-1)
    assert 0 < changed.sum() <= PATCHES[level] * side**2
    # A patch may be copied from a copy: few are more than two moves away.
    distance = np.abs(moved - positions).max(axis=-1)
    assert (distance[changed] <= math.ceil(side / 2)).mean() > 0.8
    assert distance.max() <= 4 * math.ceil(side / 2)


@pytest.mark.parametrize("level", LEVELS)
def test_pixelate_repeats_a_smaller_image(level: int, photo: np.ndarray) -> None:
    coarse = pixelate(photo, level / 5, _rng())
    rows, columns = round(photo.shape[0] * PIXELATE_SCALE[level]), round(photo.shape[1] * PIXELATE_SCALE[level])
    assert len(np.unique(coarse.reshape(len(coarse), -1), axis=0)) <= rows
    assert len(np.unique(coarse.swapaxes(0, 1).reshape(coarse.shape[1], -1), axis=0)) <= columns
    # Block edges: rows that differ from the one above.
    edges = (coarse[1:] != coarse[:-1]).any(axis=(1, 2)).sum()
    assert edges <= rows - 1
    originals = {tuple(pixel) for pixel in photo.reshape(-1, 3)}
    assert {tuple(pixel) for pixel in coarse.reshape(-1, 3)} <= originals


@pytest.mark.parametrize("level", LEVELS)
def test_quantization_leaves_one_grey_level_a_class(level: int, photo: np.ndarray) -> None:
    few = quantization(photo, level / 5, _rng())
    assert len(np.unique(few)) == THRESHOLDS[level] + 1
    # Means of classes: the mean of all is kept, up to rounding.
    assert few.mean() == pytest.approx(photo.mean(), abs=0.5)


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_classes_are_those_of_multi_otsu(classes: int, photo: np.ndarray) -> None:
    gray = photo[..., 1]
    levels = otsu_levels(np.bincount(gray.ravel(), minlength=256).astype(float), classes)
    thresholds = np.flatnonzero(np.diff(levels))
    theirs = threshold_multiotsu(gray, classes)
    # Where two splits are equally good up to rounding, the variance decides.
    assert _variance_within(gray, thresholds) <= _variance_within(gray, theirs) + 1e-9
    assert np.abs(thresholds - theirs).max() <= 1


def _variance_within(gray: np.ndarray, thresholds: np.ndarray) -> float:
    classes = np.searchsorted(thresholds, gray.ravel(), side="left")
    parts = [gray.ravel()[classes == index].astype(float) for index in range(len(thresholds) + 1)]
    return sum(((part - part.mean()) ** 2).sum() for part in parts if len(part)) / gray.size


def test_classes_are_the_best_of_all() -> None:
    """Against every possible split of a small histogram."""
    counts = np.array([3, 0, 1, 7, 2, 5, 0, 4, 1, 6], float)
    grey = np.arange(len(counts))

    def within(cuts: tuple[int, ...]) -> float:
        total = 0.0
        for low, high in itertools.pairwise((0, *cuts, len(counts))):
            weights, values = counts[low:high], grey[low:high]
            mean = np.average(values, weights=weights) if weights.sum() else 0
            total += float((weights * (values - mean) ** 2).sum())
        return total

    for classes in (1, 2, 3, 4):
        levels = otsu_levels(counts, classes)
        best = min(within(cuts) for cuts in itertools.combinations(range(1, len(counts)), classes - 1))
        assert (counts * (grey - levels) ** 2).sum() == pytest.approx(best)


def test_an_image_with_fewer_grey_levels_than_classes_is_kept() -> None:
    image = np.full((64, 64, 3), 10, np.uint8)
    image[:20], image[20:30] = 90, 200
    assert np.array_equal(quantization(image, 0.2, _rng()), image)


def test_blocks_and_patches_fit_into_a_panorama() -> None:
    """64 pixels high, an area at which their side would be 80 and 160."""
    columns = np.arange(80_000)
    panorama = np.tile(np.stack([columns % 256, columns // 256, columns % 7], -1).astype(np.uint8), (64, 1, 1))
    for operator in (color_block, non_eccentricity_patch):
        changed = (operator(panorama, 1.0, _rng()) != panorama).any(axis=-1)
        assert changed.any()
        assert not changed.all(axis=0).any()


@pytest.mark.parametrize("level", LEVELS)
def test_blocks_are_squares_of_one_colour(level: int) -> None:
    gray = np.full((384, 512, 3), 128, np.uint8)
    covered = color_block(gray, level / 5, _rng())
    colours, counts = np.unique(covered.reshape(-1, 3), axis=0, return_counts=True)
    blocks = [(colour, count) for colour, count in zip(colours, counts, strict=True) if (colour != 128).any()]
    assert 1 <= len(blocks) <= BLOCKS[level]
    assert all(count <= 32**2 for _, count in blocks)
    # The generator's first block may be covered by later ones, the largest one is whole.
    assert max(count for _, count in blocks) == 32**2
    where = np.argwhere((covered == max(blocks, key=lambda block: block[1])[0]).all(axis=-1))
    assert (np.ptp(where, axis=0) == 31).all()
