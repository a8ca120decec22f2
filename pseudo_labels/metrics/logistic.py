"""The 4-parameter logistic that maps a model's scores to the scale of ratings before PLCC and RMSE are taken.

Source: VQEG, "Final report on the validation of objective models of video quality assessment" (2000 and 2003) and
ITU-T J.149, where models may be compared after a monotone regression:

    y = (b1 - b2) / (1 + exp(-(x - b3) / |b4|)) + b2
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.special import expit

FloatArray = NDArray[np.float64]

# Bounds of the slope's middle and width, in standard deviations of the predictions. A straight line is the limit of
# an ever wider slope, an exponential that of an ever farther middle: at these bounds the curve differs from its limit
# by less than 1e-3 of the target's spread, and the search always ends. ``fusion.calibrate`` searches the same way.
MIDDLE = 10.0
WIDTH = (0.01, 30.0)
START_MIDDLES = (-1.5, -0.5, 0.5, 1.5)
START_WIDTHS = (0.1, 0.3, 1.0, 4.0)
BEST_STARTS = 2


@dataclass(frozen=True)
class LogisticFit:
    """A fitted mapping, or why there is none.

    Attributes:
        b1: upper plateau (lower one, where a high prediction means a low target).
        b2: the other plateau.
        b3: prediction in the middle of the slope.
        b4: width of the slope, above 0.
        reason: why the fit failed; empty if it did not.
    """

    b1: float
    b2: float
    b3: float
    b4: float
    reason: str = ""

    @classmethod
    def failed(cls, reason: str) -> "LogisticFit":
        """A fit that maps everything to NaN."""
        return cls(*[float("nan")] * 4, reason=reason)

    def __call__(self, prediction: ArrayLike) -> FloatArray:
        """Mapped values, of the shape of ``prediction``; NaN if the fit failed."""
        values = np.asarray(prediction, np.float64)
        # ``expit``, because ``exp`` overflows far from the middle.
        return (self.b1 - self.b2) * expit((values - self.b3) / abs(self.b4)) + self.b2

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "LogisticFit":
        """Inverse of ``as_dict``."""
        if record["reason"]:
            return cls.failed(record["reason"])
        return cls(record["b1"], record["b2"], record["b3"], record["b4"])

    def as_dict(self) -> dict[str, Any]:
        """JSON form; the parameters are null if the fit failed."""
        names = ("b1", "b2", "b3", "b4")
        return {name: None if self.reason else getattr(self, name) for name in names} | {"reason": self.reason}


def _shape(parameters: FloatArray, x: FloatArray) -> FloatArray:
    # The width is searched by its logarithm: it is above 0, and its bounds span three orders of magnitude.
    middle, log_width = parameters
    return expit((x - middle) * np.exp(-log_width))


def _plateaus(s: FloatArray, y: FloatArray) -> tuple[float, float]:
    """Best intercept and gain for a given shape: given b3 and b4, the curve is linear in b1 and b2."""
    centred = s - s.mean()
    spread = float(np.dot(centred, centred))
    gain = float(np.dot(centred, y)) / spread if spread > 0 else 0.0
    return float(y.mean()) - gain * float(s.mean()), gain


def _residuals(parameters: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    s = _shape(parameters, x)
    intercept, gain = _plateaus(s, y)
    return intercept + gain * s - y


def _starts(x: FloatArray, y: FloatArray) -> list[FloatArray]:
    grid = [np.array([middle, np.log(width)]) for middle in START_MIDDLES for width in START_WIDTHS]
    return sorted(grid, key=lambda start: float(np.sum(_residuals(start, x, y) ** 2)))[:BEST_STARTS]


def fit_logistic4(prediction: FloatArray, target: FloatArray) -> LogisticFit:
    """Least-squares fit by variable projection from the best points of a grid.

    Args:
        prediction: scores of a model, finite and not constant.
        target: ratings of the same images, finite and not constant.

    Returns:
        The fit, or one with ``reason`` set if no start converged. The curve may fall: a model that is reversed keeps a
        high PLCC after the mapping, and only SRCC and the raw PLCC show the sign.
    """
    # Standardised, so that bounds and starting points fit models of any scale.
    x_mean, x_std = float(prediction.mean()), float(prediction.std())
    y_mean, y_std = float(target.mean()), float(target.std())
    x, y = (prediction - x_mean) / x_std, (target - y_mean) / y_std
    box = ([-MIDDLE, np.log(WIDTH[0])], [MIDDLE, np.log(WIDTH[1])])
    # The search may end in a local minimum, so it begins at the two best of 16 points. From all of them it would take
    # eight times as long.
    fits = [least_squares(_residuals, start, bounds=box, args=(x, y), max_nfev=200) for start in _starts(x, y)]
    fits = [result for result in fits if result.success and np.isfinite(result.cost)]
    if not fits:
        return LogisticFit.failed("the 4-parameter logistic did not converge")
    best = min(fits, key=lambda result: result.cost)
    intercept, gain = _plateaus(_shape(best.x, x), y)
    middle, width = float(best.x[0]), float(np.exp(best.x[1]))
    return LogisticFit(
        # Back from standardised units.
        b1=(intercept + gain) * y_std + y_mean,
        b2=intercept * y_std + y_mean,
        b3=middle * x_std + x_mean,
        b4=width * x_std,
    )
