"""Every metric of ``correlation`` in each resample of ``draws``: how far it would move with other images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pseudo_labels.metrics.correlation import METRICS, krcc, map_to_target, paired_arrays
from pseudo_labels.metrics.draws import Draws

FloatArray = NDArray[np.float64]

_NO_SPREAD = 1e-24  # weighted sum of squares of values of order 1 that rounding alone can leave
_PAIR_BLOCK = 1024  # rows of the sign matrix held at once for Kendall's tau
_MOST_PAIRED = 3000  # images up to which comparing all pairs beats sorting each resample


def weighted_pearson(counts: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Pearson's correlation for each row of ``counts`` [R, n]; ``x`` and ``y`` are [n] or [R, n]."""
    total = counts.sum(axis=1, keepdims=True)
    x = x - (counts * x).sum(axis=1, keepdims=True) / total
    y = y - (counts * y).sum(axis=1, keepdims=True) / total
    weighted = counts * x
    cross, own_x, own_y = (weighted * y).sum(1), (weighted * x).sum(1), (counts * y * y).sum(1)
    # x and y are of order 1 (or ranks): what rounding leaves of a constant sample is below this.
    exists = (own_x > _NO_SPREAD) & (own_y > _NO_SPREAD)
    return np.where(exists, np.clip(cross / np.sqrt(np.where(exists, own_x * own_y, 1.0)), -1, 1), np.nan)


class Ranker:
    """Mean ranks of one vector in any resample given by counts, from a single sort."""

    def __init__(self, values: FloatArray) -> None:
        unique, self.inverse = np.unique(values, return_inverse=True)
        self.order = np.argsort(self.inverse, kind="stable")
        self.starts = np.searchsorted(self.inverse[self.order], np.arange(len(unique)))

    def ties(self, counts: FloatArray) -> FloatArray:
        """Images of each distinct value in each resample [R, distinct]."""
        return np.add.reduceat(counts[:, self.order], self.starts, axis=1)

    def ranks(self, counts: FloatArray) -> FloatArray:
        """Mean rank of each image in each resample [R, n] (of no meaning where its count is 0)."""
        tied = self.ties(counts)
        return (np.cumsum(tied, axis=1) - tied + (tied + 1) / 2)[:, self.inverse]


def _pairs(tied: FloatArray) -> FloatArray:
    return (tied * (tied - 1) / 2).sum(axis=1)


def _weighted_kendall(counts: FloatArray, x: FloatArray, y: FloatArray, ranks: tuple[Ranker, Ranker]) -> FloatArray:
    """Tau-b for each row of ``counts``: copies of one image are tied in both, as they would be in a real resample."""
    if len(x) > _MOST_PAIRED:
        return np.array([_repeated_kendall(row, x, y) for row in counts])
    surplus = np.zeros(len(counts))  # concordant minus discordant pairs, each counted twice
    for start in range(0, len(x), _PAIR_BLOCK):
        rows = slice(start, start + _PAIR_BLOCK)
        signs = np.sign(x[rows, None] - x) * np.sign(y[rows, None] - y)
        # Single precision holds these sums exactly (integers below 2**24) at half the cost.
        product = counts.astype(np.float32) @ signs.T.astype(np.float32)
        # In float64: the sum over all pairs can exceed what float32 holds exactly.
        surplus += (counts[:, rows] * product).sum(axis=1, dtype=np.float64)
    total = counts.sum(axis=1)
    every = total * (total - 1) / 2
    untied = (every - _pairs(ranks[0].ties(counts))) * (every - _pairs(ranks[1].ties(counts)))
    return np.where(untied > 0, surplus / 2 / np.sqrt(np.where(untied > 0, untied, 1.0)), np.nan)


def _repeated_kendall(count: FloatArray, x: FloatArray, y: FloatArray) -> float:
    # A resample without a kept image has NaN counts (see ``_Kept.metrics``): nothing is repeated, and the result is
    # NaN.
    again = np.repeat(np.arange(len(x)), np.nan_to_num(count).astype(np.int64))
    return krcc(x[again], y[again])


@dataclass(frozen=True)
class _Kept:
    """What every chunk of resamples needs of the kept images."""

    x: FloatArray
    y: FloatArray
    mapped: FloatArray | None
    ranks: tuple[Ranker, Ranker]

    @classmethod
    def of(cls, x: FloatArray, y: FloatArray) -> "_Kept":
        mapped, fit = map_to_target(x, y)
        return cls(x, y, None if fit.reason else mapped, (Ranker(x), Ranker(y)))

    def metrics(self, counts: FloatArray) -> dict[str, FloatArray]:
        total = counts.sum(axis=1, keepdims=True)
        # All groups of a resample may lie outside the kept images: no metric exists for it.
        counts, total = np.where(total == 0, np.nan, counts), np.where(total == 0, np.nan, total)[:, 0]
        unit_x, unit_y = _unit(self.x), _unit(self.y)
        intervals = {
            "srcc": weighted_pearson(counts, self.ranks[0].ranks(counts), self.ranks[1].ranks(counts)),
            "plcc": weighted_pearson(counts, unit_x, unit_y),
            "krcc": _weighted_kendall(counts, self.x, self.y, self.ranks),
            "rmse": np.sqrt(counts @ (self.x - self.y) ** 2 / total),
        }
        if self.mapped is not None:
            intervals["plcc_logistic4"] = weighted_pearson(counts, _unit(self.mapped), unit_y)
            intervals["rmse_logistic4"] = np.sqrt(counts @ (self.mapped - self.y) ** 2 / total)
        return intervals


def _unit(values: FloatArray) -> FloatArray:
    """Shifted and scaled to [0, 1]; all 0 if constant."""
    return (values - values.min()) / (np.ptp(values) or 1.0)


def bootstrap_metrics(
    prediction: FloatArray, target: FloatArray, draws: Draws, keep: NDArray[np.bool_] | None = None
) -> dict[str, FloatArray]:
    """Every metric of ``METRICS`` in every resample: arrays [resamples], NaN where a resample has no such metric.

    The 4-parameter logistic is fitted once, to all kept images, and held while resampling: the interval of the mapped
    metrics is that of the images, not of the four parameters.

    Args:
        prediction: score of each image of ``draws`` (any value outside ``keep``).
        target: target score of each image of ``draws`` (any value outside ``keep``).
        draws: the resamples; pass the same to every model that is compared.
        keep: images to use; all if None.
    """
    keep = np.ones(len(draws.groups), bool) if keep is None else keep
    x, y = paired_arrays(np.asarray(prediction)[keep], np.asarray(target)[keep])
    missing = np.full(draws.resamples, np.nan)
    if len(x) == 0:
        return dict.fromkeys(METRICS, missing)
    kept = _Kept.of(x, y)
    chunks = [kept.metrics(counts[:, keep]) for counts in draws.counts()]
    return {
        name: np.concatenate([chunk[name] for chunk in chunks]) if name in chunks[0] else missing for name in METRICS
    }
