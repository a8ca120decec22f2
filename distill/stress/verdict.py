"""A figure against its limit, and whether a miss means anything."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pseudo_labels.metrics.draws import MIN_GROUPS, Draws, Interval, interval


@dataclass(frozen=True)
class Verdict:
    """One figure against its limit.

    Attributes:
        check: name of what was measured, in words.
        figure: measured value; NaN passes no limit.
        limit: limit on the scale of the figure.
        at_least: whether the figure may not be below the limit; else it may not be above.
        n: number of pictures that were measured.
        low: lower bound of the figure's 95 % interval; NaN if there is none.
        high: upper bound of that interval.
        of_photographs: whether it depends on which photographs were chosen.
    """

    check: str
    figure: float
    limit: float
    at_least: bool = False
    n: int = 0
    low: float = math.nan
    high: float = math.nan
    of_photographs: bool = False

    @property
    def passed(self) -> bool:
        """Whether the limit is kept."""
        # Both comparisons are false for NaN, so a figure that could not be measured never passes.
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit

    @property
    def failed(self) -> bool:
        """Whether the limit is missed by more than the choice of photographs explains.

        Of few photographs a miss proves nothing, nor does one where the interval holds the limit.
        """
        if self.passed or not self.of_photographs or math.isnan(self.figure):
            return not self.passed
        if self.n < MIN_GROUPS:
            return False
        return not (self.high >= self.limit if self.at_least else self.low <= self.limit)

    @property
    def outcome(self) -> str:
        """``yes``, ``no``, or ``undecided`` where the limit is missed and that proves nothing."""
        return "yes" if self.passed else "no" if self.failed else "undecided"

    @property
    def limit_words(self) -> str:
        """The limit for a person, such as ``at least 0.95``."""
        return f"{'at least' if self.at_least else 'at most'} {self.limit:g}"

    def __str__(self) -> str:
        return f"{self.check}: {self.figure:.4g}, {self.limit_words}"


def mean_interval(values: Iterable[float]) -> Interval:
    """95 % interval of a mean over photographs, which are drawn with replacement; one value a photograph."""
    column = np.array(list(values), np.float64)
    draws = Draws.of(len(column))
    return interval(np.concatenate([counts @ column / len(column) for counts in draws.counts()]), len(column))
