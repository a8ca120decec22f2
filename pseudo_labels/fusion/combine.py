"""Several scores of one image as one: weights, score, expected error and disagreement, as functions of arrays."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

# How much of the expected error may follow what varies from image to image; never all, as a label without any
# disagreement is still not the truth.
_FRACTIONS = np.linspace(0.0, 0.9, 10)
_LEAST_VARIANCE = 1e-6  # a thousandth of the scale: no label is more certain
# A correlation of fewer errors says little: 1 is then assumed, as if the two always erred alike.
_MIN_COMMON = 20
# Of the matrix of correlations: near 0, tiny changes of the errors would move the weights far.
_LEAST_EIGENVALUE = 0.02
# Of the ratings' variance: a teacher that explains less is left out, for its weight would be noise.
_LEAST_EXPLAINED = 0.01
_RIDGE = 0.05
# Passes of the coordinate descent. With five teachers of random correlations, weights are then within 0.001 of their
# limit.
_SWEEPS = 60


@dataclass(frozen=True)
class ExpectedError:
    """Expected squared error of a label: ``base_gain * base + extra_gain * extra``.

    Attributes:
        base_gain: factor of what is known without looking at the image.
        extra_gain: factor of what the image adds: a teacher's own variance, or the disagreement of teachers; 0 where
            that does not foretell errors.
        typical_extra: value of the second term where the image's own is not known.
    """

    base_gain: float
    extra_gain: float
    typical_extra: float = 0.0

    def __call__(self, base: ArrayLike, extra: ArrayLike) -> FloatArray:
        """Expected squared error, above 0; NaN in ``extra`` means not known."""
        known = np.nan_to_num(np.asarray(extra, np.float64), nan=self.typical_extra)
        return np.maximum(self.base_gain * np.asarray(base, np.float64) + self.extra_gain * known, _LEAST_VARIANCE)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "ExpectedError":
        """Inverse of ``as_dict``."""
        return cls(**record)


def fit_expected_error(base: ArrayLike, extra: ArrayLike, squared_error: ArrayLike) -> ExpectedError:
    """Fit both gains to known errors.

    With e normal of variance ``s ((1 - t) base + t extra mean(base) / mean(extra))``, s is in closed form for each t,
    and t is the mean of 0, 0.1, ..., 0.9, each weighted by its likelihood: few images leave it in the middle, many
    decide. On average over the images the expected error is then the error found: a teacher's own spread is not
    counted on top of it.

    Args:
        base: [N], above 0.
        extra: [N], at least 0; NaN where it is not known.
        squared_error: [N], of held-out images.
    """
    base, extra, squared_error = (np.asarray(values, np.float64) for values in (base, extra, squared_error))
    known = np.isfinite(extra)
    typical = float(extra[known].mean()) if known.any() else 0.0
    filled = np.where(known, extra, typical)
    ratio = float(base.mean()) / typical if typical > 0 else 0.0
    fraction = _likely_fraction(base, filled * ratio, squared_error) if ratio else 0.0
    _, scale = _fit(base, filled * ratio, squared_error, fraction)
    return ExpectedError(ten_digits(scale * (1 - fraction)), ten_digits(scale * fraction * ratio), ten_digits(typical))


def _likely_fraction(base: FloatArray, extra: FloatArray, squared_error: FloatArray) -> float:
    deviances = np.array([_fit(base, extra, squared_error, fraction)[0] for fraction in _FRACTIONS])
    likelihood = np.exp(-(deviances - deviances.min()) / 2)
    return float(np.average(_FRACTIONS, weights=likelihood))


def _fit(base: FloatArray, extra: FloatArray, squared_error: FloatArray, fraction: float) -> tuple[float, float]:
    """Deviance, but for a constant, and scale."""
    # Above 0, because its logarithm is taken: a teacher may be exactly right on every held-out image.
    shape = np.maximum((1 - fraction) * base + fraction * extra, 1e-12)
    scale = max(float(np.mean(squared_error / shape)), 1e-12)
    # The other term, the sum of squared errors over their expectation, is the number of images at the best scale.
    return float(np.sum(np.log(scale * shape))), scale


def ten_digits(value: float) -> float:
    """The value rounded: it is part of digests, and the last bits of a fit differ between machines."""
    return float(f"{value:.10g}")


@dataclass(frozen=True)
class ErrorStructure:
    """How the errors of calibrated teachers are correlated, on images that they were not calibrated on.

    Attributes:
        correlation: [T, T] of the errors, positive definite.
        variance: variance of the ratings, which is the squared error of giving every image their mean.
    """

    correlation: FloatArray
    variance: float

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"correlation": self.correlation.tolist(), "variance": self.variance}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "ErrorStructure":
        """Inverse of ``as_dict``."""
        return cls(np.array(record["correlation"], np.float64), record["variance"])


@dataclass(frozen=True)
class Combined:
    """Fused rows.

    Attributes:
        score: [N], NaN where no teacher has one.
        weights: [T, N], of sum 1 over the teachers that have a score, 0 for the others.
        base: [N], variance of the weighted mean if every teacher is as wrong as expected; NaN without a score.
        disagreement: [N], weighted variance of the teachers about the fused score; NaN with fewer than two.
    """

    score: FloatArray
    weights: FloatArray
    base: FloatArray
    disagreement: FloatArray


def combine(scores: FloatArray, variances: FloatArray, errors: ErrorStructure | None) -> Combined:
    """Weighted mean of calibrated scores.

    With scores m_i of expected squared errors v_i and error covariance C_ij = r_ij sqrt(v_i v_j): score m = sum w_i
    m_i, base = w' C w, disagreement = sum w_i (m_i - m)^2. For the weights see ``_regression_weights``, and without a
    known structure inverse variance: w_i = (1 / v_i) / sum (1 / v_j), and a base as if all erred together.

    Args:
        scores: [T, N] on the common scale, NaN where a teacher has none.
        variances: [T, N], above 0 where there is a score.
        errors: error model of the teachers; None where it is not known.
    """
    there = np.isfinite(scores)
    # Any finite value does where there is no score: the weight there is 0, but 0 * NaN would make the sums NaN.
    known = np.where(there, variances, 1.0)
    weights = np.where(there, 1.0 / known, 0.0)
    if errors is not None:
        better = _regression_weights(known, there, errors)
        # Where no teacher explains enough of the ratings, inverse variance still gives a score, and its base a large
        # error.
        weights = np.where(better.sum(axis=0) > 0, better, weights)
    total = weights.sum(axis=0)
    weights = weights / np.where(total > 0, total, 1.0)
    values = np.where(there, scores, 0.0)
    score = (weights * values).sum(axis=0)
    parts = weights * np.sqrt(known)
    # Without a known structure the worst case: errors that are all alike, which no mean makes smaller.
    together = np.ones((len(scores), len(scores))) if errors is None else errors.correlation
    base = np.einsum("in,ij,jn->n", parts, together, parts)
    disagreement = (weights * (values - score) ** 2).sum(axis=0)
    count = there.sum(axis=0)
    return Combined(
        # Rounding of the weights may leave [0, 1] by the last bit.
        np.where(count > 0, np.clip(score, 0.0, 1.0), np.nan),
        weights,
        np.where(count > 0, base, np.nan),
        np.where(count > 1, disagreement, np.nan),
    )


def _regression_weights(variances: FloatArray, there: NDArray[np.bool_], errors: ErrorStructure) -> FloatArray:
    """Weights [T, N] proportional to the best linear regression of the truth on the calibrated scores.

    A calibrated score keeps to the mean as far as the teacher is unsure, so all errors share what nobody knows, and
    plain inverse variance gives a useless teacher nearly the weight of a good one. With V the variance of the
    ratings, s_i = V - v_i is what teacher i explains, and G_ij = C_ij + V - v_i - v_j with G_ii = s_i the covariance
    of two calibrated scores; the coefficients solve G b = s with 0 <= b <= 1 (stacked regression, Breiman 1996, here
    for every row's own variances), by coordinate descent. For teachers whose noise is independent that is inverse
    variance of the noise.
    """
    total, deviations = errors.variance, np.sqrt(variances)
    useful = there & (total - variances > _LEAST_EXPLAINED * total)
    explained = np.where(useful, total - variances, 0.0)
    # The start: in proportion to what each teacher explains.
    weights = explained / np.maximum(explained.sum(axis=0), 1e-12)
    for _ in range(_SWEEPS):
        for i in range(len(variances)):
            shared = errors.correlation[i][:, None] * deviations[i] * deviations + total - variances[i] - variances
            shared[i] = 0.0
            left = explained[i] - (shared * weights).sum(axis=0)
            # The ridge shares the weight evenly between teachers that say the same.
            step = left / np.where(useful[i], (1 + _RIDGE) * explained[i], 1.0)
            weights[i] = np.where(useful[i], np.clip(step, 0.0, 1.0), 0.0)
    return weights


def error_correlation(errors: FloatArray) -> FloatArray:
    """Correlation of the errors of each two teachers, at least 0; 1 where too few images say.

    It is drawn towards independence as far as makes it safely positive definite: two teachers that say the same have
    0.98.

    Args:
        errors: [T, L] on held-out images, NaN where a teacher has no score.
    """
    correlation = np.ones((len(errors), len(errors)))
    for first in range(len(errors)):
        for second in range(first):
            common = np.isfinite(errors[first]) & np.isfinite(errors[second])
            a, b = errors[first, common], errors[second, common]
            if len(a) >= _MIN_COMMON and np.ptp(a) > 0 and np.ptp(b) > 0:
                # Below 0 errors would cancel each other, and the weights would count on that to happen again.
                value = float(np.clip(np.corrcoef(a, b)[0, 1], 0.0, 1.0))
                correlation[first, second] = correlation[second, first] = value
    least = float(np.linalg.eigvalsh(correlation)[0])
    # Drawn by d, an eigenvalue l becomes (1 - d) l + d: this d makes the least one ``_LEAST_EIGENVALUE``.
    drawn = max(0.0, (_LEAST_EIGENVALUE - least) / (1 - least)) if least < 1 else 0.0
    return np.round((1 - drawn) * correlation + drawn * np.eye(len(errors)), 9)  # part of digests
