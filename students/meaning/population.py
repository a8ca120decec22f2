"""A population: the distribution of one model's scores over many photographs, against which a score is a percentile.

Where people rated the photographs, it also holds the scores at which stars and verdicts change.
"""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pseudo_labels.errors import PocketiqaError, shown
from students.fields import check_fields, check_int
from students.meaning.model_record import ModelName, checked, read_fields, record_bytes, rising_numbers
from students.shipped import population_paths

KIND = "population"
# Every half of a percent: a record of a few kilobytes.
_LEVELS = np.linspace(0.0, 1.0, 201)
MIN_PHOTOGRAPHS = 20
"""With fewer photographs a percentile says nothing."""
BANDS = (0.2, 0.4, 0.6, 0.8)
"""Ratings, on 0 to 1, at which a photograph gets another star: five equal parts of the scale."""
VERDICTS = ("poor", "poor", "fair", "good", "good")
"""Verdict for each number of stars: a rating below 0.4 is poor, one from 0.6 on is good."""


@dataclass(frozen=True)
class Stars:
    """From scores to stars and verdicts.

    Attributes:
        thresholds: scores from which on a photograph has 2, 3, 4 and 5 stars; they never fall.
        source: name of the rated population that they were chosen on.
        measured: how well they tell what people rated, see ``thresholds.measure_stars``; JSON values.
    """

    thresholds: tuple[float, ...]
    source: str
    measured: tuple[dict[str, Any], ...] = ()

    def __call__(self, score: float) -> int:
        """1 to 5."""
        return 1 + sum(score >= threshold for threshold in self.thresholds)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"thresholds": list(self.thresholds), "source": self.source, "measured": list(self.measured)}

    @classmethod
    def from_dict(cls, record: Any) -> "Stars":
        """Inverse of ``as_dict``.

        Raises:
            PocketiqaError: a field is missing or of another type.
        """
        record = check_fields(record, ("thresholds", "source", "measured"), "stars of the population")
        thresholds = rising_numbers(record["thresholds"], "thresholds of the stars", 0.0, 1.0)
        if len(thresholds) != len(BANDS):
            raise PocketiqaError(f"the stars of the population are {shown(record)}: 4 thresholds are needed")
        measured = checked(record["measured"], list, "what was measured of the stars")
        return cls(thresholds, checked(record["source"], str, "the source of the stars"), tuple(measured))


@dataclass(frozen=True)
class Population:
    """The distribution of a model's scores over photographs.

    Attributes:
        name: what it is called, such as ``biq2021``.
        model: the model that scored.
        date: when it was made, as 2026-11-29.
        n: photographs with a score.
        quantiles: score at every half of a percent, from the lowest to the highest; they never fall.
        about: where the photographs come from, as JSON values: ``sources`` (names), ``left_out`` (photographs
            without a score) and, of rated ones, ``parts`` (photographs of each part).
        stars: thresholds that were chosen on ratings; None if the model has none.
    """

    name: str
    model: ModelName
    date: str
    n: int
    quantiles: tuple[float, ...]
    about: dict[str, Any] = field(default_factory=dict)
    stars: Stars | None = None

    def percentile(self, score: float) -> float:
        """Percent of the population's photographs that score lower, 0 to 100; of those that score the same, half.

        Between two stored quantiles it is interpolated: with many photographs it is right to a half.
        """
        values, levels = self._curve()
        return float(np.interp(score, values, levels, left=0.0, right=100.0))

    def _curve(self) -> tuple[np.ndarray, np.ndarray]:
        # Scores that occur often are several quantiles: the middle of these is their place.
        values, inverse, counts = np.unique(np.array(self.quantiles), return_inverse=True, return_counts=True)
        return values, 100.0 * np.bincount(inverse, _LEVELS) / counts

    def stars_of(self, score: float) -> int | None:
        """1 to 5 stars; None if the population has no thresholds."""
        return None if self.stars is None else self.stars(score)

    def verdict(self, score: float) -> str | None:
        """``poor``, ``fair`` or ``good``; None if the population has no thresholds."""
        return None if self.stars is None else VERDICTS[self.stars(score) - 1]

    def check_model(self, model: ModelName) -> None:
        """Refuse scores of another model.

        Raises:
            PocketiqaError: the population is of another model.
        """
        command = "make one with `pocketiqa population PHOTOGRAPHS --model MODEL --out FILE`"
        self.model.check(model, f"the population {self.name!r}", command)

    def to_bytes(self) -> bytes:
        """The content of its file."""
        return record_bytes(
            KIND,
            {
                "name": self.name,
                "model": self.model.as_dict(),
                "date": self.date,
                "n": self.n,
                "quantiles": list(self.quantiles),
                "about": self.about,
                "stars": None if self.stars is None else self.stars.as_dict(),
            },
        )

    @classmethod
    def load(cls, name: str | os.PathLike[str], model: ModelName | None = None) -> "Population":
        """Read the file that ``pocketiqa population`` wrote, or one that comes with the package.

        Args:
            name: path, or the name of a population that comes along, such as ``biq2021``, unless there is a file of
                that name.
            model: the model that scores (``Scorer.model``), for which it must be; None takes any file, and of a
                population that comes along the one of the default model.

        Raises:
            PocketiqaError: there is none, it is something else, or it is of another model.
            IntegrityError: it was altered.
        """
        # Files come first; brackets and asterisks in a name are letters of it.
        shipped = [] if os.path.exists(name) else population_paths(glob.escape(os.fspath(name)))
        if not shipped and not os.path.exists(name):
            known = ", ".join(sorted({path.name.partition(".")[0] for path in population_paths()}))
            raise PocketiqaError(f"no population at {name}: name a file, or one that comes along: {known}")
        read = [cls._read(path) for path in shipped] or [cls._read(Path(name))]
        population = next((one for one in read if model is not None and one.model.sha256 == model.sha256), read[0])
        if model is not None and len(read) > 1 and population.model.sha256 != model.sha256:
            known = ", ".join(sorted(one.model.name for one in read))
            raise PocketiqaError(
                f"the population {name!r} comes along for {known}, and not for {model.name}: make one of photographs "
                "with `pocketiqa population PHOTOGRAPHS --model MODEL --out FILE`"
            )
        if model is not None:
            population.check_model(model)
        return population

    @classmethod
    def _read(cls, path: Path) -> "Population":
        names = ("name", "model", "date", "n", "quantiles", "about", "stars")
        record = read_fields(path, KIND, names)
        quantiles = rising_numbers(record["quantiles"], "the quantiles of the population", 0.0, 1.0)
        if len(quantiles) != len(_LEVELS):
            raise PocketiqaError(f"the population at {path} has {len(quantiles)} quantiles: {len(_LEVELS)} are needed")
        return cls(
            name=checked(record["name"], str, "the name of the population"),
            model=ModelName.from_dict(record["model"]),
            date=checked(record["date"], str, "the date of the population"),
            n=check_int(record["n"], "n of the population", 1, 1 << 40),
            quantiles=quantiles,
            about=checked(record["about"], dict, "about of the population"),
            stars=None if record["stars"] is None else Stars.from_dict(record["stars"]),
        )


def stars_of_model(model: ModelName) -> Stars | None:
    """The stars of a model that come with the package; None if there are none."""
    populations = (Population.load(path) for path in population_paths())
    return next((one.stars for one in populations if one.stars and one.model.sha256 == model.sha256), None)


def quantiles_of(scores: ArrayLike) -> tuple[float, ...]:
    """The stored quantiles of scores.

    Args:
        scores: [N] in [0, 1].

    Raises:
        PocketiqaError: fewer than ``MIN_PHOTOGRAPHS``.
    """
    values = np.asarray(scores, np.float64)
    if len(values) < MIN_PHOTOGRAPHS:
        raise PocketiqaError(
            f"{len(values)} photographs have a score, and a population needs {MIN_PHOTOGRAPHS}: name more photographs"
        )
    return tuple(round(float(value), 6) for value in np.quantile(values, _LEVELS))


def star_thresholds(scores: ArrayLike, ratings: ArrayLike) -> tuple[float, ...]:
    """Thresholds that give as many photographs each number of stars as people's ratings do.

    Then as many photographs are called worse than they are as are called better, at each of ``BANDS``.

    Args:
        scores: [N] in [0, 1].
        ratings: [N] of people for the same photographs, in [0, 1].
    """
    x, y = np.sort(np.asarray(scores, np.float64)), np.asarray(ratings, np.float64)
    thresholds = []
    for band in BANDS:
        below = int((y < band).sum())
        # Half-way between the last score below and the first above; at the ends there is nothing to separate.
        ends = x[max(below - 1, 0)], x[min(below, len(x) - 1)]
        thresholds.append(0.0 if below == 0 else 1.0 if below == len(x) else float(np.mean(ends)))
    return tuple(round(one, 6) for one in thresholds)


def stars_of_all(scores: ArrayLike, thresholds: Sequence[float]) -> np.ndarray:
    """Stars of many scores: int64 [N], 1 to 5."""
    return 1 + np.digitize(np.asarray(scores, np.float64), np.array(thresholds))
