"""The rising curve that is nearest to points: isotonic regression, centred; numpy alone, for the base install."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def isotonic_levels(values: FloatArray, weights: FloatArray) -> tuple[FloatArray, NDArray[np.int64]]:
    """The rising sequence with the least weighted squared distance, by pooling adjacent violators.

    Source: Barlow et al., "Statistical Inference under Order Restrictions" (1972), section 1.2.

    Args:
        values: [N].
        weights: [N], above 0.

    Returns:
        The level of each block, strictly rising, and the number of its block for each value [N].
    """
    levels, totals, sizes = [], [], []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        size = 1
        # A block that does not rise above the one before it is joined with it, as often as that is so.
        while levels and levels[-1] >= value:
            before = totals.pop()
            value, weight = (levels.pop() * before + value * weight) / (before + weight), before + weight
            size += sizes.pop()
        levels.append(value)
        totals.append(weight)
        sizes.append(size)
    return np.array(levels), np.repeat(np.arange(len(levels)), sizes)


def centred_isotonic(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Centred isotonic regression: each plateau becomes one knot at its mean, with straight lines between.

    Plain isotonic regression is a staircase that ties all x of a plateau; centring keeps their order and is nearer to a
    rising truth (Oron and Flournoy, "Centered isotonic regression", 2017).

    Args:
        x: [N].
        y: [N].

    Returns:
        x and y of the knots, both strictly rising.
    """
    values, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    levels, block = isotonic_levels(np.bincount(inverse, y) / counts, counts.astype(np.float64))
    return np.bincount(block, counts * values) / np.bincount(block, counts), levels
