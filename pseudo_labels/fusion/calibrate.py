"""A rising curve from the scale of a teacher to that of ratings, and the expected error of the mapped scores.

The labelled images must not be those that the teacher learned from: on those its error is smaller than on others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.special import expit

from pseudo_labels.defaults import MIN_LABELLED
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of
from pseudo_labels.fusion.combine import ExpectedError, fit_expected_error, ten_digits
from pseudo_labels.metrics.agreement import Agreement, agree
from pseudo_labels.metrics.draws import folds_of
from pseudo_labels.metrics.isotonic import centred_isotonic
from pseudo_labels.metrics.logistic import BEST_STARTS, MIDDLE, START_MIDDLES, START_WIDTHS, WIDTH
from pseudo_labels.records import SPREAD_OF_HALF_WEIGHT

FloatArray = NDArray[np.float64]
Form = Literal["identity", "knots", "logistic"]

# Fraction of the score itself in the mapped score: the map rises strictly even where the curve is flat, so ranks stay.
# It moves a score by at most 0.001.
_TILT = 1e-3
MIN_GROUPS = 5
# Scores that vary less do not tell images apart; the audit says so of them too.
CONSTANT_STD = 1e-3
# Each fit then sees four fifths of the ratings, nearly as many as the final one.
_FOLDS = 5
# One for each per cent, both ends included.
_QUANTILES = 101
UNFITTED = ("quantile", "none")


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
        # NaN in the spreads means not known, and stays.
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
    # One point alone has no slope: the map is then constant, but for the tilt.
    slope = (y[-1] - y[0]) / (x[-1] - x[0]) if len(x) > 1 else 0.0
    if x[0] > 0:
        x, y = np.append(0.0, x), np.append(max(0.0, y[0] - slope * x[0]), y)
    if x[-1] < 1:
        x, y = np.append(x, 1.0), np.append(y, min(1.0, y[-1] + slope * (1 - x[-1])))
    return MonotoneMap("knots", {"x": _plain(x), "y": _plain(y)})


def fit_isotonic(scores: FloatArray, ratings: FloatArray) -> MonotoneMap:
    """Centred isotonic regression, see ``metrics.isotonic``.

    Args:
        scores: [N] in [0, 1].
        ratings: [N] in [0, 1].
    """
    return knots_map(*centred_isotonic(scores, ratings))


def fit_logistic(scores: FloatArray, ratings: FloatArray) -> MonotoneMap:
    """Least-squares fit of the rising 4-parameter logistic of the VQEG (2003) with both plateaus within [0, 1].

    Args:
        scores: [N] in [0, 1], not constant.
        ratings: [N] in [0, 1].
    """
    mean, std = float(scores.mean()), float(scores.std())
    x = (scores - mean) / std

    def residuals(parameters: FloatArray) -> FloatArray:
        # ``rise`` is a fraction of what is above ``low``: a box of bounds then keeps both plateaus within [0, 1].
        low, rise, middle, log_width = parameters
        return low + (1 - low) * rise * expit((x - middle) * np.exp(-log_width)) - ratings

    # Off the bounds by a hundredth: at a bound a search could only go one way.
    low, high = np.clip(np.quantile(ratings, [0.02, 0.98]), [0.01, 0.02], [0.98, 0.99])
    rise = np.clip((high - low) / (1 - low), 0.01, 0.99)
    starts = [np.array([low, rise, middle, np.log(w)]) for middle in START_MIDDLES for w in START_WIDTHS]
    starts.sort(key=lambda start: float(np.sum(residuals(start) ** 2)))
    box = ([0.0, 0.0, -MIDDLE, np.log(WIDTH[0])], [1.0, 1.0, MIDDLE, np.log(WIDTH[1])])
    fits = [least_squares(residuals, start, bounds=box, max_nfev=200) for start in starts[:BEST_STARTS]]
    # Converged or not: the best point is a rising curve, and held-out images show how good it is.
    low, rise, middle, log_width = min(fits, key=lambda result: result.cost).x
    values = {
        "low": low,
        "high": low + (1 - low) * rise,
        "middle": middle * std + mean,
        "width": np.exp(log_width) * std,
    }
    return MonotoneMap("logistic", {name: _plain([value]) for name, value in values.items()})


def _plain(values: ArrayLike) -> list[float]:
    return [ten_digits(value) for value in np.asarray(values)]


# The one with fewer parameters first: it stands unless the other is clearly better.
_FITS = {"logistic": fit_logistic, "isotonic": fit_isotonic}
FITTED = ("auto", *_FITS)
METHODS = (*FITTED, *UNFITTED)


@dataclass(frozen=True)
class Calibration:
    """From the scores of one teacher to the common scale.

    Attributes:
        method: ``logistic``, ``isotonic``, ``quantile`` or ``none``.
        map: mapping of the scores.
        expected: squared error of its labels on the common scale; ``base`` is 1, ``extra`` the teacher's own variance
            on the common scale.
        n: labelled images it was fitted to; 0 without ratings.
        groups: scenes among them.
        agreement: SRCC of the raw scores with the ratings; None without ratings.
        held_out_rmse: root mean squared error of each method that was tried, on images of scenes it was not fitted
            to, in units of the score.
    """

    method: str
    map: MonotoneMap
    expected: ExpectedError
    n: int = 0
    groups: int = 0
    agreement: Agreement | None = None
    held_out_rmse: dict[str, float] | None = None

    def variance(self, scores: ArrayLike, spreads: ArrayLike) -> FloatArray:
        """Expected squared error of each calibrated score, above 0.

        Args:
            scores: [N], the teacher's.
            spreads: [N], its own standard deviations on its own scale; NaN where it gives none.
        """
        return self.expected(1.0, self.map.spread(scores, spreads) ** 2)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "method": self.method,
            "map": self.map.as_dict(),
            "expected": self.expected.as_dict(),
            "n": self.n,
            "groups": self.groups,
            "agreement": self.agreement.as_dict() if self.agreement else None,
            "held_out_rmse": self.held_out_rmse,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Calibration":
        """Inverse of ``as_dict``."""
        agreement = record["agreement"]
        return cls(
            method=record["method"],
            map=MonotoneMap.from_dict(record["map"]),
            expected=ExpectedError.from_dict(record["expected"]),
            n=record["n"],
            groups=record["groups"],
            agreement=Agreement.from_dict(agreement) if agreement else None,
            held_out_rmse=record["held_out_rmse"],
        )

    @property
    def digest(self) -> str:
        """Identity: equal calibrations map alike."""
        return digest_of(self.as_dict())


def uncalibrated(map: MonotoneMap | None = None, method: str = "none") -> Calibration:
    """A calibration without ratings: labels are assumed to be wrong by a tenth of the scale.

    The teacher's own variance comes on top of that.
    """
    return Calibration(method, map or MonotoneMap(), ExpectedError(SPREAD_OF_HALF_WEIGHT**2, 1.0))


def calibrate(
    scores: ArrayLike,
    ratings: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    spreads: ArrayLike | None = None,
    method: str = "auto",
    name: str = "teacher",
    seed: int = 0,
) -> tuple[Calibration, FloatArray]:
    """Fit the map from scores to ratings, and how far the mapped scores are from them.

    The error is that of five-fold cross-validation over whole groups, never that of the fit. ``auto`` takes isotonic
    regression, which can follow any rising curve but overfits where labels are few, if its squared error is less than
    the logistic's by more than one standard error of the difference.

    Args:
        scores: [N] of the teacher, in [0, 1].
        ratings: [N] of people for the same images, in [0, 1].
        groups: images of one scene have one group; None makes every image a group of its own.
        spreads: [N], the teacher's own standard deviations; NaN where it gives none. They count as far as they predict
            the errors.
        method: ``auto``, ``logistic`` or ``isotonic``.
        name: name of the teacher, for errors.
        seed: seed of folds and resamples.

    Returns:
        The calibration, and [N] calibrated scores, each from a fit that saw no image of its group.

    Raises:
        PocketiqaError: too few images or groups, a rating outside [0, 1], a constant teacher, or one that does not
            rise with the ratings.
    """
    if method not in FITTED:
        raise PocketiqaError(f"calibration {method!r} is not fitted to ratings: choose one of {', '.join(FITTED)}")
    x, y = np.asarray(scores, np.float64), np.asarray(ratings, np.float64)
    names = [str(row) for row in range(len(x))] if groups is None else list(groups)
    _check(x, y, names, name)
    agreement = agree(x, y, names, seed=seed)
    # Before any fit: a rising curve through falling ratings is flat, and would look like a weak teacher.
    _check_direction(agreement, name)
    fold = folds_of(names, _FOLDS, seed)
    held_out = {each: _held_out(each, x, y, fold) for each in (_FITS if method == "auto" else [method])}
    rmse = {each: float(np.sqrt(np.mean((predicted - y) ** 2))) for each, predicted in held_out.items()}
    chosen = _chosen(held_out, y)
    map = _FITS[chosen](x, y)
    # On the final map, as later labels will be, while the errors are of held-out images.
    own = np.full(len(x), np.nan) if spreads is None else map.spread(x, spreads) ** 2
    expected = fit_expected_error(np.ones(len(x)), own, (held_out[chosen] - y) ** 2)
    # Part of digests: the last bits of a sum differ between machines.
    rounded = {each: round(value, 9) for each, value in rmse.items()}
    calibration = Calibration(
        chosen, map, expected, n=len(x), groups=len(set(names)), agreement=agreement, held_out_rmse=rounded
    )
    return calibration, held_out[chosen]


def align_quantiles(scores: Sequence[ArrayLike]) -> list[Calibration]:
    """Give all teachers one distribution, the mean of theirs, without ratings (quantile normalisation).

    Ranks are averaged that way, and nothing says that they are right. Source: Bolstad et al., "A comparison of
    normalization methods for high density oligonucleotide array data" (2003), section 2.

    Args:
        scores: scores of each teacher, [N] of the same images, not constant.
    """
    points = np.linspace(0.0, 1.0, _QUANTILES)
    quantiles = np.array([np.quantile(np.asarray(own, np.float64), points) for own in scores])
    return [uncalibrated(_quantile_map(own, quantiles.mean(axis=0)), "quantile") for own in quantiles]


def _quantile_map(own: FloatArray, common: FloatArray) -> MonotoneMap:
    values, inverse, counts = np.unique(own, return_inverse=True, return_counts=True)
    return knots_map(values, np.bincount(inverse, common) / counts)


def check_constant(scores: FloatArray, name: str, where: str) -> None:
    """Refuse a teacher that says the same of every image.

    Raises:
        PocketiqaError: the standard deviation of its scores is below 0.001.
    """
    deviation = float(np.std(scores)) if len(scores) else 0.0
    if deviation < CONSTANT_STD:
        raise PocketiqaError(
            f"teacher {name!r} is constant: its {len(scores)} scores {where} have a standard deviation of "
            f"{deviation:.2g}, at least {CONSTANT_STD} is needed; leave it out"
        )


def _check(x: FloatArray, y: FloatArray, groups: Sequence[str], name: str) -> None:
    if x.ndim != 1 or x.shape != y.shape or len(groups) != len(x):
        raise PocketiqaError(
            f"teacher {name!r}: {x.size} scores, {y.size} ratings and {len(groups)} groups: give one of each"
        )
    for what, values in (("score", x), ("rating", y)):
        wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
        if wrong.size:
            raise PocketiqaError(
                f"teacher {name!r}: {what} {values[wrong[0]]} at position {wrong[0]}: scale it to [0, 1], 1 best"
            )
    scenes = len(set(groups))
    if len(x) < MIN_LABELLED or scenes < MIN_GROUPS:
        raise PocketiqaError(
            f"teacher {name!r} has scores for {len(x)} images with ratings, of {scenes} scenes: at least "
            f"{MIN_LABELLED} images of {MIN_GROUPS} scenes are needed; rate more, or say --calibrate quantile"
        )
    check_constant(x, name, "for images with ratings")
    if np.ptp(y) == 0:
        raise PocketiqaError(f"all {len(y)} ratings are {y[0]:g}: nothing can be calibrated on them")


def _check_direction(agreement: Agreement, name: str) -> None:
    if agreement.srcc is not None and agreement.srcc <= 0:
        sure = agreement.high is not None and agreement.high < 0
        verdict = "is reversed" if sure else "does not rise with quality"
        raise PocketiqaError(
            f"teacher {name!r} {verdict}: {agreement} with the ratings; turn its scale in the teacher so that 1 is "
            "best, or leave it out"
        )


def _chosen(held_out: Mapping[str, FloatArray], ratings: FloatArray) -> str:
    chosen, *others = held_out
    for other in others:
        gain = (held_out[chosen] - ratings) ** 2 - (held_out[other] - ratings) ** 2
        if gain.mean() > gain.std() / np.sqrt(len(gain)):
            chosen = other
    return chosen


def _held_out(method: str, x: FloatArray, y: FloatArray, fold: NDArray[np.int64]) -> FloatArray:
    predicted = np.empty(len(x))
    for number in range(_FOLDS):
        own = fold == number
        rest = ~own
        # One scene may hold nearly all images: what is left can then be constant, and the mean is all there is to say.
        useful = rest.sum() > 1 and np.ptp(x[rest]) > 0
        predicted[own] = _FITS[method](x[rest], y[rest])(x[own]) if useful else y[rest].mean()
    return predicted
