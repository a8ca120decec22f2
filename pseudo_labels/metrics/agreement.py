"""Rank agreement of two sets of scores, and how far it would move with other images."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pseudo_labels.metrics.correlation import srcc

FloatArray = NDArray[np.float64]

# Fewer than a report's 1000: no score is computed from these ends.
_RESAMPLES = 300
_AT_ONCE = 50  # resamples held in memory, each 8 bytes an image in a few arrays; divides ``_RESAMPLES``
_TAIL = 0.025
_MIN_GROUPS = 5  # percentiles of resamples of fewer groups say nothing


@dataclass(frozen=True)
class Agreement:
    """Spearman's rank correlation with a 95 % interval.

    Attributes:
        n: images.
        srcc: in [-1, 1]; None where it does not exist (fewer than 3 images, or constant scores).
        low: lower end of the interval; None without one (fewer than 5 groups).
        high: upper end.
    """

    n: int
    srcc: float | None
    low: float | None = None
    high: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Agreement":
        """Inverse of ``as_dict``."""
        return cls(**record)

    def __str__(self) -> str:
        if self.srcc is None:
            return f"no SRCC (n={self.n})"
        ends = "" if self.low is None else f" [{self.low:.2f}, {self.high:.2f}]"
        return f"SRCC {self.srcc:.2f}{ends} (n={self.n})"


def agree(first: ArrayLike, second: ArrayLike, groups: Sequence[str] | None = None, *, seed: int = 0) -> Agreement:
    """SRCC with the percentile interval of 300 resamples of whole groups (Efron and Tibshirani 1993, section 13.3).

    Args:
        first: [N], finite.
        second: [N], finite.
        groups: images of one scene share a group; None makes every image a group of its own.
        seed: seed of the resamples.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    correlation = srcc(a, b)
    if np.isnan(correlation):
        return Agreement(len(a), None)
    samples = _resampled(a, b, _group_numbers(len(a), groups), seed)
    # Where scores are constant in most resamples, percentiles of the others would be those of a selection.
    if len(samples) < _RESAMPLES / 2:
        return Agreement(len(a), _rounded(correlation))
    low, high = np.quantile(samples, [_TAIL, 1 - _TAIL])
    return Agreement(len(a), _rounded(correlation), _rounded(low), _rounded(high))


def _group_numbers(images: int, groups: Sequence[str] | None) -> NDArray[np.int64]:
    if groups is None:
        return np.arange(images)
    return np.unique(np.asarray(groups, object), return_inverse=True)[1].astype(np.int64)


def _resampled(a: FloatArray, b: FloatArray, groups: NDArray[np.int64], seed: int) -> FloatArray:
    number = int(groups.max()) + 1
    if number < _MIN_GROUPS:
        return np.empty(0)
    generator = np.random.default_rng(seed)
    samples = []
    for _ in range(0, _RESAMPLES, _AT_ONCE):
        # Each resample counts in numbers of its own, from ``number`` times its index: one ``bincount`` does for all of
        # them.
        drawn = generator.integers(0, number, (_AT_ONCE, number)) + number * np.arange(_AT_ONCE)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=_AT_ONCE * number).reshape(_AT_ONCE, number)[:, groups]
        samples.append(_weighted_pearson(counts, _weighted_ranks(a, counts), _weighted_ranks(b, counts)))
    correlations = np.concatenate(samples)
    return correlations[~np.isnan(correlations)]


def _weighted_ranks(values: FloatArray, counts: NDArray[np.int64]) -> FloatArray:
    """Mean rank of each image in each resample [R, N], where image n occurs ``counts[r, n]`` times."""
    _, inverse = np.unique(values, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.searchsorted(inverse[order], np.arange(inverse.max() + 1))
    # Mean rank of equal values: how many are below, and the mean of 1 .. tied.
    tied = np.add.reduceat(counts[:, order], starts, axis=1)
    return (np.cumsum(tied, axis=1) - tied + (tied + 1) / 2)[:, inverse]


def _weighted_pearson(counts: NDArray[np.int64], a: FloatArray, b: FloatArray) -> FloatArray:
    total = counts.sum(axis=1, keepdims=True)
    a = a - (counts * a).sum(axis=1, keepdims=True) / total
    b = b - (counts * b).sum(axis=1, keepdims=True) / total
    cross, own_a, own_b = (counts * a * b).sum(1), (counts * a * a).sum(1), (counts * b * b).sum(1)
    # Exactly 0 for a constant resample: ranks are multiples of one half, whose sums and mean are exact.
    exists = (own_a > 0) & (own_b > 0)
    return np.where(exists, cross / np.sqrt(np.where(exists, own_a * own_b, 1.0)), np.nan)


def _rounded(value: float) -> float:
    # Part of digests: the last bits of a sum differ between machines.
    return round(float(value), 9)
