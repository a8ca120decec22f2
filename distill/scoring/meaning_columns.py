"""Columns of ``pocketiqa score`` that say what a score means: place in a population, interval, own scale."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.scoring.columns import Column, Kind
from distill.terminal import console
from pseudo_labels.errors import PocketiqaError
from students.meaning.intervals import Intervals
from students.meaning.model_record import ModelName
from students.meaning.own_scale import OwnScale
from students.meaning.population import Population
from students.runtime import Row
from students.shipped import model_path

INTERVALS = ".intervals.json"
"""Ending, in the place of .onnx, of the record of intervals that lies beside a model."""


@dataclass(frozen=True)
class Meaning:
    """Which of the columns are wanted.

    Attributes:
        population: file or name of a population: percentile, stars, verdict.
        interval: percent of ratings that an interval is to hold, one of ``intervals.LEVELS``: score_low, score_high.
        interval_from: record of intervals; None is the one beside the model.
        calibration: file of a calibration: calibrated.
    """

    population: str | None = None
    interval: int | None = None
    interval_from: Path | None = None
    calibration: Path | None = None

    def columns(self, name: ModelName, model: str | None) -> tuple[Column, ...]:
        """The columns; everything is read and checked here, before anything is scored.

        Args:
            name: the model that scores.
            model: its path or name, as for ``Scorer``.

        Raises:
            PocketiqaError: a record is missing, is something else, or is of another model.
            IntegrityError: it was altered.
        """
        if self.interval_from is not None and self.interval is None:
            raise PocketiqaError("--interval-from names the record for --interval: add --interval 80 or 95")
        columns: list[Column] = []
        if self.population is not None:
            columns += _of_population(Population.load(self.population, name))
        if self.interval is not None:
            columns += _of_interval(intervals_of(name, model, self.interval_from), self.interval)
        if self.calibration is not None:
            scale = OwnScale.load(self.calibration)
            scale.check_model(name)
            columns.append(_column("calibrated", Kind.NUMBER, scale))
        return tuple(columns)


def _column(name: str, kind: Kind, value: Callable[[float], Any]) -> Column:
    return Column(name, kind, lambda row: _valued(row, value), heading=name)


def _valued(row: Row, value: Callable[[float], Any]) -> Any:
    return None if row.score is None else value(row.score)


def _of_population(population: Population) -> list[Column]:
    if population.stars is None:
        console.warn(
            f"the population {population.name} has no stars and no verdicts, as none come with its model: make one of "
            "rated photographs (pocketiqa population csv:RATINGS)"
        )
    return [
        _column("percentile", Kind.NUMBER, lambda score: round(population.percentile(score), 2)),
        _column("stars", Kind.WHOLE, population.stars_of),
        _column("verdict", Kind.TEXT, population.verdict),
    ]


def intervals_of(name: ModelName, model: str | None, record: Path | None) -> Intervals:
    """The record of intervals of a model.

    Args:
        name: the model.
        model: its path or name, as for ``Scorer``.
        record: file; None is the one that lies beside the model.

    Raises:
        PocketiqaError: there is none, or it is of another model.
    """
    beside = model_path(model).with_suffix(INTERVALS)
    if record is None and not beside.is_file():
        raise PocketiqaError(
            f"{name.name} comes without intervals ({beside.name}): they hold only for photographs like those they were "
            "made from, which nobody knows but you; rate photographs that it has not learned from, make a record with "
            "`pocketiqa intervals RATINGS --domain ... --out FILE`, and name it with --interval-from FILE"
        )
    intervals = Intervals.load(record or beside)
    intervals.check_model(name)
    return intervals


def _of_interval(intervals: Intervals, level: int) -> list[Column]:
    console.warn(f"{level} % intervals hold for these photographs and no others: {intervals.domain}")
    return [
        _column("score_low", Kind.NUMBER, lambda score: intervals.bounds(score, level)[0]),
        _column("score_high", Kind.NUMBER, lambda score: intervals.bounds(score, level)[1]),
    ]
