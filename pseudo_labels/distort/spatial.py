"""Five spatial distortions of KADID-10k (Lin, Hosu, Saupe 2019), with its level tables."""

import math

import numpy as np
from PIL import Image
from scipy import ndimage

from pseudo_labels.distort.scale import KADID_AREA_PX, at, from_planes, to_planes, to_uint8

# Level 0, then the levels 1 to 5.
JITTER_PX = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
JITTER_PASSES = 5
PATCHES = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)
PATCH_PX = 16
# KADID's strengths s are 0.01, 0.05, 0.1, 0.2 and 0.5; the scale is 0.95 - s^0.6.
PIXELATE_SCALE = (1.0, *(0.95 - strength**0.6 for strength in (0.01, 0.05, 0.1, 0.2, 0.5)))
THRESHOLDS = (64.0, 20.0, 16.0, 13.0, 10.0, 7.0)
BLOCKS = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)
BLOCK_PX = 32


def _scaled_side(side_px: int, rgb: np.ndarray) -> int:
    """Side that takes the same fraction of this image as ``side_px`` takes of a picture of KADID-10k.

    At most half the short side, so that it fits into a panorama.
    """
    height, width = rgb.shape[:2]
    side = round(side_px * math.sqrt(height * width / KADID_AREA_PX))
    return min(max(2, side), min(height, width) // 2)


def jitter(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Every pixel is fetched from a random place nearby, bilinearly.

    KADID-10k warps five times in a row; displacements being independent, one warp of sqrt(5) times their size scatters
    as far in a fifth of the time.
    """
    sigma_px = at(JITTER_PX, severity) * math.sqrt(JITTER_PASSES)
    height, width = rgb.shape[:2]
    grid = np.mgrid[0:height, 0:width].astype(np.float32)
    grid += sigma_px * rng.standard_normal(grid.shape, dtype=np.float32)
    warped = [ndimage.map_coordinates(plane, grid, order=1, mode="nearest") for plane in to_planes(rgb)]
    return from_planes(np.stack(warped))


def non_eccentricity_patch(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Small square patches copied to a place nearby, at most half their side away in each direction."""
    side = _scaled_side(PATCH_PX, rgb)
    room = np.array(rgb.shape[:2]) - side
    copied = rgb.copy()
    # At least one, so that no level leaves the image as it is. Each takes the same number of draws: from one state of
    # the generator, a higher severity repeats the patches of a lower one and adds more.
    for _ in range(max(1, round(at(PATCHES, severity)))):
        top, left = (rng.random(2) * room).astype(int)
        down, right = np.rint((rng.random(2) - 0.5) * side).astype(int)
        to_top, to_left = np.clip((top + down, left + right), 0, room)
        patch = copied[top : top + side, left : left + side].copy()
        copied[to_top : to_top + side, to_left : to_left + side] = patch
    return copied


def pixelate(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Sampled down and up again, nearest neighbour both times."""
    scale = at(PIXELATE_SCALE, severity)
    height, width = rgb.shape[:2]
    small = Image.fromarray(rgb).resize((round(width * scale), round(height * scale)), Image.Resampling.NEAREST)
    return np.array(small.resize((width, height), Image.Resampling.NEAREST))


def quantization(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Few grey levels in each channel, between thresholds by Otsu's criterion over all samples."""
    histogram = np.bincount(rgb.ravel(), minlength=256).astype(np.float64)
    return to_uint8(otsu_levels(histogram, round(at(THRESHOLDS, severity)) + 1))[rgb]


def otsu_levels(histogram: np.ndarray, classes: int) -> np.ndarray:
    """The mean of its class for every grey level, classes chosen for the least variance within (Otsu 1979).

    Exact for any number of classes, by dynamic programming: the best split of the levels 0..j into k classes is the
    best split of 0..i-1 into k-1 and one class i..j.

    Args:
        histogram: counts, float64, one a grey level.
        classes: how many, at least 1; fewer come out if fewer grey levels occur.
    """
    grey = np.arange(len(histogram))
    count, total, square = (np.concatenate([[0.0], np.cumsum(histogram * grey**power)]) for power in range(3))
    n, s, q = (sums[None, 1:] - sums[:-1, None] for sums in (count, total, square))
    # Row i, column j: squared deviations in a class of the levels i .. j. Below the diagonal there is no such class.
    spread = np.where(np.tri(len(grey), k=-1, dtype=bool), np.inf, q - s**2 / np.maximum(n, 1))
    best, starts = spread[0], []
    for _ in range(classes - 1):
        candidates = np.concatenate([[np.inf], best[:-1]])[:, None] + spread
        starts.append(candidates.argmin(axis=0))
        best = candidates.min(axis=0)
    levels, end = np.empty(len(grey)), len(grey)
    for start_of in [*reversed(starts), None]:
        start = 0 if start_of is None else int(start_of[end - 1])
        levels[start:end] = (total[end] - total[start]) / max(count[end] - count[start], 1)
        end = start
    return levels


def color_block(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Squares of one random colour at random places."""
    side = _scaled_side(BLOCK_PX, rgb)
    room = np.array(rgb.shape[:2]) - side
    covered = rgb.copy()
    # As with patches: at least one, and a higher severity adds to those of a lower one.
    for _ in range(max(1, round(at(BLOCKS, severity)))):
        top, left = (rng.random(2) * room).astype(int)
        covered[top : top + side, left : left + side] = (rng.random(3) * 256).astype(np.uint8)
    return covered
