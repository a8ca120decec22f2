"""Distorted copies as an order: of one photograph under one distortion, a lower level is better than a higher one.

Of brightness, contrast or colour no metric says how far the score should fall, but the order of levels is known. It is
read from the rows of a synthetic pool: clean picture, distortion and level of each copy. No label takes part.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from distill.recipe.stages import DropSettings
from pseudo_labels.distort.catalogue import select
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef, Status

NO_LIMIT = float("inf")


class Drop(NamedTuple):
    """How far a score falls with each level, in units of the score: at least, and at most."""

    least: float
    most: float


class Place(NamedTuple):
    """One picture of a list.

    Attributes:
        row: position in the pool.
        level: 0 of the clean picture, else above 0 and at most 5.
    """

    row: int
    level: float


@dataclass(frozen=True)
class LevelList:
    """A photograph and its copies under one distortion.

    Attributes:
        distortion: name in the catalogue.
        drop: what is asked of its scores.
        places: by rising level; the clean picture is the first, if it can be read.
    """

    distortion: str
    drop: Drop
    places: tuple[Place, ...]


class LevelLists:
    """The lists of a pool, in its order.

    Attributes:
        lists: at least one, each of at least two pictures.
    """

    def __init__(self, lists: Sequence[LevelList]):
        self.lists = tuple(lists)

    @classmethod
    def open(cls, pool: Pool, drops: Sequence[DropSettings]) -> "LevelLists":
        """Gather the lists of a pool that ``pocketiqa distort`` made.

        Args:
            pool: clean pictures and distorted copies of them. Rows that are not ``ok`` are left out.
            drops: what is asked, by distortion; a later entry replaces an earlier one.

        Raises:
            PocketiqaError: an unknown distortion, or no list.
        """
        drop_of = drops_by_name(drops)
        clean: dict[str, int] = {}
        copies: dict[tuple[str, str, str], list[Place]] = {}
        for row, ref in enumerate(pool):
            if ref.status != Status.OK:
                continue
            if not ref.ref_id:
                clean[ref.id] = row
            elif ref.distortion in drop_of:
                # Copies that are distorted in one region only: a list a region.
                copies.setdefault((ref.ref_id, ref.distortion, ref.region), []).append(Place(row, _level(pool, ref)))
        lists = []
        for (original, distortion, _), own in copies.items():
            places = sorted(own, key=lambda place: place.level)
            if original in clean:
                places = [Place(clean[original], 0.0), *places]
            if len(places) > 1:
                lists.append(LevelList(distortion, drop_of[distortion], tuple(places)))
        if not lists:
            named = ", ".join(drop_of)
            raise PocketiqaError(
                f"the pool {pool.folder} holds no two levels of one photograph under {named}: make copies with "
                "pocketiqa distort, several of each distortion (--per-image), or name other distortions"
            )
        return cls(lists)

    @property
    def rows(self) -> list[int]:
        """Rows of the pool that occur, each once, in order."""
        return sorted({place.row for one in self.lists for place in one.places})

    @property
    def digest(self) -> str:
        """Identity of lists and of what is asked of them."""
        # JSON has no infinity.
        drops = [[one.drop.least, None if one.drop.most == NO_LIMIT else one.drop.most] for one in self]
        return digest_of(
            [
                [one.distortion, drop, [list(place) for place in one.places]]
                for one, drop in zip(self, drops, strict=True)
            ]
        )

    def __len__(self) -> int:
        return len(self.lists)

    def __iter__(self) -> Iterator[LevelList]:
        return iter(self.lists)


def drops_by_name(drops: Sequence[DropSettings]) -> dict[str, Drop]:
    """What is asked of each distortion that is named.

    Raises:
        PocketiqaError: an unknown distortion.
    """
    asked: dict[str, Drop] = {}
    for entry in drops:
        most = NO_LIMIT if entry.most is None else entry.most
        asked |= dict.fromkeys(select(entry.distortions), Drop(entry.least, most))
    return asked


def _level(pool: Pool, ref: ImageRef) -> float:
    if not 0 < ref.level <= 5:
        raise PocketiqaError(
            f"the copy {ref.uri} in the pool {pool.folder} has level {ref.level!r}, not one above 0 and at most 5: "
            "make the pool anew with pocketiqa distort"
        )
    return float(ref.level)
