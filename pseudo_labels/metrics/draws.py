"""Resamples and folds of whole groups of images, and the interval of what was computed in each; numpy alone.

Whole groups are drawn with replacement, because images of one scene are not independent. A resample is never copied
out: it is a count for each image, and every metric is computed from counts, so 1000 resamples cost a few matrix
products. Two models evaluated with the same ``Draws`` see the same resamples, which makes their difference paired.

Source: Efron and Tibshirani, "An introduction to the bootstrap" (1993), sections 13.3 (percentile interval) and 8.3
(dependent data).
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pseudo_labels.errors import PocketiqaError

FloatArray = NDArray[np.float64]

LEVEL = 0.95
MIN_GROUPS = 5  # percentiles of resamples of fewer groups say nothing
_CHUNK_COUNTS = 2_000_000  # counts held at once: 16 MB as float64


@dataclass(frozen=True)
class Interval:
    """A percentile interval.

    Attributes:
        low: lower bound; NaN if there is none.
        high: upper bound; NaN if there is none.
        resamples: resamples in which the metric existed.
        reason: why there is no interval; empty otherwise.
    """

    low: float
    high: float
    resamples: int
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON form: NaN becomes null."""
        ends = {"low": self.low, "high": self.high}
        return {key: None if np.isnan(end) else end for key, end in ends.items()} | {"interval_reason": self.reason}


@dataclass(frozen=True)
class Draws:
    """Resamples of a set of images, repeatable from the seed.

    Attributes:
        groups: group number of each image, from 0 without gaps.
        resamples: how many resamples.
        seed: seed of the draws.
    """

    groups: NDArray[np.int64]
    resamples: int = 1000
    seed: int = 0

    @classmethod
    def of(cls, images: int, groups: Sequence[str] | None = None, *, resamples: int = 1000, seed: int = 0) -> "Draws":
        """Draws over ``images`` images; without ``groups`` every image is a group of its own.

        Raises:
            PocketiqaError: there is not one group for each image, or no resample is asked for.
        """
        if groups is not None and len(groups) != images:
            raise PocketiqaError(f"{len(groups)} groups for {images} images: give one group for each image")
        if resamples < 1:
            raise PocketiqaError(f"{resamples} resamples: at least 1 is needed, 1000 is usual")
        numbers = np.arange(images) if groups is None else np.unique(np.asarray(groups, object), return_inverse=True)[1]
        return cls(numbers.astype(np.int64), resamples, seed)

    def groups_in(self, keep: NDArray[np.bool_]) -> int:
        """Distinct groups among the images kept."""
        return len(np.unique(self.groups[keep]))

    def counts(self) -> Iterator[FloatArray]:
        """How often each image occurs in each resample: arrays [resamples of the chunk, images]."""
        images = len(self.groups)
        number = int(self.groups.max()) + 1 if images else 0
        generator = np.random.default_rng(self.seed)
        chunk = max(1, _CHUNK_COUNTS // max(images, 1))
        for start in range(0, self.resamples, chunk):
            rows = min(chunk, self.resamples - start)
            # Each resample counts in numbers of its own, from ``number`` times its index: one ``bincount`` does for all
            # of them. The generator's stream does not depend on where a chunk ends, so neither do the resamples.
            drawn = generator.integers(0, number, size=(rows, number)) + number * np.arange(rows)[:, None]
            of_group = np.bincount(drawn.ravel(), minlength=rows * number).reshape(rows, number)
            yield of_group[:, self.groups].astype(np.float64)


def interval(samples: FloatArray, groups: int) -> Interval:
    """The middle 95 % of the resamples in which the metric exists.

    Args:
        samples: one metric in every resample.
        groups: groups that were drawn from; below ``MIN_GROUPS`` there is no interval.
    """
    nothing = float("nan")
    if groups < MIN_GROUPS:
        return Interval(nothing, nothing, 0, f"{groups} groups, at least {MIN_GROUPS} are needed for an interval")
    there = samples[~np.isnan(samples)]
    if len(there) < len(samples) / 2:
        return Interval(nothing, nothing, len(there), "the metric does not exist in most resamples")
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(there, [tail, 1 - tail])
    return Interval(float(low), float(high), len(there))


def fraction_above_zero(samples: FloatArray) -> float:
    """Fraction of the resamples with a value above 0 (ties count half); NaN if the value exists in none."""
    there = samples[~np.isnan(samples)]
    return float(np.mean((there > 0) + 0.5 * (there == 0))) if len(there) else float("nan")


def folds_of(groups: Sequence[str], folds: int, seed: int = 0) -> NDArray[np.int64]:
    """Fold of each image, from 0; groups stay whole, folds hold equally many, and no order of images matters.

    Args:
        groups: name of the group of each image.
        folds: how many.
        seed: seed of the order in which groups are dealt out.
    """
    order = sorted(
        set(groups), key=lambda group: hashlib.sha256(f"{seed}:{group}".encode("utf-8", "surrogatepass")).digest()
    )
    fold_of = {group: position % folds for position, group in enumerate(order)}
    return np.array([fold_of[group] for group in groups], np.int64)
