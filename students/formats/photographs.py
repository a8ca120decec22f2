"""Photographs that a conversion is calibrated and measured on: files under a name, read one by one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import ImageError, load
from students.preprocess import Preprocess


@dataclass(frozen=True)
class Photographs:
    """Photographs of one source.

    Attributes:
        name: where they come from, as the contract will state it.
        paths: files; those that cannot be used are passed over.
    """

    name: str
    paths: Sequence[str | Path]

    def resized(self, preprocess: Preprocess, *, least: int) -> list[np.ndarray]:
        """Inputs of a student, uint8 HxWx3 each.

        Raises:
            PocketiqaError: fewer than ``least`` can be used.
        """
        inputs = [image for path in self.paths if (image := _read(path, preprocess)) is not None]
        if len(inputs) < least:
            raise PocketiqaError(
                f"{self.name}: {len(inputs)} of {len(self.paths)} photographs can be used, but {least} are needed"
            )
        return inputs


@dataclass(frozen=True)
class RatedPhotographs:
    """Photographs with ratings of people, of which none may be of a test part.

    Attributes:
        name: where they come from, as the contract will state it.
        rows: file and rating, on any scale, higher is better.
    """

    name: str
    rows: Sequence[tuple[str | Path, float]]

    def inputs(self, preprocess: Preprocess) -> Iterator[tuple[np.ndarray, float]]:
        """Batches of one, uint8 [1, H, W, 3], with their ratings, one at a time; unusable files are passed over."""
        for path, rating in self.rows:
            image = _read(path, preprocess)
            if image is not None:
                yield image[None], rating


def _read(path: str | Path, preprocess: Preprocess) -> np.ndarray | None:
    try:
        return preprocess.resize(load(path, resizer=preprocess))
    except ImageError:
        return None


def evenly(items: Sequence, most: int) -> list:
    """At most ``most`` of the items, from the whole list, at distances that are equal but for rounding."""
    positions = np.linspace(0, len(items) - 1, min(len(items), most)).round().astype(int)
    return [items[position] for position in positions]
