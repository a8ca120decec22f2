"""Agreement between predicted scores and target scores, in float64.

Two kinds of trouble are kept apart. Input that can only be a mistake (different lengths, NaN or infinite values)
raises ``PocketiqaError``. Input on which a number does not exist (fewer than three images, a constant model, a
mapping that cannot be fitted) gives NaN, and ``measure`` says why in words.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kendalltau, rankdata

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.metrics.logistic import LogisticFit, fit_logistic4

FloatArray = NDArray[np.float64]

MIN_IMAGES = 3  # below three points every correlation is -1, 0, 1 or undefined
MIN_IMAGES_LOGISTIC = 6  # four parameters are fitted, and something must be left to check them on
Metric = Callable[[ArrayLike, ArrayLike], float]


@dataclass(frozen=True)
class Measured:
    """One number with what it rests on.

    Attributes:
        value: the metric; NaN if it does not exist for this input.
        n: images it was computed on.
        reason: why ``value`` is NaN; empty otherwise.
    """

    value: float
    n: int
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON form: NaN becomes null."""
        return {"value": None if np.isnan(self.value) else self.value, "n": self.n, "reason": self.reason}


def paired_arrays(prediction: ArrayLike, target: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Both as float64 vectors.

    Raises:
        PocketiqaError: they differ in length, are not vectors, or hold NaN or infinite values.
    """
    first, second = np.asarray(prediction, np.float64), np.asarray(target, np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise PocketiqaError(
            f"predictions of shape {first.shape} cannot be compared with targets of shape {second.shape}: "
            "give one score and one target for each image"
        )
    for what, values in (("predictions", first), ("targets", second)):
        bad = int(np.count_nonzero(~np.isfinite(values)))
        if bad:
            raise PocketiqaError(f"{bad} of {len(values)} {what} are NaN or infinite: leave those images out first")
    return first, second


def undefined(prediction: ArrayLike, target: ArrayLike) -> str:
    """Why no correlation exists between the two, in words; empty if one does.

    Raises:
        PocketiqaError: see ``paired_arrays``.
    """
    first, second = paired_arrays(prediction, target)
    if len(first) < MIN_IMAGES:
        return f"{len(first)} images, at least {MIN_IMAGES} are needed"
    for what, values in (("predictions", first), ("targets", second)):
        if np.ptp(values) == 0:
            return f"all {what} are equal"
    return ""


def falling_srcc(scores: ArrayLike, levels: ArrayLike) -> float:
    """SRCC between levels of distortion and falling scores, in [-1, 1]; 0 where all scores are equal: no order.

    Raises:
        PocketiqaError: see ``paired_arrays``.
    """
    measured = srcc(-np.asarray(scores, np.float64), levels)
    return 0.0 if np.isnan(measured) else measured


def plcc(prediction: ArrayLike, target: ArrayLike) -> float:
    """Pearson's linear correlation of the raw values, in [-1, 1]; NaN where ``undefined``."""
    first, second = paired_arrays(prediction, target)
    if undefined(first, second):
        return float("nan")
    first, second = first - first.mean(), second - second.mean()
    # Normalising before the product keeps tiny and huge scales from under- or overflowing.
    product = np.dot(first / np.linalg.norm(first), second / np.linalg.norm(second))
    # Rounding can leave [-1, 1] by the last bit.
    return float(np.clip(product, -1.0, 1.0))


def srcc(prediction: ArrayLike, target: ArrayLike) -> float:
    """Spearman's rank correlation (ties get their mean rank), in [-1, 1]; NaN where ``undefined``."""
    first, second = paired_arrays(prediction, target)
    return plcc(rankdata(first), rankdata(second))


def krcc(prediction: ArrayLike, target: ArrayLike) -> float:
    """Kendall's rank correlation tau-b, in [-1, 1]; NaN where ``undefined``."""
    first, second = paired_arrays(prediction, target)
    if undefined(first, second):
        return float("nan")
    # The method is that of the p-value, which is not used: the exact one would only take time.
    result: Any = kendalltau(first, second, variant="b", method="asymptotic")
    return float(result.statistic)


def rmse(prediction: ArrayLike, target: ArrayLike) -> float:
    """Root of the mean squared difference of the raw values, in units of the target; NaN without images."""
    first, second = paired_arrays(prediction, target)
    return float(np.sqrt(np.mean((first - second) ** 2))) if len(first) else float("nan")


def map_to_target(prediction: ArrayLike, target: ArrayLike) -> tuple[FloatArray, LogisticFit]:
    """Predictions after the fitted 4-parameter logistic, and the fit; all NaN if it failed (``fit.reason``)."""
    first, second = paired_arrays(prediction, target)
    reason = undefined(first, second)
    if not reason and len(first) < MIN_IMAGES_LOGISTIC:
        reason = f"{len(first)} images, at least {MIN_IMAGES_LOGISTIC} are needed to fit four parameters"
    fit = LogisticFit.failed(reason) if reason else fit_logistic4(first, second)
    return fit(first), fit


def plcc_logistic4(prediction: ArrayLike, target: ArrayLike) -> float:
    """Pearson's correlation after the 4-parameter logistic of the VQEG; NaN if it cannot be fitted."""
    mapped, fit = map_to_target(prediction, target)
    return float("nan") if fit.reason else plcc(mapped, target)


def rmse_logistic4(prediction: ArrayLike, target: ArrayLike) -> float:
    """RMSE after the 4-parameter logistic of the VQEG; NaN if it cannot be fitted."""
    mapped, fit = map_to_target(prediction, target)
    return float("nan") if fit.reason else rmse(mapped, target)


METRICS: MappingProxyType[str, Metric] = MappingProxyType(
    {
        "srcc": srcc,
        "plcc": plcc,
        "plcc_logistic4": plcc_logistic4,
        "krcc": krcc,
        "rmse": rmse,
        "rmse_logistic4": rmse_logistic4,
    }
)
NEEDS_MAPPING = frozenset({"plcc_logistic4", "rmse_logistic4"})
LOWER_IS_BETTER = frozenset({"rmse", "rmse_logistic4"})


def measure(prediction: ArrayLike, target: ArrayLike) -> tuple[dict[str, Measured], LogisticFit]:
    """Every metric of ``METRICS`` with its n (and the reason where there is none), and the fitted mapping."""
    first, second = paired_arrays(prediction, target)
    mapped, fit = map_to_target(first, second)
    plain = undefined(first, second)
    metrics: dict[str, Measured] = {}
    for name, metric in METRICS.items():
        if name in NEEDS_MAPPING:
            # Of the values that are mapped already: the metric itself would fit the mapping again.
            reason = fit.reason
            value = float("nan") if reason else (rmse if name.startswith("rmse") else plcc)(mapped, second)
        else:
            reason = plain if name != "rmse" else ("" if len(first) else "no images")
            value = metric(first, second)
        # Neither input is constant here, so only the mapping can have made the predictions equal.
        if np.isnan(value) and not reason:
            reason = "the fitted mapping is constant"
        metrics[name] = Measured(value, len(first), reason)
    return metrics, fit
