"""Which rows of ``pocketiqa score`` are wanted, and in which order: the best, the worst, those above a score."""

import heapq
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal, get_args

from pseudo_labels.errors import PocketiqaError, shown
from students.runtime import Row

Order = Literal["best", "worst", "name"]
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Choice:
    """Rows to keep; of equal scores the one that was named first comes first.

    Attributes:
        sort: order of what is kept; rows without a score come last. None is the order of the words, or with ``top`` the
            best first, or with ``bottom`` alone the worst first.
        top: keep this many of the best.
        bottom: keep this many of the worst; with ``top``, both are kept.
        min_score: keep scores of at least this.
        max_score: keep scores of at most this.
    """

    sort: Order | None = None
    top: int | None = None
    bottom: int | None = None
    min_score: float | None = None
    max_score: float | None = None

    def __post_init__(self) -> None:
        if self.sort is not None and self.sort not in get_args(Order):
            raise PocketiqaError(f"--sort {shown(self.sort)} is not known: choose one of {', '.join(get_args(Order))}")
        for name, number in (("--top", self.top), ("--bottom", self.bottom)):
            if number is not None and number < 1:
                raise PocketiqaError(f"{name} {number}: a number of images is needed, 1 or more")
        for name, score in (("--min-score", self.min_score), ("--max-score", self.max_score)):
            if score is not None and not 0 <= score <= 1:
                raise PocketiqaError(f"{name} {score:g}: scores lie between 0 (worst) and 1 (best)")
        low, high = self._bounds
        if low > high:
            raise PocketiqaError(f"--min-score {low:g} is above --max-score {high:g}: no image could be chosen")

    @property
    def _bounds(self) -> tuple[float, float]:
        low = -math.inf if self.min_score is None else self.min_score
        return low, math.inf if self.max_score is None else self.max_score

    @property
    def leaves_out(self) -> bool:
        """Whether rows are left out, those without a score among them; a mere order keeps all."""
        return any(value is not None for value in (self.top, self.bottom, self.min_score, self.max_score))

    def of(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows that are wanted, in their order; without an order or a number they pass as they arrive."""
        low, high = self._bounds
        # A score that a person reads as 0.500 may be a hair below it in binary: taken as it is.
        kept = (row for row in rows if not self.leaves_out or (row.score is not None and low <= row.score <= high))
        if self.top is None and self.bottom is None:
            return kept if self.sort is None else iter(_sorted(kept, self.sort))
        return iter(_sorted(self._ends(kept), self.sort or ("worst" if self.top is None else "best")))

    def _ends(self, rows: Iterable[Row]) -> list[Row]:
        """The best and the worst, in the order in which they came; no more rows are held than are kept."""
        numbers, best, worst = count(), list[tuple[float, int, Row]](), list[tuple[float, int, Row]]()
        for row in rows:
            number, score = next(numbers), row.score or 0.0
            # In a heap the first falls out: the worst of the best, and among equals the last named.
            _push(best, (score, -number, row), self.top)
            _push(worst, (-score, -number, row), self.bottom)
        kept = {-number: row for _, number, row in (*best, *worst)}
        return [kept[number] for number in sorted(kept)]


def _push(heap: list[tuple[float, int, Row]], item: tuple[float, int, Row], most: int | None) -> None:
    if most is not None and len(heap) < most:
        heapq.heappush(heap, item)
    elif most is not None:
        heapq.heappushpop(heap, item)


def _sorted(rows: Iterable[Row], order: Order) -> list[Row]:
    if order == "name":
        return sorted(rows, key=lambda row: natural_key(row.path))
    sign = -1 if order == "best" else 1
    return sorted(rows, key=lambda row: math.inf if row.score is None else sign * row.score)


def natural_key(name: str) -> list[tuple[int, str]]:
    """A key by which ``IMG_2`` comes before ``IMG_10``, and ``a`` beside ``A``."""
    parts = _DIGITS.split(name.casefold())
    return [(int(part[:4000]), "") if part.isdecimal() else (-1, part) for part in parts]
