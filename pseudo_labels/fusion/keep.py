"""Which fused labels are good enough to learn from, and in words why the others are not."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pseudo_labels.defaults import MAX_OUTLIER, MIN_CONFIDENCE
from pseudo_labels.errors import PocketiqaError

KEPT = -1


class Drop(StrEnum):
    """Why a row has no fused label; the first that holds, in this order."""

    NO_SCORE = "no_score"  # no teacher has one
    TEACHERS = "teachers"  # fewer teachers than asked for have one
    FEATURE = "feature"  # the feature that is carried over is missing
    CONFIDENCE = "confidence"
    DISAGREEMENT = "disagreement"
    OUTLIER = "outlier"


DROPS = tuple(Drop)


@dataclass(frozen=True)
class KeepRule:
    """Which rows are kept.

    Attributes:
        min_teachers: number of teachers that must have a score; None means 2, or 1 where there is only one teacher.
        min_confidence: least confidence of a fused label, in [0, 1].
        max_disagreement: greatest weighted standard deviation of the teachers' calibrated scores about the fused one,
            in units of the score; None for any.
        outlier_feature: stored feature by which images far from all others are dropped; None for none.
        max_outlier: greatest distance from other images, in robust deviations; see ``fused_rows.OutlierMeasure``.
    """

    min_teachers: int | None = None
    min_confidence: float = MIN_CONFIDENCE
    max_disagreement: float | None = None
    outlier_feature: str | None = None
    max_outlier: float = MAX_OUTLIER

    def __post_init__(self) -> None:
        if self.min_teachers is not None and self.min_teachers < 1:
            raise PocketiqaError(f"min_teachers is {self.min_teachers}: at least 1 is needed")
        if not 0.0 <= self.min_confidence <= 1.0:
            raise PocketiqaError(f"min_confidence is {self.min_confidence}: choose from 0 to 1")
        if self.max_disagreement is not None and not 0.0 < self.max_disagreement <= 1.0:
            raise PocketiqaError(f"max_disagreement is {self.max_disagreement}: choose above 0, up to 1")
        if not 0.0 < self.max_outlier < np.inf:
            raise PocketiqaError(f"max_outlier is {self.max_outlier}: choose above 0, 4 is usual")

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class Measures:
    """What the rule looks at, by row.

    Attributes:
        count: teachers with a score.
        confidence: in [0, 1].
        disagreement: standard deviation in units of the score.
        featured: whether the feature that is carried over is there; None if none is.
        outlier: robust deviations, NaN where the feature is missing; None if not asked for.
    """

    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    disagreement: NDArray[np.float64]
    featured: NDArray[np.bool_] | None = None
    outlier: NDArray[np.float64] | None = None


def reasons(rule: KeepRule, min_teachers: int, measures: Measures) -> NDArray[np.int8]:
    """Why each row is dropped, [N]: index in ``DROPS``, or -1 for a row that is kept.

    Args:
        rule: the limits to apply.
        min_teachers: number of teachers that must have a score.
        measures: the measures of all rows.
    """
    never = np.zeros(len(measures.count), bool)
    limit = np.inf if rule.max_disagreement is None else rule.max_disagreement
    holds = {
        Drop.NO_SCORE: measures.count == 0,
        Drop.TEACHERS: measures.count < min_teachers,
        Drop.FEATURE: never if measures.featured is None else ~measures.featured,
        Drop.CONFIDENCE: measures.confidence < rule.min_confidence,
        # NaN, with a single teacher, is above no limit.
        Drop.DISAGREEMENT: measures.disagreement > limit,
        # Where the feature is missing the distance is NaN, which is within no limit.
        Drop.OUTLIER: never if measures.outlier is None else ~(measures.outlier <= rule.max_outlier),
    }
    # The first that holds is taken.
    return np.select([holds[reason] for reason in DROPS], np.arange(len(DROPS)), KEPT).astype(np.int8)


def words(reason: Drop, rule: KeepRule, min_teachers: int, measures: Measures, row: int, score: float) -> str:
    """Why a row was dropped, for a person."""
    had = f" (fused score {score:.3f})" if np.isfinite(score) else ""
    if reason is Drop.TEACHERS:
        return f"a score from {measures.count[row]} of the teachers, {min_teachers} are needed{had}"
    if reason is Drop.FEATURE:
        return f"the teacher whose feature is carried over has none of this image{had}"
    if reason is Drop.CONFIDENCE:
        return f"confidence {measures.confidence[row]:.3f} is below {rule.min_confidence:g}{had}"
    if reason is Drop.DISAGREEMENT:
        return f"the teachers disagree by {measures.disagreement[row]:.3f}, more than {rule.max_disagreement:g}{had}"
    measured = np.nan if measures.outlier is None else measures.outlier[row]
    if np.isnan(measured):
        return f"feature {rule.outlier_feature!r} is missing, so it cannot be told from an outlier{had}"
    return f"{measured:.1f} deviations from the usual in {rule.outlier_feature!r}, more than {rule.max_outlier:g}{had}"
