"""Intervals that hold a rating as often as they say: split-conformal prediction on photographs the model never saw.

The error of a new photograph ranks among those of the calibration photographs like any of them, if all are
exchangeable: so the interval holds for photographs of the kind that was rated, and for no other. Scenes are what is
exchangeable, and not photographs, of which a scene may have many: each scene counts once, shared out among its
photographs. With one photograph a scene this is exact for any number of scenes; else it is right on average over
photographs of a new scene.

Sources: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World" (2005), section 2.2 and 4.2 (normalised
scores); Papadopoulos et al., ECML 2002 (split); Dunn, Wasserman and Ramdas, "Distribution-free prediction sets for
two-layer hierarchical models", JASA 2023 (scenes).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pseudo_labels.defaults import SEED
from pseudo_labels.errors import PocketiqaError, shown
from pseudo_labels.metrics.draws import Draws, folds_of, interval
from students.fields import check_fields, check_int
from students.meaning.model_record import ModelName, checked, read_fields, record_bytes, rising_numbers

FloatArray = NDArray[np.float64]
KIND = "interval record"
LEVELS = (80, 95)
"""Percent of new photographs whose rating an interval is to hold."""
FOLDS = 5
_RESAMPLES = 1000
# Of the scenes: this part fits how the error follows the score, the rest is ranked; none does both.
_SPREAD_PART = 3
_KNOTS = 5
# Errors that vary less over the scores are taken as alike: the plain interval needs no curve.
_USEFUL_RATIO = 1.5
_LEAST_SPREAD = 1e-3


@dataclass(frozen=True)
class Spread:
    """Expected absolute error at a score: straight between knots, flat beyond them.

    Attributes:
        scores: scores of the knots; they rise.
        errors: expected absolute error at each, above 0; a single 1 where errors are not normalised.
    """

    scores: tuple[float, ...] = (0.0,)
    errors: tuple[float, ...] = (1.0,)

    def __call__(self, score: ArrayLike) -> FloatArray:
        """Expected absolute error, of the shape of ``score``."""
        return np.interp(np.asarray(score, np.float64), self.scores, self.errors)


@dataclass(frozen=True)
class Intervals:
    """Intervals of one model's scores.

    Attributes:
        model: the model.
        domain: for which photographs they hold, in words.
        n: photographs whose errors were ranked.
        scenes: their scenes.
        spread: how the error follows the score.
        radius: half the width at each of ``LEVELS``, in units of ``spread``.
        date: when it was made, as 2026-11-29.
        measured: coverage on scenes that were left out, see ``measure_intervals``; JSON values.
    """

    model: ModelName
    domain: str
    n: int
    scenes: int
    spread: Spread
    radius: Mapping[int, float]
    date: str = ""
    measured: tuple[dict[str, Any], ...] = ()

    def bounds(self, score: float, level: int) -> tuple[float, float]:
        """Lower and upper end of the interval of a score, within [0, 1].

        Args:
            score: in [0, 1].
            level: one of ``LEVELS``.
        """
        low, high = bounds_of(np.array([score]), self.spread, self.radius[level])
        return float(low[0]), float(high[0])

    def check_model(self, model: ModelName) -> None:
        """Refuse scores of another model.

        Raises:
            PocketiqaError: the record is of another model.
        """
        self.model.check(model, "the interval record", "make one with `pocketiqa intervals RATINGS --model MODEL`")

    def to_bytes(self) -> bytes:
        """The content of its file."""
        fields = {
            "model": self.model.as_dict(),
            "domain": self.domain,
            "n": self.n,
            "scenes": self.scenes,
            "spread": {"scores": list(self.spread.scores), "errors": list(self.spread.errors)},
            "radius": {str(level): radius for level, radius in self.radius.items()},
            "date": self.date,
            "measured": list(self.measured),
        }
        return record_bytes(KIND, fields)

    @classmethod
    def load(cls, path: str | Path) -> "Intervals":
        """Read the file that ``pocketiqa intervals`` wrote.

        Raises:
            PocketiqaError: there is none, or it is something else.
            IntegrityError: it was altered.
        """
        names = ("model", "domain", "n", "scenes", "spread", "radius", "date", "measured")
        record = read_fields(Path(path), KIND, names)
        spread = check_fields(record["spread"], ("scores", "errors"), "spread of the interval record")
        scores = rising_numbers(spread["scores"], "the scores of the spread", 0.0, 1.0)
        errors = checked(spread["errors"], list, "the errors of the spread")
        errors = tuple(rising_numbers([one], "an error of the spread", 0.0, 1.0)[0] for one in errors)
        radius = record["radius"]
        if len(errors) != len(scores) or not isinstance(radius, dict) or set(radius) != set(map(str, LEVELS)):
            raise PocketiqaError(f"the interval record at {path} has the radii {shown(radius)}: make it anew")
        radii = rising_numbers([radius[str(level)] for level in LEVELS], "radii of the interval record", 0.0, 1e9)
        return cls(
            model=ModelName.from_dict(record["model"]),
            domain=checked(record["domain"], str, "the domain of the intervals"),
            n=check_int(record["n"], "n of the intervals", 1, 1 << 40),
            scenes=check_int(record["scenes"], "scenes of the intervals", 1, 1 << 40),
            spread=Spread(scores, errors),
            radius=dict(zip(LEVELS, radii, strict=True)),
            date=checked(record["date"], str, "the date of the intervals"),
            measured=tuple(checked(record["measured"], list, "what was measured of the intervals")),
        )


def bounds_of(scores: FloatArray, spread: Spread, radius: float) -> tuple[FloatArray, FloatArray]:
    """Ends of the intervals of scores, within [0, 1]: two arrays [N]."""
    half = radius * spread(scores)
    return np.clip(scores - half, 0.0, 1.0), np.clip(scores + half, 0.0, 1.0)


def conformal_radius(errors: ArrayLike, groups: Sequence[str], level: float) -> float:
    """The smallest radius that holds the error of a photograph of a new scene with probability ``level``.

    Each of G scenes has a weight of 1 / (G + 1), shared out among its photographs; the new scene has the last one, at
    infinity. With one photograph a scene that is the ceil((G + 1) * level)-th smallest error.

    Args:
        errors: [N], at least 0.
        groups: name of the scene of each.
        level: above 0 and below 1.

    Raises:
        PocketiqaError: there are too few scenes for this level.
    """
    values, (_, scene) = np.asarray(errors, np.float64), np.unique(np.asarray(groups, object), return_inverse=True)
    sizes = np.bincount(scene)
    order = np.argsort(values, kind="stable")
    # Sums of weights in units of a scene; the last bits must not decide which error is the one.
    mass = np.cumsum((1.0 / sizes[scene])[order]) + 1e-9
    wanted = level * (len(sizes) + 1)
    if mass[-1] < wanted:
        least = int(np.ceil(level / (1 - level) - 1e-9))
        raise PocketiqaError(
            f"{len(sizes)} scenes are too few for an interval of {level:.0%}: at least {least} are needed, of which a "
            f"third fits the spread; rate photographs of {_SPREAD_PART * least // (_SPREAD_PART - 1) + 1} scenes"
        )
    return float(values[order][np.searchsorted(mass, wanted)])


def fit_spread(scores: FloatArray, errors: FloatArray) -> Spread:
    """Mean error by fifths of the scores; errors that hardly follow the score are not normalised.

    Args:
        scores: [N].
        errors: [N], absolute.
    """
    parts = [part for part in np.array_split(np.argsort(scores, kind="stable"), _KNOTS) if len(part)]
    x = np.array([scores[part].mean() for part in parts])
    y = np.maximum([errors[part].mean() for part in parts], _LEAST_SPREAD)
    if y.max() < _USEFUL_RATIO * y.min() or (np.diff(x) <= 0).any():
        return Spread()
    return Spread(tuple(x.round(6).tolist()), tuple(y.round(6).tolist()))


def fit_intervals(
    scores: ArrayLike, ratings: ArrayLike, groups: Sequence[str], *, plain: bool = False, seed: int = SEED
) -> tuple[Spread, dict[int, float], int]:
    """Spread and radii; a third of the scenes fits the spread, the errors of the others are ranked.

    Args:
        scores: [N] in [0, 1], of photographs that the model has not learned from.
        ratings: [N] in [0, 1].
        groups: name of the scene of each photograph.
        plain: do not normalise: all intervals have one width, and all scenes are ranked.
        seed: seed of the parts.

    Returns:
        The spread, the radius at each of ``LEVELS``, and how many photographs were ranked.

    Raises:
        PocketiqaError: there are too few scenes.
    """
    x, names = np.asarray(scores, np.float64), np.asarray(groups, object)
    errors = np.abs(x - np.asarray(ratings, np.float64))
    ranked = np.ones(len(x), bool) if plain else folds_of(names.tolist(), _SPREAD_PART, seed) > 0
    spread = Spread() if plain else fit_spread(x[~ranked], errors[~ranked])
    normalised = errors[ranked] / spread(x[ranked])
    radius = {level: conformal_radius(normalised, names[ranked].tolist(), level / 100) for level in LEVELS}
    return spread, {level: round(value, 6) for level, value in radius.items()}, int(ranked.sum())


def measure_intervals(
    scores: ArrayLike, ratings: ArrayLike, groups: Sequence[str], parts: Sequence[str], *, plain: bool = False,
    seed: int = SEED,
) -> list[dict[str, Any]]:  # fmt: skip
    """Coverage and width, where each photograph's interval was made on the other folds of scenes.

    Args:
        scores: [N] in [0, 1].
        ratings: [N] in [0, 1].
        groups: name of the scene of each photograph.
        parts: name of the part of the data to which each belongs; each is measured alone too.
        plain: see ``fit_intervals``.
        seed: seed of folds and resamples.

    Returns:
        A record for all, for each part, and for each third of the scores: ``part``, ``level``, ``n``, ``scenes``,
        ``coverage`` (value, and the ends of its 95 % interval over scenes) and ``width`` (mean).

    Raises:
        PocketiqaError: there are too few scenes.
    """
    x, y, of_part = np.asarray(scores, np.float64), np.asarray(ratings, np.float64), np.asarray(parts, object)
    # Another seed than that of the parts within, or folds and parts would be the same scenes.
    fold, names = folds_of(groups, FOLDS, seed + 1), np.asarray(groups, object)
    low, high = ({level: np.empty(len(x)) for level in LEVELS} for _ in range(2))
    for number in range(FOLDS):
        own = fold == number
        spread, radius, _ = fit_intervals(x[~own], y[~own], names[~own].tolist(), plain=plain, seed=seed)
        for level in LEVELS:
            low[level][own], high[level][own] = bounds_of(x[own], spread, radius[level])
    draws, records = Draws.of(len(x), list(groups), resamples=_RESAMPLES, seed=seed), []
    keeps = _parts(of_part, x)
    totals = np.concatenate([counts @ np.array([keep for _, keep in keeps]).T for counts in draws.counts()])
    for level in LEVELS:
        inside = (low[level] <= y) & (y <= high[level])
        held = np.concatenate([counts @ np.array([keep & inside for _, keep in keeps]).T for counts in draws.counts()])
        for number, (name, keep) in enumerate(keeps):
            ends = interval(held[:, number] / np.where(totals[:, number] > 0, totals[:, number], np.nan),
                            draws.groups_in(keep))  # fmt: skip
            coverage = [inside[keep].mean(), ends.low, ends.high]
            records.append(
                {
                    "part": name,
                    "level": level,
                    "n": int(keep.sum()),
                    "scenes": draws.groups_in(keep),
                    "coverage": [None if np.isnan(one) else round(float(one), 4) for one in coverage],
                    "width": round(float((high[level] - low[level])[keep].mean()), 4),
                }
            )
    return records


def _parts(of_part: NDArray[Any], x: FloatArray) -> list[tuple[str, NDArray[np.bool_]]]:
    parts = [("all", np.ones(len(x), bool))]
    names = sorted(set(of_part.tolist()))
    parts += [(name, of_part == name) for name in names] if len(names) > 1 else []
    third = np.digitize(x, np.quantile(x, [1 / 3, 2 / 3]))
    words = ("lowest", "middle", "highest")
    return parts + [
        (f"{word} third of the scores", third == at) for at, word in enumerate(words) if (third == at).any()
    ]
