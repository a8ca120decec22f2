"""The heads of a student fitted to ratings on its fused map, which stays as it is: the first step of ``adapt``.

A student's score is the mean of the quality of its cells, weighted by their weight, and both are linear in the features
of the cell before a sigmoid (``students.model``). So the heads, two weights a channel, can be fitted in seconds once
the features of each photograph are there.

The quality starts as a multiple of what it was; how far both heads go beyond that is held back by a penalty. With a
large one only multiple and offset are fitted, which is about a calibration.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pseudo_labels.errors import PocketiqaError

FloatArray = NDArray[np.float64]

PENALTIES = (1.0, 0.1, 0.03, 0.01, 0.003, 0.001, 3e-4)
"""Of the squared changes of the heads on standardised features, in units of the mean squared error; falling."""
LEAST_WEIGHT = 1e-3
"""What ``students.model.quality_and_weight`` adds to each cell's weight."""
_LEAST_DEVIATION = 1e-6
# Cells that are widened to float32 at a time: 64 channels of them take 32 MB.
_CHUNK_CELLS = 131_072
_STEPS = 8
# Gain of a step, as a fraction of the loss, below which the fit has ended; and the shortest step that is tried.
_CONVERGED, _SHORTEST = 1e-3, 1 / 64
# Keeps the equations solvable where a channel says nothing of any photograph.
_RIDGE = 1e-9


@dataclass(frozen=True)
class Heads:
    """The last convolution of a student, which makes the logits of quality and weight.

    Attributes:
        weight: float64 [2, C], of quality and of weight.
        bias: float64 [2].
    """

    weight: FloatArray
    bias: FloatArray

    def as_dict(self) -> dict[str, list]:
        """JSON form."""
        return {"weight": self.weight.tolist(), "bias": self.bias.tolist()}

    @classmethod
    def from_dict(cls, record: dict[str, list]) -> "Heads":
        """Inverse of ``as_dict``."""
        return cls(np.array(record["weight"], np.float64), np.array(record["bias"], np.float64))


@dataclass(frozen=True)
class CellFeatures:
    """Fused maps of photographs, whose numbers of cells may differ.

    Attributes:
        values: float16 [cells, C], the cells of the first photograph, then those of the second, and so on.
        counts: int64 [N], cells of each photograph, 1 or more.
    """

    values: NDArray[np.float16]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, maps: Sequence[NDArray[np.float16]]) -> "CellFeatures":
        """From one array [cells, C] for each photograph.

        Raises:
            PocketiqaError: a feature is not finite, as one beyond the range of float16.
        """
        values = np.concatenate(maps)
        if not np.isfinite(values).all():
            raise PocketiqaError("the student's features exceed 65,504, which no trained student's do: train it anew")
        return cls(values, np.array([len(one) for one in maps], np.int64))

    def take(self, keep: NDArray[np.bool_]) -> "CellFeatures":
        """The photographs where ``keep`` [N] is true."""
        return CellFeatures(self.values[np.repeat(keep, self.counts)], self.counts[keep])

    def chunks(self) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.int64]]]:
        """Photographs, their cells as float32 [cells, C], and where those of each begin."""
        ends = np.cumsum(self.counts)
        first = 0
        while first < len(ends):
            begin = ends[first] - self.counts[first]
            # At least one, however many cells it has.
            last = max(first + 1, int(np.searchsorted(ends, begin + _CHUNK_CELLS, side="right")))
            starts = np.cumsum(self.counts[first:last]) - self.counts[first:last]
            yield slice(first, last), self.values[begin : ends[last - 1]].astype(np.float32), starts
            first = last

    def moments(self) -> tuple[FloatArray, FloatArray]:
        """Mean and deviation [C] of the cells; a channel that hardly varies has a deviation of 1."""
        sums = np.zeros((2, self.values.shape[1]))
        for _, cells, _ in self.chunks():
            sums += [cells.sum(0, dtype=np.float64), np.square(cells).sum(0, dtype=np.float64)]
        mean, square = sums / len(self.values)
        deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
        return mean, np.where(deviation < _LEAST_DEVIATION, 1.0, deviation)


def scores_of(features: CellFeatures, heads: Heads) -> FloatArray:
    """Scores [N] in [0, 1] that a student with these heads gives, before any calibration."""
    scores = np.empty(len(features.counts))
    weight, bias = heads.weight.T.astype(np.float32), heads.bias.astype(np.float32)
    for images, cells, starts in features.chunks():
        quality, weights, _ = _cells(cells @ weight + bias)
        scores[images] = np.add.reduceat(quality * weights, starts) / np.add.reduceat(weights, starts)
    return scores


def _cells(logits: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Quality and weight of each cell, and the weight without its least part."""
    # By tanh, which nothing overflows.
    values = (0.5 + 0.5 * np.tanh(0.5 * logits)).astype(np.float32)
    return values[:, 0], values[:, 1] + np.float32(LEAST_WEIGHT), values[:, 1]


def fit_heads(
    features: CellFeatures, ratings: FloatArray, start: Heads, penalties: Sequence[float] = PENALTIES
) -> list[Heads]:
    """Heads of least squared error, one for each penalty; each fit starts where the one before ended.

    By Gauss and Newton's method, whose steps are halved until they help (Nocedal and Wright, "Numerical optimization",
    2006, section 10.3).

    Args:
        features: of N photographs.
        ratings: [N] in [0, 1].
        start: the heads of the student.
        penalties: falling, see ``PENALTIES``.
    """
    space = _Space.of(features, start)
    values, fitted = space.start(), []
    for penalty in penalties:
        values = _least_squares(features, ratings, space, values, penalty)
        fitted.append(space.heads(values))
    return fitted


@dataclass(frozen=True)
class _Space:
    """What is fitted, as one vector: multiple of the quality, changes of both weights, and both offsets.

    In standardised features, where a penalty means the same for each channel.
    """

    mean: FloatArray
    deviation: FloatArray
    weight: FloatArray
    offset: FloatArray

    @classmethod
    def of(cls, features: CellFeatures, start: Heads) -> "_Space":
        mean, deviation = features.moments()
        return cls(mean, deviation, start.weight * deviation, start.bias + start.weight @ mean)

    def start(self) -> FloatArray:
        """Where nothing has changed."""
        return np.concatenate([[1.0], np.zeros(self.weight.size), [self.offset[0], 0.0]])

    @property
    def held(self) -> FloatArray:
        """1 for what the penalty holds back: all but multiple and offset of the quality."""
        return np.concatenate([[0.0], np.ones(self.weight.size), [0.0, 1.0]])

    def heads(self, values: FloatArray) -> Heads:
        changes = values[1:-2].reshape(self.weight.shape)
        weight = np.stack([values[0] * self.weight[0] + changes[0], self.weight[1] + changes[1]]) / self.deviation
        return Heads(weight, np.array([values[-2], self.offset[1] + values[-1]]) - weight @ self.mean)

    def slopes(self, by_weight: FloatArray, by_bias: FloatArray) -> FloatArray:
        """[N, P] by these values, from slopes [N, 2, C] by the heads' weight and [N, 2] by their bias."""
        # The bias moves with the weight, because the mean was taken off.
        standard = (by_weight - by_bias[..., None] * self.mean) / self.deviation
        multiple = standard[:, 0] @ self.weight[0]
        return np.column_stack([multiple, standard.reshape(len(standard), -1), by_bias])


def _least_squares(
    features: CellFeatures, ratings: FloatArray, space: _Space, values: FloatArray, penalty: float
) -> FloatArray:
    held, number = space.held, len(ratings)

    def loss(own: FloatArray, scores: FloatArray) -> float:
        return float(np.mean((scores - ratings) ** 2) + penalty * held @ own**2)

    scores, by_weight, by_bias = slopes_of(features, space.heads(values))
    now = loss(values, scores)
    for _ in range(_STEPS):
        slopes = space.slopes(by_weight, by_bias)
        bend = slopes.T @ slopes / number + np.diag(penalty * held + _RIDGE)
        step = np.linalg.solve(bend, slopes.T @ (scores - ratings) / number + penalty * held * values)
        length = 1.0
        while True:
            candidate = values - length * step
            seen = slopes_of(features, space.heads(candidate))
            then = loss(candidate, seen[0])
            if then <= now or length < _SHORTEST:
                break
            length /= 2
        if then > now:
            break
        gained, now, values, (scores, by_weight, by_bias) = now - then, then, candidate, seen
        if gained < _CONVERGED * now:
            break
    return values


def slopes_of(features: CellFeatures, heads: Heads) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Scores [N], and their slopes by the weight [N, 2, C] and by the bias [N, 2] of the heads."""
    number, channels = len(features.counts), features.values.shape[1]
    scores, by_weight, by_bias = np.empty(number), np.empty((number, 2, channels)), np.empty((number, 2))
    weight, bias = heads.weight.T.astype(np.float32), heads.bias.astype(np.float32)
    for images, cells, starts in features.chunks():
        quality, weights, sigmoid = _cells(cells @ weight + bias)
        totals = np.add.reduceat(weights, starts)
        scores[images] = np.add.reduceat(quality * weights, starts) / totals
        counts = features.counts[images]
        by_cell = np.stack(
            [weights * quality * (1 - quality), (quality - np.repeat(scores[images], counts)) * sigmoid * (1 - sigmoid)]
        ) / np.repeat(totals, counts)
        by_bias[images] = np.add.reduceat(by_cell, starts, axis=1).T
        for place, begin, count in zip(range(number)[images], starts, counts, strict=True):
            own = slice(begin, begin + count)
            by_weight[place] = by_cell[:, own] @ cells[own]
    return scores, by_weight, by_bias
