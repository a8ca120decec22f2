"""Figures of the tests from scores, each with its interval over photographs; pure functions of arrays.

In each resample whole photographs are drawn, with all their copies, because those are no independent pictures.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.stress.verdict import Verdict, mean_interval
from pseudo_labels.metrics.correlation import falling_srcc
from pseudo_labels.metrics.draws import Draws, Interval, interval

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """A number with what it rests on.

    Attributes:
        value: the number; NaN where there is none.
        n: photographs.
        interval: of 95 %, over photographs.
        reason: why there is no number.
    """

    value: float
    n: int
    interval: Interval
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON form: NaN becomes null."""
        value = None if math.isnan(self.value) else self.value
        return {"value": value, "n": self.n, "reason": self.reason, **self.interval.as_dict()}

    def verdict(self, check: str, least: float) -> Verdict:
        """Whether it reaches a limit, and whether a miss means anything."""
        low, high = self.interval.low, self.interval.high
        return Verdict(check, self.value, least, at_least=True, n=self.n, low=low, high=high, of_photographs=True)


def mean_figure(values: FloatArray) -> Figure:
    """Mean of one value a photograph, at least one."""
    return Figure(fmean(values.tolist()), len(values), mean_interval(values.tolist()))


def discrimination(clean: FloatArray, copies: FloatArray) -> Figure:
    """D-test: the best balanced accuracy of one threshold; above it is clean (Ma et al. 2017).

    Args:
        clean: scores of N photographs.
        copies: scores [N, C] of their copies.
    """
    photographs, each = copies.shape
    scores = np.concatenate([clean, copies.ravel()])
    order = np.argsort(scores, kind="stable")
    of = np.concatenate([np.arange(photographs), np.repeat(np.arange(photographs), each)])[order]
    is_clean = (np.arange(len(scores)) < photographs)[order]
    # A threshold lies between different scores, or above all.
    ends = np.append(np.diff(scores[order]) > 0, True)
    # Copies that lie below the threshold, minus clean ones that do, each of which counts as much as all its copies;
    # whole numbers, whose sums are exact.
    gain = np.where(is_clean, -float(each), 1.0)

    def accuracy(counts: FloatArray) -> FloatArray:
        above = np.cumsum(counts[:, of] * gain, axis=1)[:, ends].max(axis=1) / (each * counts.sum(axis=1))
        # 0: a threshold below all scores.
        return 0.5 * (1 + np.maximum(above, 0.0))

    drawn = np.concatenate([accuracy(counts) for counts in Draws.of(photographs).counts()])
    return Figure(float(accuracy(np.ones((1, photographs)))[0]), photographs, interval(drawn, photographs))


def level_order(copies: FloatArray) -> Figure:
    """L-test: mean SRCC of levels and falling scores (Ma et al. 2017).

    Args:
        copies: scores [N, D, L] of N photographs, D distortions and the levels 1 to L.
    """
    levels = np.arange(1, copies.shape[2] + 1)
    return mean_figure(np.array([fmean(falling_srcc(row, levels) for row in one) for one in copies]))


def preference(scores: FloatArray, metrics: FloatArray, least: float) -> tuple[Figure, int]:
    """P-test: agreement on the pairs of pictures that all metrics tell apart (Ma et al. 2017).

    Args:
        scores: [N, C] of C pictures of each of N photographs.
        metrics: [N, C, M], higher is better.
        least: difference that each metric must exceed.

    Returns:
        The fraction of pairs that agree, and how many pairs there are.
    """
    photographs, each = scores.shape
    flat, of_metrics = scores.ravel(), metrics.reshape(photographs * each, -1)
    pairs, right = np.zeros((photographs, photographs)), np.zeros((photographs, photographs))
    # A photograph at a time, each with all others: pairs are too many to be held at once.
    for number in range(photographs):
        better = (metrics[number][:, None] - of_metrics[None] > least).all(axis=2)
        agrees = better & (scores[number][:, None] > flat[None])
        pairs[number] = better.reshape(each, photographs, each).sum((0, 2))
        right[number] = agrees.reshape(each, photographs, each).sum((0, 2))
    total = int(pairs.sum())
    if total == 0:
        why = "the metrics tell no two pictures apart by so much"
        return Figure(math.nan, photographs, Interval(math.nan, math.nan, 0, why), why), 0
    drawn = np.concatenate([_ratio(right, pairs, counts) for counts in Draws.of(photographs).counts()])
    return Figure(float(right.sum() / total), photographs, interval(drawn, photographs)), total


def clean_above(clean: FloatArray, copies: FloatArray) -> Figure:
    """AUROC of clean photographs against copies of all of them.

    Args:
        clean: scores of N photographs.
        copies: scores [N, C] of copies of each that count as one kind.
    """
    photographs, wins = len(clean), _wins(clean, copies)
    all_pairs = np.ones_like(wins)
    drawn = np.concatenate([_ratio(wins, all_pairs, counts) for counts in Draws.of(photographs).counts()])
    return Figure(float(wins.mean()), photographs, interval(drawn, photographs))


def auroc(clean: FloatArray, copies: FloatArray) -> float:
    """The value of ``clean_above`` without its interval."""
    return float(_wins(clean, copies).mean())


def _wins(clean: FloatArray, copies: FloatArray) -> FloatArray:
    """Fraction of the copies of each photograph (columns) that each clean one (rows) is above."""
    return np.stack([((score > copies) + 0.5 * (score == copies)).mean(axis=1) for score in clean])


def _ratio(part: FloatArray, whole: FloatArray, counts: FloatArray) -> FloatArray:
    """Sum over pairs of photographs of ``part`` by that of ``whole``, in each resample."""
    parts, wholes = (((counts @ matrix) * counts).sum(axis=1) for matrix in (part, whole))
    return np.divide(parts, wholes, out=np.full(len(counts), np.nan), where=wholes > 0)


def percentiles(scores: FloatArray) -> FloatArray:
    """Percent of all scores below each one, equal ones counting half; same shape."""
    values = np.sort(scores.ravel())
    below, upto = (np.searchsorted(values, scores, side) for side in ("left", "right"))
    return np.asarray(50.0 * (below + upto) / values.size, np.float64)


@dataclass(frozen=True)
class MadPair:
    """Two pictures that the defender takes for equal and the attacker tells apart most.

    Attributes:
        level: percent of all pictures below the defender's level.
        better: row and column of the picture that the attacker prefers.
        worse: of the other.
    """

    level: int
    better: tuple[int, int]
    worse: tuple[int, int]


def mad_pairs(defender: FloatArray, attacker: FloatArray, levels: tuple[int, ...], width: float) -> Iterator[MadPair]:
    """A pair at each level of the defender, as in the gMAD competition (Ma et al. 2020).

    Args:
        defender: scores [N, C].
        attacker: scores [N, C] of the same pictures.
        levels: percent from below; held is the defender's score that is nearest to it.
        width: percent of all pictures that count as equal.
    """
    held, told = percentiles(defender), percentiles(attacker)
    for level in levels:
        middle = held.flat[np.argmin(np.abs(held - level))]
        near = np.abs(held - middle) <= width / 2
        best = np.unravel_index(np.argmax(np.where(near, told, -np.inf)), told.shape)
        worst = np.unravel_index(np.argmin(np.where(near, told, np.inf)), told.shape)
        if told[best] > told[worst]:
            yield MadPair(level, (int(best[0]), int(best[1])), (int(worst[0]), int(worst[1])))
