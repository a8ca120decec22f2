"""The rows of a fused store: fused scores of a whole pool, what the keep rule makes of them, and their labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.fusion.ensemble import Ensemble
from pseudo_labels.fusion.keep import DROPS, KEPT, Drop, KeepRule, Measures, reasons, words
from pseudo_labels.fusion.parts import Columns, Part
from pseudo_labels.parallel import Progress
from pseudo_labels.records import PseudoLabel, Status, confidence

FloatArray = NDArray[np.float64]

SAMPLE_ROWS = 2048
# Of fewer images, ten neighbours would be more than a fifth: the distance to the tenth would say little.
MIN_ROWS = 50
_NEIGHBOURS = 10
_DIMENSIONS = 32
_POINTS_AT_ONCE = 512  # with a sample of 2048, their distances take 8 MB
_TO_SIGMA = 1.4826  # from the median distance to the median, to the deviation of a normal distribution
_ROWS_AT_ONCE = 1 << 16
_EXAMPLES = 8


def pooled(features: NDArray[np.float16]) -> FloatArray:
    """One vector an image: the mean over all axes behind the channels; [N, C, ...] to [N, C]."""
    return features.astype(np.float64).mean(axis=tuple(range(2, features.ndim))).reshape(len(features), -1)


class OutlierMeasure:
    """Distance of an image to its 10th nearest neighbour in a sample of the pool, in robust deviations of its log.

    Channels are standardised by the sample and turned into its 32 first principal components. Neighbours, not the
    distance to a centre, because pools have several kinds of images (Ramaswamy et al. 2000).

    Args:
        sample: [S, C], pooled features of images from all over the pool.
        name: name of the feature, for errors.

    Raises:
        PocketiqaError: the sample is too small, or its images do not differ.
    """

    def __init__(self, sample: FloatArray, name: str):
        if len(sample) < MIN_ROWS:
            raise PocketiqaError(
                f"feature {name!r} is there for {len(sample)} images: at least {MIN_ROWS} are needed to tell outliers"
            )
        self._mean, scale = sample.mean(axis=0), sample.std(axis=0)
        # A channel that hardly varies would be blown up to the size of the others.
        self._scale = np.where(scale > 1e-6 * scale.max(initial=0.0), scale, np.inf)
        _, _, turned = np.linalg.svd((sample - self._mean) / self._scale, full_matrices=False)
        self._axes = turned[:_DIMENSIONS].T
        self._sample = self._project(sample)
        # Distances are above 0 and a few are far larger than the rest: their logarithms lie more evenly about the
        # median.
        distances = np.log(self._distances(self._sample, np.arange(len(sample))))
        self._median = float(np.median(distances))
        self._deviation = _TO_SIGMA * float(np.median(np.abs(distances - self._median)))
        if not self._deviation > 0:
            raise PocketiqaError(f"feature {name!r} is the same for most images: it cannot tell outliers")

    def __call__(self, features: FloatArray, own: NDArray[np.int64]) -> FloatArray:
        """Deviations from the usual, [N]; above 0 is farther than the median image.

        Args:
            features: [N, C], pooled.
            own: [N], index in the sample of each image that is in it, else -1: no image is its own neighbour.
        """
        distances = self._distances(self._project(features), own)
        # Four decimals: the last bits of a sum differ between machines.
        return np.round((np.log(distances) - self._median) / self._deviation, 4)

    def _project(self, features: FloatArray) -> FloatArray:
        return ((features - self._mean) / self._scale) @ self._axes

    def _distances(self, points: FloatArray, own: NDArray[np.int64]) -> FloatArray:
        nearest = [
            self._block(points[start : start + _POINTS_AT_ONCE], own[start : start + _POINTS_AT_ONCE])
            for start in range(0, len(points), _POINTS_AT_ONCE)
        ]
        return np.concatenate([np.empty(0), *nearest])

    def _block(self, points: FloatArray, own: NDArray[np.int64]) -> FloatArray:
        squares = (points**2).sum(axis=1)[:, None] + (self._sample**2).sum(axis=1) - 2 * points @ self._sample.T
        inside = np.flatnonzero(own >= 0)
        squares[inside, own[inside]] = np.inf
        nearest = np.partition(squares, _NEIGHBOURS - 1, axis=1)[:, _NEIGHBOURS - 1]
        # Above 0, because a logarithm follows: rounding can give a square below 0, and ten copies of one image a
        # distance of 0.
        return np.sqrt(np.maximum(nearest, 1e-12))


@dataclass(frozen=True)
class FusedRows:
    """Fused scores of a pool and what is kept of them.

    Attributes:
        score: float32 [N], NaN where no teacher has one.
        score_std: float32 [N], NaN where no teacher has a score.
        rule: the rule that was applied.
        min_teachers: the number that ``rule`` has, or its default.
        measures: the measures that the rule was applied to.
        reason: int8 [N], the result of ``keep.reasons``.
    """

    score: NDArray[np.float32]
    score_std: NDArray[np.float32]
    rule: KeepRule
    min_teachers: int
    measures: Measures
    reason: NDArray[np.int8]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """[N]: rows that keep their fused label."""
        return self.reason == KEPT

    def dropped(self) -> dict[Drop, NDArray[np.bool_]]:
        """Rows of each reason that dropped any."""
        return {drop: self.reason == position for position, drop in enumerate(DROPS) if (self.reason == position).any()}

    def counts(self) -> dict[str, int]:
        """Dropped rows by reason, without those that dropped none."""
        return {str(drop): int(rows.sum()) for drop, rows in self.dropped().items()}

    def label(self, row: int, records: Sequence[dict[str, Any]], names: Sequence[str]) -> PseudoLabel:
        """The label of a row.

        Args:
            row: position in the pool.
            records: its row in the table of each part.
            names: names of the parts.
        """
        # A part without a score may not know the bytes of the image.
        first = next((record for record in records if record["status"] == Status.OK), records[0])
        identity = {name: first[name] for name in ("id", "uri", "sha256", "view")}
        if self.reason[row] == KEPT:
            std = float(self.score_std[row])
            return PseudoLabel(**identity, score=float(self.score[row]), score_std=std, confidence=confidence(std))
        drop = DROPS[self.reason[row]]
        if drop is Drop.NO_SCORE:
            status, why = _common_status(records, names)
        else:
            why = words(drop, self.rule, self.min_teachers, self.measures, row=row, score=float(self.score[row]))
            status = Status.DROPPED
        return PseudoLabel(**identity, status=status, reason=why, confidence=0.0)


def _common_status(records: Sequence[dict[str, Any]], names: Sequence[str]) -> tuple[Status, str]:
    """Status and reason of a row without any score: the teachers' own, if they agree."""
    if len({record["status"] for record in records}) == 1:
        return Status(records[0]["status"]), records[0]["reason"]
    described = zip(names, records, strict=True)
    return Status.FAILED, "; ".join(f"{name}: {record['status']}, {record['reason']}" for name, record in described)


def fuse_rows(
    ensemble: Ensemble,
    columns: Columns,
    rule: KeepRule,
    *,
    featured: NDArray[np.bool_] | None = None,
    outlier: NDArray[np.float64] | None = None,
) -> FusedRows:
    """Join the scores of all rows and apply the keep rule.

    Args:
        ensemble: the ensemble of the same parts as ``columns``.
        columns: the columns of the whole pool.
        rule: rule that says which rows are kept.
        featured: [N], whether the feature that is carried over is there; None if none is.
        outlier: [N], robust deviations; None if not asked for.

    Raises:
        PocketiqaError: nothing is kept.
    """
    rows, teachers = columns.scores.shape[1], len(columns.scores)
    score, score_std, disagreement = (np.full(rows, np.nan, np.float32) for _ in range(3))
    for start in range(0, rows, _ROWS_AT_ONCE):
        here = slice(start, start + _ROWS_AT_ONCE)
        block = ensemble(columns.scores[:, here], columns.spreads[:, here])
        score[here], score_std[here], disagreement[here] = block.score, block.score_std, block.disagreement
    # Of the rounded spread, which is stored: a reader of the store computes the same confidence.
    certain = np.array([0.0 if np.isnan(s) else confidence(float(s)) for s in score_std])
    measures = Measures(columns.scored_by, certain, disagreement.astype(np.float64), featured, outlier)
    min_teachers = min(2, teachers) if rule.min_teachers is None else rule.min_teachers
    reason = reasons(rule, min_teachers, measures)
    fused = FusedRows(score, score_std, rule, min_teachers=min_teachers, measures=measures, reason=reason)
    if not fused.kept.any():
        counts = ", ".join(f"{count} for {drop}" for drop, count in fused.counts().items())
        raise PocketiqaError(
            f"nothing is kept of {rows} rows ({counts}); confidence reaches {certain.max():.3f} and disagreement "
            f"{_least(measures.disagreement)}: relax the keep rule"
        )
    return fused


def _least(disagreement: NDArray[np.float64]) -> str:
    known = disagreement[np.isfinite(disagreement)]
    return f"goes down to {known.min():.3f}" if known.size else "is not known"


def measure_outliers(
    part: Part, name: str, scored: NDArray[np.bool_], spans: Sequence[range], progress: Progress | None = None
) -> NDArray[np.float64]:
    """Robust deviations of all rows by a stored feature, [N]; NaN where there is none.

    Args:
        part: the store that holds the feature.
        name: name of the feature.
        scored: [N], where ``part`` has a label and so the feature.
        spans: blocks of rows that cover the pool.
        progress: called with blocks done and blocks in all; every block is read twice.

    Raises:
        PocketiqaError: see ``OutlierMeasure``.
    """
    rows = np.flatnonzero(scored)
    # Evenly over the pool and not at random: the same rows are dropped each time.
    chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE_ROWS)).astype(np.int64)]
    position = np.full(len(scored), -1, np.int64)
    position[chosen] = np.arange(len(chosen))
    sample: list[NDArray[np.float64]] = []
    distances = np.full(len(scored), np.nan)
    measure: OutlierMeasure | None = None
    for done, span in enumerate([*spans, *spans], start=1):
        here = np.arange(span.start, span.stop)[scored[span.start : span.stop]]
        wanted = here if measure is not None or done > len(spans) else here[position[here] >= 0]
        features = pooled(part.features(span, name)[wanted - span.start]) if len(wanted) else None
        if done <= len(spans):
            sample += [] if features is None else [features]
        elif features is not None:
            # Once all blocks were read: the sample is complete when the second pass begins.
            measure = measure or OutlierMeasure(np.concatenate(sample), name)
            distances[wanted] = measure(features, position[wanted])
        if progress:
            progress(done, 2 * len(spans))
    return distances


def mean_weights(ensemble: Ensemble, columns: Columns, kept: NDArray[np.bool_]) -> list[float]:
    """Mean weight of each teacher over the kept rows."""
    rows, total = np.flatnonzero(kept), np.zeros(len(columns.scores))
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        here = rows[start : start + _ROWS_AT_ONCE]
        total += ensemble(columns.scores[:, here], columns.spreads[:, here]).weights.sum(axis=1)
    return [round(float(value) / len(rows), 9) for value in total]


def find_examples(fused: FusedRows, ensemble: Ensemble, columns: Columns) -> dict[str, list[dict[str, Any]]]:
    """The surest kept rows, and for each reason those that it fits best; see ``FusionReport.examples``."""
    measures = fused.measures
    outlier = np.zeros(len(measures.count)) if measures.outlier is None else measures.outlier
    clearest = {
        Drop.TEACHERS: measures.count,
        Drop.CONFIDENCE: measures.confidence,
        Drop.DISAGREEMENT: -measures.disagreement,
        Drop.OUTLIER: -outlier,
    }
    wanted = {"kept": _first(-measures.confidence, fused.kept)}
    for drop, rows in fused.dropped().items():
        if drop is not Drop.NO_SCORE:
            wanted[str(drop)] = _first(clearest.get(drop, measures.count), rows)
    return {name: _examples(fused, ensemble, columns, rows) for name, rows in wanted.items()}


def _first(order: NDArray[Any], rows: NDArray[np.bool_]) -> NDArray[np.int64]:
    among = np.flatnonzero(rows)
    return among[np.argsort(order[among], kind="stable")][:_EXAMPLES]


def _examples(fused: FusedRows, ensemble: Ensemble, columns: Columns, rows: NDArray[np.int64]) -> list[dict[str, Any]]:
    said = ensemble(columns.scores[:, rows], columns.spreads[:, rows]).calibrated
    return [
        {
            "row": int(row),
            "score": _plain(fused.score[row]),
            "score_std": _plain(fused.score_std[row]),
            "disagreement": _plain(fused.measures.disagreement[row]),
            "teachers": [_plain(score) for score in said[:, position]],
        }
        for position, row in enumerate(rows)
    ]


def _plain(value: Any) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
