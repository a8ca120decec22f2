"""Several calibrated teachers as one: fitted once to ratings, then applied to any scores, stored or live."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of
from pseudo_labels.fusion.calibrate import (
    FITTED,
    METHODS,
    Calibration,
    MonotoneMap,
    align_quantiles,
    calibrate,
    check_constant,
    uncalibrated,
)
from pseudo_labels.fusion.combine import ErrorStructure, ExpectedError, combine, error_correlation, fit_expected_error
from pseudo_labels.fusion.parts import Columns, Ratings
from pseudo_labels.metrics.agreement import agree

FloatArray = NDArray[np.float64]

# Teachers with fewer images in common cannot be compared.
MIN_COMMON = 20


@dataclass(frozen=True)
class Fused:
    """Fused scores of images.

    Attributes:
        score: [N] in [0, 1], NaN where no teacher has a score.
        score_std: [N], root of the expected squared error.
        disagreement: [N], weighted standard deviation of the teachers about ``score``; NaN with fewer than two.
        weights: [T, N], of sum 1; 0 where a teacher has no score.
        calibrated: [T, N], the teachers' scores on the common scale.
    """

    score: FloatArray
    score_std: FloatArray
    disagreement: FloatArray
    weights: FloatArray
    calibrated: FloatArray


@dataclass(frozen=True)
class Ensemble:
    """Teachers with what is needed to join their scores.

    Attributes:
        names: names of the teachers, in the order of all arrays.
        calibrations: one calibration for each teacher.
        errors: how the teachers' errors are correlated; None without ratings.
        last: map of the weighted mean to the common scale. Each calibrated teacher keeps to the middle as far as it is
            unsure; their mean does so too, though its error is smaller.
        expected: squared error of the fused score, from ``base`` and ``disagreement`` of ``combine``:
            ``score_std^2 = base_gain * base + extra_gain * disagreement``.
    """

    names: tuple[str, ...]
    calibrations: tuple[Calibration, ...]
    errors: ErrorStructure | None
    last: MonotoneMap
    expected: ExpectedError

    def __call__(self, scores: ArrayLike, spreads: ArrayLike) -> Fused:
        """Join scores of the same images.

        Args:
            scores: [T, N] in [0, 1], each on its teacher's scale; NaN where a teacher has none.
            spreads: [T, N], the teachers' own standard deviations; NaN where they give none.
        """
        x, s = np.asarray(scores, np.float64), np.asarray(spreads, np.float64)
        pairs = list(zip(self.calibrations, x, s, strict=True))
        calibrated = np.stack([own.map(values) for own, values, _ in pairs])
        variances = np.stack([own.variance(values, spread) for own, values, spread in pairs])
        combined = combine(calibrated, variances, self.errors)
        score_std = np.sqrt(self.expected(combined.base, combined.disagreement))
        return Fused(self.last(combined.score), score_std, np.sqrt(combined.disagreement), combined.weights, calibrated)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "names": list(self.names),
            "calibrations": [own.as_dict() for own in self.calibrations],
            "errors": self.errors.as_dict() if self.errors else None,
            "last": self.last.as_dict(),
            "expected": self.expected.as_dict(),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Ensemble":
        """Inverse of ``as_dict``."""
        calibrations = tuple(Calibration.from_dict(own) for own in record["calibrations"])
        errors = record["errors"]
        return cls(
            tuple(record["names"]),
            calibrations,
            ErrorStructure.from_dict(errors) if errors else None,
            MonotoneMap.from_dict(record["last"]),
            ExpectedError.from_dict(record["expected"]),
        )

    @property
    def digest(self) -> str:
        """Identity: equal ensembles join alike."""
        return digest_of(self.as_dict())


def check_method(method: str, ratings: Mapping[str, float] | None) -> None:
    """Refuse a way of calibration that is unknown, or does not go with what is given.

    Raises:
        PocketiqaError: see above.
    """
    if method not in METHODS:
        raise PocketiqaError(f"calibration {method!r} is not known: choose one of {', '.join(METHODS)}")
    if ratings is None and method in FITTED:
        raise PocketiqaError(
            f"calibration {method!r} needs ratings of images of the pool: give them (--on), or say --calibrate "
            "quantile to align the teachers to each other, or --calibrate none to take their scores as they are"
        )
    if ratings is not None and method not in FITTED:
        raise PocketiqaError(
            f"calibration {method!r} uses no ratings, but {len(ratings)} were given: leave them out, or say "
            "--calibrate auto"
        )


def fit_ensemble(
    names: Sequence[str], columns: Columns, ratings: Ratings | None, *, method: str = "auto", seed: int = 0
) -> tuple[Ensemble, dict[str, Any]]:
    """Calibrate every teacher, and learn how their errors are correlated.

    Args:
        names: names of the teachers.
        columns: their scores of the whole pool.
        ratings: ratings of people, for ``auto``, ``logistic`` and ``isotonic``.
        method: see ``calibrate.METHODS``.
        seed: seed of folds and resamples.

    Returns:
        The ensemble, and what is known of it on held-out images (see ``FusionReport.labelled``; empty without
        ratings).

    Raises:
        PocketiqaError: a teacher cannot be calibrated, or there are too few images that all teachers scored.
    """
    if ratings is None:
        calibrations = _unfitted(names, columns, method)
        # Nothing is known of errors: base and disagreement count in full.
        return Ensemble(tuple(names), calibrations, None, MonotoneMap(), ExpectedError(1.0, 1.0)), {}
    # Stores hold float32, which is exact in float64: fits get the same numbers as later ``__call__`` does.
    scores = columns.scores[:, ratings.rows].astype(np.float64)
    spreads = columns.spreads[:, ratings.rows].astype(np.float64)
    held_out = np.full(scores.shape, np.nan)
    calibrations = []
    for position, name in enumerate(names):
        has = np.isfinite(scores[position])
        groups = [group for group, own in zip(ratings.groups, has, strict=True) if own]
        fitted, held_out[position, has] = calibrate(
            scores[position, has], ratings.scores[has], groups,
            spreads=spreads[position, has], method=method, name=name, seed=seed,
        )  # fmt: skip
        calibrations.append(fitted)
    errors = ErrorStructure(error_correlation(held_out - ratings.scores), round(float(ratings.scores.var()), 9))
    variances = np.stack([own.variance(*pair) for own, *pair in zip(calibrations, scores, spreads, strict=True)])
    # Of held-out scores, as the ensemble will meet new images. With fitted ones, the last map and the expected error
    # would be too optimistic.
    combined = combine(held_out, variances, errors)
    last, fused = MonotoneMap(), combined.score
    # One teacher alone is on the common scale already.
    if len(names) > 1:
        last, fused = _calibrated_again(fused, names, ratings, method, seed)
    expected = fit_expected_error(combined.base, combined.disagreement, (fused - ratings.scores) ** 2)
    ensemble = Ensemble(tuple(names), tuple(calibrations), errors, last, expected)
    return ensemble, _on_ratings(names, held_out, fused, ratings, seed)


def _calibrated_again(
    joint: FloatArray, names: Sequence[str], ratings: Ratings, method: str, seed: int
) -> tuple[MonotoneMap, FloatArray]:
    """The map of the joint score to the common scale, and the held-out scores.

    Raises:
        PocketiqaError: together the teachers say next to nothing of the ratings.
    """
    try:
        calibration, held_out = calibrate(joint, ratings.scores, ratings.groups, method=method, name="all", seed=seed)
        check_constant(calibration.map(joint), "all", "together")
    except PocketiqaError as error:
        raise PocketiqaError(
            f"{', '.join(names)} together do not follow the ratings: fuse teachers that were fitted, or give more "
            f"ratings ({error})"
        ) from error
    return calibration.map, held_out


def _unfitted(names: Sequence[str], columns: Columns, method: str) -> tuple[Calibration, ...]:
    if method == "none":
        return tuple(uncalibrated() for _ in names)
    common = columns.scored_by == len(names)
    if common.sum() < MIN_COMMON:
        raise PocketiqaError(
            f"{int(common.sum())} images have a score from all of {', '.join(names)}: at least {MIN_COMMON} are needed "
            "to align them by quantiles; leave out the teacher that scored fewest, or give ratings"
        )
    # Of common images alone: other images may be better or worse, and would shift one teacher's quantiles.
    return tuple(align_quantiles(list(columns.scores[:, common])))


def _on_ratings(
    names: Sequence[str], held_out: FloatArray, fused: FloatArray, ratings: Ratings, seed: int
) -> dict[str, Any]:
    """Fused score and teachers against the ratings, on the images that all of them scored."""
    # The same images for all, so that the figures can be compared.
    common = np.isfinite(held_out).sum(axis=0) == len(names)
    groups = [group for group, own in zip(ratings.groups, common, strict=True) if own]

    def predicted(scores: FloatArray) -> dict[str, Any]:
        error = scores[common] - ratings.scores[common]
        rmse = round(float(np.sqrt(np.mean(error**2))), 9) if common.any() else None
        return agree(scores[common], ratings.scores[common], groups, seed=seed).as_dict() | {"rmse": rmse}

    teachers = {name: predicted(own) for name, own in zip(names, held_out, strict=True)}
    return {"n": int(common.sum()), "groups": len(set(groups)), "fused": predicted(fused), "teachers": teachers}
