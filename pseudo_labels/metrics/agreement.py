"""Rank agreement of two sets of scores, and how far it would move with other images."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pseudo_labels.metrics.bootstrap import Ranker, weighted_pearson
from pseudo_labels.metrics.correlation import srcc
from pseudo_labels.metrics.draws import MIN_GROUPS, Draws

FloatArray = NDArray[np.float64]

# Fewer than a report's 1000: no score is computed from these ends.
_RESAMPLES = 300
_TAIL = 0.025


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
        groups: images of one scene have one group; None makes every image a group of its own.
        seed: seed of the resamples.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    correlation = srcc(a, b)
    if np.isnan(correlation):
        return Agreement(len(a), None)
    samples = _resampled(a, b, groups, seed)
    # Where scores are constant in most resamples, percentiles of the others would be those of a selection.
    if len(samples) < _RESAMPLES / 2:
        return Agreement(len(a), _rounded(correlation))
    low, high = np.quantile(samples, [_TAIL, 1 - _TAIL])
    return Agreement(len(a), _rounded(correlation), _rounded(low), _rounded(high))


def _resampled(a: FloatArray, b: FloatArray, groups: Sequence[str] | None, seed: int) -> FloatArray:
    """SRCC in each resample in which it exists; none with too few groups."""
    draws = Draws.of(len(a), groups, resamples=_RESAMPLES, seed=seed)
    if draws.groups_in(np.ones(len(a), bool)) < MIN_GROUPS:
        return np.empty(0)
    first, second = Ranker(a), Ranker(b)
    samples = [weighted_pearson(counts, first.ranks(counts), second.ranks(counts)) for counts in draws.counts()]
    correlations = np.concatenate(samples)
    return correlations[~np.isnan(correlations)]


def _rounded(value: float) -> float:
    # Part of digests: the last bits of a sum differ between machines.
    return round(float(value), 9)
