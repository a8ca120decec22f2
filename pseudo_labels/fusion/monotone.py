"""Rising maps from a teacher's scale to the common scale, both [0, 1]: a curve with four parameters, or knots.

Every map is blended with the identity, ``0.999 f(x) + 0.001 x``: it moves no score by more than 0.001 and makes the
map strictly rising, so that calibration ties no two scores and changes no rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.special import expit

FloatArray = NDArray[np.float64]
Form = Literal["identity", "knots", "logistic"]

_TILT = 1e-3
# Bounds of the logistic's middle and width in standard deviations of the scores: a straight line is the limit of an
# ever wider slope, a step that of an ever narrower one, and the search must end.
_MIDDLE = 10.0
_WIDTH = (0.01, 30.0)
_START_MIDDLES = (-1.5, -0.5, 0.5, 1.5)
_START_WIDTHS = (0.1, 0.3, 1.0, 4.0)
_BEST_STARTS = 2


@dataclass(frozen=True)
class MonotoneMap:
    """A strictly rising map of [0, 1] into itself.

    Attributes:
        form: ``identity``; ``knots``: straight between the points (x, y); ``logistic``: ``low + (high - low) / (1 +
            exp(-(x - middle) / width))``.
        values: x and y of the knots, or the four parameters, by name.
    """

    form: Form = "identity"
    values: dict[str, list[float]] = field(default_factory=dict)

    def __call__(self, scores: ArrayLike) -> FloatArray:
        """Scores on the common scale, of the shape of ``scores``; NaN stays NaN."""
        x = np.asarray(scores, np.float64)
        if self.form == "identity":
            return x
        curve = np.interp(x, self.values["x"], self.values["y"]) if self.form == "knots" else self._curve(x)
        return np.clip((1 - _TILT) * curve + _TILT * x, 0.0, 1.0)

    def _curve(self, x: FloatArray) -> FloatArray:
        low, high, middle, width = (self.values[name][0] for name in ("low", "high", "middle", "width"))
        return low + (high - low) * expit((x - middle) / width)

    def spread(self, scores: ArrayLike, spreads: ArrayLike) -> FloatArray:
        """A teacher's own standard deviation on the common scale: times the map's mean slope within one of them."""
        x, s = np.asarray(scores, np.float64), np.asarray(spreads, np.float64)
        low, high = np.clip(x - s, 0.0, 1.0), np.clip(x + s, 0.0, 1.0)
        width = high - low
        with np.errstate(invalid="ignore"):
            slope = (self(high) - self(low)) / np.where(width > 0, width, 1.0)
        return slope * s

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"form": self.form, "values": self.values}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "MonotoneMap":
        """Inverse of ``as_dict``."""
        return cls(record["form"], {name: list(values) for name, values in record["values"].items()})


def knots_map(x: ArrayLike, y: ArrayLike) -> MonotoneMap:
    """The map through points, gone on at both ends with its mean slope, within [0, 1].

    Args:
        x: strictly rising, in [0, 1].
        y: rising, in [0, 1].
    """
    x, y = np.asarray(x, np.float64), np.clip(np.asarray(y, np.float64), 0.0, 1.0)
    slope = (y[-1] - y[0]) / (x[-1] - x[0]) if len(x) > 1 else 0.0
    if x[0] > 0:
        x, y = np.append(0.0, x), np.append(max(0.0, y[0] - slope * x[0]), y)
    if x[-1] < 1:
        x, y = np.append(x, 1.0), np.append(y, min(1.0, y[-1] + slope * (1 - x[-1])))
    return MonotoneMap("knots", {"x": _plain(x), "y": _plain(y)})


def fit_isotonic(scores: FloatArray, opinions: FloatArray) -> MonotoneMap:
    """Centred isotonic regression: each plateau becomes one knot at its mean score, with straight lines between.

    Plain isotonic regression is a staircase that ties all scores of a plateau; centring keeps their order and is
    nearer to a rising truth (Oron and Flournoy, "Centered isotonic regression", 2017).

    Args:
        scores: [N] in [0, 1].
        opinions: [N] in [0, 1].
    """
    from sklearn.isotonic import isotonic_regression  # takes a second to import

    values, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    means = np.bincount(inverse, opinions) / counts
    level = np.asarray(isotonic_regression(means, sample_weight=counts.astype(np.float64)))
    _, block = np.unique(level, return_inverse=True)
    size = np.bincount(block, counts)
    return knots_map(np.bincount(block, counts * values) / size, np.bincount(block, counts * level) / size)


def fit_logistic(scores: FloatArray, opinions: FloatArray) -> MonotoneMap:
    """Least-squares fit of the rising 4-parameter logistic of the VQEG (2003) with both plateaus within [0, 1].

    Args:
        scores: [N] in [0, 1], not constant.
        opinions: [N] in [0, 1].
    """
    mean, std = float(scores.mean()), float(scores.std())
    x = (scores - mean) / std

    def residuals(parameters: FloatArray) -> FloatArray:
        low, rise, middle, log_width = parameters
        return low + (1 - low) * rise * expit((x - middle) * np.exp(-log_width)) - opinions

    low, high = np.clip(np.quantile(opinions, [0.02, 0.98]), [0.01, 0.02], [0.98, 0.99])
    rise = np.clip((high - low) / (1 - low), 0.01, 0.99)
    starts = [np.array([low, rise, middle, np.log(w)]) for middle in _START_MIDDLES for w in _START_WIDTHS]
    starts.sort(key=lambda start: float(np.sum(residuals(start) ** 2)))
    box = ([0.0, 0.0, -_MIDDLE, np.log(_WIDTH[0])], [1.0, 1.0, _MIDDLE, np.log(_WIDTH[1])])
    found = [least_squares(residuals, start, bounds=box, max_nfev=200) for start in starts[:_BEST_STARTS]]
    low, rise, middle, log_width = min(found, key=lambda result: result.cost).x
    values = {
        "low": low,
        "high": low + (1 - low) * rise,
        "middle": middle * std + mean,
        "width": np.exp(log_width) * std,
    }
    return MonotoneMap("logistic", {name: _plain([value]) for name, value in values.items()})


def _plain(values: ArrayLike) -> list[float]:
    # Ten digits: the last bits of a fit differ between machines, and these numbers are part of digests.
    return [float(f"{value:.10g}") for value in np.asarray(values)]
