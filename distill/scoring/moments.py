"""Photographs of one moment: bursts by the names that cameras give them, times, and what looks alike.

Two photographs are joined if

- their names say that they are of one burst, and they lie in one folder; or
- they were taken within ``seconds`` and look somewhat alike: at most ``LOOSE_BITS`` of their difference hashes differ,
  or the cosine of their embeddings is that of one pair in a hundred of different scenes (``PairHead.alike``); or
- one of them has no time, and they look much alike: at most ``STRICT_BITS`` differ, or ``MIDDLE_BITS`` and the cosine
  is as above.

What is joined through others is one group. Photographs that both have a time, and are further apart than that, are two
moments whatever they show.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pseudo_labels.defaults import MOMENT_SECONDS
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.fingerprints import count_bits

# IMG_20190811_115937_BURST001_COVER (Huawei, Xiaomi), 20190811_115937_Burst01 (Samsung), PXL_....BURST-01 (Google);
# 00002IMG_00002_BURST20190811115937530 and DSC_0001_BURST20190811115937530 (Google, Sony) count before the word.
_STAMPED = re.compile(r"BURST(\d{14,})", re.IGNORECASE)
# A mark before the word: sunburst_1 and sunburst_2 are no burst.
_NUMBERED = re.compile(r"(.+?)[ ._-]+BURST[ ._-]*\d+", re.IGNORECASE)
# 20190811_115937_001 and 20190811_115937(0) (Samsung): several within one second.
_WITHIN_A_SECOND = re.compile(r"(\d{8}[_-]\d{6})(?:[_-]\d{1,3}|\(\d{1,3}\))")
_ROWS_AT_ONCE = 256


LOOSE_BITS, MIDDLE_BITS, STRICT_BITS = 18, 14, 10
"""Bits of 64. Of unrelated photographs half differ."""
_A_DAY = 86_400.0
_NEVER = 65


@dataclass(frozen=True)
class Seen:
    """What is known of a photograph.

    Attributes:
        place: its absolute path.
        taken: see ``pseudo_labels.exif_time.taken_at``.
        dhash: difference hash; None of a flat picture, which is like nothing.
        direction: float [C] of length 1; cosines of two are compared. None without an embedding.
    """

    place: Path
    taken: float | None
    dhash: int | None
    direction: NDArray[np.float32] | None


def burst_of(place: Path) -> tuple[str, str] | None:
    """Folder and name of the burst that a photograph belongs to by its name; None if its name says nothing of it."""
    folder = os.path.dirname(place)
    if stamp := _STAMPED.search(place.stem):
        return folder, stamp[1]
    if (match := _NUMBERED.match(place.stem)) or (match := _WITHIN_A_SECOND.fullmatch(place.stem)):
        return folder, match[1].casefold()
    return None


def moments_of(photographs: Sequence[Seen], *, seconds: float = MOMENT_SECONDS, alike: float = 1.0) -> list[list[int]]:
    """Groups of photographs, as positions: each once, in the order of their first ones.

    Args:
        photographs: of them.
        seconds: longest time between one photograph of a moment and the next.
        alike: see ``PairHead.alike``.

    Raises:
        PocketiqaError: ``seconds`` is out of range.
    """
    check_seconds(seconds)
    leaders = list(range(len(photographs)))

    def leader(position: int) -> int:
        while leaders[position] != position:
            leaders[position] = position = leaders[leaders[position]]
        return position

    for one, other in _pairs(photographs, seconds, alike):
        first, second = sorted((leader(one), leader(other)))
        leaders[second] = first
    groups: dict[int, list[int]] = {}
    for position in range(len(photographs)):
        groups.setdefault(leader(position), []).append(position)
    return list(groups.values())


def check_seconds(seconds: float) -> None:
    """Refuse a time between photographs that means nothing.

    Raises:
        PocketiqaError: it is negative, or more than a day.
    """
    # Written so that NaN is refused as well.
    if not 0 <= seconds <= _A_DAY:
        raise PocketiqaError(f"--seconds {seconds:g}: a time from 0 to {_A_DAY:g} seconds (a day) is needed")


def _pairs(photographs: Sequence[Seen], seconds: float, alike: float) -> Iterator[tuple[int, int]]:
    first_of: dict[tuple[str, str], int] = {}
    for position, one in enumerate(photographs):
        burst = burst_of(one.place)
        if burst is not None:
            yield first_of.setdefault(burst, position), position
    looks = _Looks(photographs)
    for start in range(0, len(photographs), _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(photographs)))
        for one, other in zip(*np.nonzero(looks.joined(rows, seconds, alike)), strict=True):
            if rows[one] < other:
                yield int(rows[one]), int(other)


class _Looks:
    """Times, hashes and embeddings of all, as arrays; of what is missing, numbers that are like nothing."""

    def __init__(self, photographs: Sequence[Seen]):
        self._times = np.array([np.nan if one.taken is None else one.taken for one in photographs], np.float64)
        self._hashes = np.array([one.dhash or 0 for one in photographs], np.uint64)
        self._hashed = np.array([one.dhash is not None for one in photographs], bool)
        width = next((len(one.direction) for one in photographs if one.direction is not None), 1)
        nothing = np.zeros(width, np.float32)
        self._directions = np.array(
            [nothing if one.direction is None else one.direction for one in photographs], np.float32
        ).reshape(-1, width)

    def joined(self, rows: NDArray[np.int64], seconds: float, alike: float) -> NDArray[np.bool_]:
        """[len(rows), N]: which photographs are joined with those of these rows."""
        apart = np.abs(self._times[rows, None] - self._times)
        bits = count_bits(self._hashes[rows, None] ^ self._hashes)
        bits = np.where(self._hashed[rows, None] & self._hashed, bits, _NEVER)
        near = self._directions[rows] @ self._directions.T >= alike
        much_alike = (bits <= STRICT_BITS) | ((bits <= MIDDLE_BITS) & near)
        return np.where(np.isnan(apart), much_alike, (apart <= seconds) & ((bits <= LOOSE_BITS) | near))
