"""From a model's score to one's own scale of ratings: a rising curve, judged on scenes that it was not fitted to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pseudo_labels.defaults import MIN_LABELLED, SEED
from pseudo_labels.errors import PocketiqaError, shown
from pseudo_labels.metrics.draws import MIN_GROUPS, Draws, folds_of, interval
from pseudo_labels.metrics.isotonic import centred_isotonic
from students.contract import Calibration
from students.fields import check_fields
from students.meaning.model_record import ModelName, checked, read_fields, record_bytes, rising_numbers

FloatArray = NDArray[np.float64]
KIND = "calibration"
FOLDS = 5
_RESAMPLES = 1000
# Fraction of the score itself in the mapped one: the map rises strictly even where the curve is flat, so ranks stay.
_TILT = 1e-3
# Knots of a curve that was fitted to few ratings lie as close as the scores do; the contract wants them to rise.
_DIGITS = 6
IDENTITY = Calibration(((0.0, 0.0), (1.0, 1.0)))


@dataclass(frozen=True)
class OwnScale:
    """A rising map of one model's scores to a scale of ratings.

    Attributes:
        model: the model whose scores it maps.
        calibration: score -> rating as a fraction of the scale, 1 best.
        low: lower end of the scale.
        high: upper end of the scale.
        best: which end is the best quality, ``high`` or ``low``.
        method: ``affine`` (a straight line, cut at the ends of the scale) or ``isotonic``.
        date: when it was made, as 2026-11-29.
        measured: errors on scenes that it was not fitted to, see ``fit_own_scale``; JSON values.
    """

    model: ModelName
    calibration: Calibration
    low: float
    high: float
    best: str = "high"
    method: str = "isotonic"
    date: str = ""
    measured: dict[str, Any] = field(default_factory=dict)

    def __call__(self, score: float) -> float:
        """The rating to be expected, on the own scale."""
        fraction = float(self.calibration(np.array(score, np.float64)))
        return self.low + (self.high - self.low) * (fraction if self.best == "high" else 1.0 - fraction)

    def check_model(self, model: ModelName) -> None:
        """Refuse scores of another model.

        Raises:
            PocketiqaError: the calibration is of another model.
        """
        self.model.check(
            model, "the calibration", "make one with `pocketiqa calibrate RATINGS --model MODEL --out FILE`"
        )

    def to_bytes(self) -> bytes:
        """The content of its file."""
        fields = {
            "model": self.model.as_dict(),
            "calibration": self.calibration.as_dict(),
            "scale": {"low": self.low, "high": self.high, "best": self.best},
            "method": self.method,
            "date": self.date,
            "measured": self.measured,
        }
        return record_bytes(KIND, fields)

    @classmethod
    def load(cls, path: str | Path) -> "OwnScale":
        """Read the file that ``pocketiqa calibrate`` wrote.

        Raises:
            PocketiqaError: there is none, or it is something else.
            IntegrityError: it was altered.
        """
        names = ("model", "calibration", "scale", "method", "date", "measured")
        record = read_fields(Path(path), KIND, names)
        scale = check_fields(record["scale"], ("low", "high", "best"), "scale of the calibration")
        low, high = rising_numbers([scale["low"], scale["high"]], "the scale of the calibration", -1e9, 1e9)
        if low == high or scale["best"] not in ("high", "low"):
            raise PocketiqaError(f"the scale of the calibration is {shown(scale)}: low below high, and best are needed")
        return cls(
            model=ModelName.from_dict(record["model"]),
            calibration=Calibration.from_dict(record["calibration"]),
            low=low,
            high=high,
            best=scale["best"],
            method=checked(record["method"], str, "the method of the calibration"),
            date=checked(record["date"], str, "the date of the calibration"),
            measured=checked(record["measured"], dict, "what was measured of the calibration"),
        )


def fit_isotonic(scores: FloatArray, ratings: FloatArray) -> Calibration:
    """Centred isotonic regression, see ``metrics.isotonic``, gone on at both ends with its mean slope.

    Args:
        scores: [N] in [0, 1], not all alike.
        ratings: [N] in [0, 1].
    """
    x, y = centred_isotonic(scores, ratings)
    slope = (y[-1] - y[0]) / (x[-1] - x[0]) if len(x) > 1 else 0.0
    x = np.concatenate([[0.0], x, [1.0]])
    y = np.concatenate([[y[0] - slope * x[1]], y, [y[-1] + slope * (1.0 - x[-2])]])
    return _calibration(x, np.clip(y, 0.0, 1.0))


def fit_affine(scores: FloatArray, ratings: FloatArray) -> Calibration:
    """The straight line of least squares, cut at the ends of the scale; flat if it would fall.

    Args:
        scores: [N] in [0, 1], not all alike.
        ratings: [N] in [0, 1].
    """
    centred = scores - scores.mean()
    slope = max(float(centred @ ratings / (centred @ centred)), 0.0)
    offset = float(ratings.mean() - slope * scores.mean())
    # Where the line leaves the scale it has a knot.
    cuts = [(end - offset) / slope for end in (0.0, 1.0)] if slope > 0 else []
    x = np.array(sorted({0.0, 1.0, *(cut for cut in cuts if 0.0 < cut < 1.0)}))
    return _calibration(x, np.clip(offset + slope * x, 0.0, 1.0))


def _calibration(x: FloatArray, y: FloatArray) -> Calibration:
    knots: list[tuple[float, float]] = []
    for raw, mapped in zip(x.round(_DIGITS).tolist(), ((1 - _TILT) * y + _TILT * x).tolist(), strict=True):
        # The tilt rises by less than a digit between close scores: such knots are left out, but never the last one.
        while knots and raw == 1.0 and not (knots[-1][0] < raw and knots[-1][1] < round(mapped, 9)):
            knots.pop()
        if not knots or (knots[-1][0] < raw and knots[-1][1] < round(mapped, 9)):
            knots.append((raw, round(mapped, 9)))
    return Calibration(tuple(knots))


# The one with fewer parameters first: it stands unless the other is clearly better.
FITS: dict[str, Callable[[FloatArray, FloatArray], Calibration]] = {"affine": fit_affine, "isotonic": fit_isotonic}


def fit_own_scale(
    scores: ArrayLike, ratings: ArrayLike, groups: Sequence[str] | None = None, *, seed: int = SEED
) -> tuple[str, Calibration, dict[str, Any]]:
    """Fit the map from scores to ratings, and measure it on scenes that it was not fitted to.

    Five folds of whole scenes. Isotonic regression, which can follow any rising curve but overfits where ratings are
    few, is taken if its squared error is less than the straight line's by more than one standard error of the
    difference.

    Args:
        scores: [N] in [0, 1].
        ratings: [N] in [0, 1], 1 best.
        groups: name of the scene of each photograph; None makes every photograph a scene of its own.
        seed: seed of folds and resamples.

    Returns:
        The method, the map, and what was measured: ``n``, ``scenes``, ``helps`` and, for ``identity``, ``affine`` and
        ``isotonic``, ``rmse`` and ``mae`` as fractions of the scale, and ``rmse_gain`` and ``mae_gain`` over the
        identity: value and 95 % interval over scenes. ``helps`` says whether the interval of ``rmse_gain`` of the
        method lies above 0, and its error below that of the mean rating.

    Raises:
        PocketiqaError: too few photographs or scenes, values outside [0, 1], or scores that are all alike.
    """
    x, y = np.asarray(scores, np.float64), np.asarray(ratings, np.float64)
    names = [str(at) for at in range(len(x))] if groups is None else list(groups)
    _check(x, y, names)
    fold = folds_of(names, FOLDS, seed)
    held_out = {"identity": x} | {name: held_out_ratings(fit, x, y, fold) for name, fit in FITS.items()}
    chosen = _chosen(held_out, y)
    draws = Draws.of(len(x), names, resamples=_RESAMPLES, seed=seed)
    measured: dict[str, Any] = {"n": len(x), "scenes": len(set(names)), "folds": FOLDS}
    measured |= _errors(held_out, y, draws)
    # A map of scores that run against the ratings gains over the scores, but says no more than the mean rating does.
    mean = np.array([y[fold != number].mean() for number in range(FOLDS)])[fold]
    says_more = measured[chosen]["rmse"] < np.sqrt(np.mean((mean - y) ** 2))
    measured["helps"] = bool((measured[chosen]["rmse_gain"][1] or 0.0) > 0.0 and says_more)
    return chosen, FITS[chosen](x, y), measured


def _check(x: FloatArray, y: FloatArray, groups: Sequence[str]) -> None:
    for what, values in (("score", x), ("rating", y)):
        wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
        if wrong.size:
            raise PocketiqaError(f"{what} {values[wrong[0]]} at position {wrong[0]} lies outside 0 to 1")
    scenes = len(set(groups))
    if len(x) < MIN_LABELLED or scenes < MIN_GROUPS:
        raise PocketiqaError(
            f"{len(x)} photographs of {scenes} scenes have score and rating: at least {MIN_LABELLED} of {MIN_GROUPS} "
            "scenes are needed; rate more"
        )
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        what = "scores" if np.ptp(x) == 0 else "ratings"
        raise PocketiqaError(f"all {len(x)} {what} are alike: nothing can be calibrated on them")


def held_out_ratings(
    fit: Callable[..., Calibration], x: FloatArray, y: FloatArray, fold: NDArray[np.int64]
) -> FloatArray:
    """The rating [N] that a map, fitted to the other folds, gives each photograph.

    Args:
        fit: such as ``fit_isotonic``.
        x: scores [N] in [0, 1].
        y: ratings [N] in [0, 1].
        fold: [N], from 0 to ``FOLDS`` - 1.
    """
    predicted = np.empty(len(x))
    for number in range(FOLDS):
        own = fold == number
        rest = ~own
        # One scene may hold nearly all photographs: what is left can then be alike, and the mean is all there is.
        useful = rest.sum() > 1 and np.ptp(x[rest]) > 0
        predicted[own] = fit(x[rest], y[rest])(x[own]) if useful else y[rest].mean()
    return predicted


def _chosen(held_out: dict[str, FloatArray], ratings: FloatArray) -> str:
    chosen, *others = FITS
    for other in others:
        gain = (held_out[chosen] - ratings) ** 2 - (held_out[other] - ratings) ** 2
        if gain.mean() > gain.std() / np.sqrt(len(gain)):
            chosen = other
    return chosen


def _errors(held_out: dict[str, FloatArray], y: FloatArray, draws: Draws) -> dict[str, Any]:
    names = list(held_out)
    errors = np.array([np.abs(held_out[name] - y) for name in names])
    per_image = np.concatenate([errors**2, errors]).T
    sums = np.concatenate([counts @ per_image / counts.sum(axis=1, keepdims=True) for counts in draws.counts()])
    value, samples = per_image.mean(axis=0), sums
    value[: len(names)], samples[:, : len(names)] = np.sqrt(value[: len(names)]), np.sqrt(samples[:, : len(names)])
    scenes, records = draws.groups_in(np.ones(len(y), bool)), {}
    for number, name in enumerate(names):
        record: dict[str, Any] = {}
        for what, at in (("rmse", number), ("mae", number + len(names))):
            base = at - number
            ends = interval(samples[:, base] - samples[:, at], scenes)
            gain = [float(value[base] - value[at]), ends.low, ends.high]
            record |= {what: round(float(value[at]), 6), f"{what}_gain": [_rounded(one) for one in gain]}
        records[name] = record
    return records


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 6)
