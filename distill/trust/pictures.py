"""The pictures that each test asks for, of one photograph; each can be made again by its label."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill.stress.formats import SIDES_PX
from distill.stress.photograph import Photograph, resized
from distill.trust.definitions import CATALOGUE, CROP, VIEWS, WATERLOO
from pseudo_labels import images
from pseudo_labels.crops import Crop
from pseudo_labels.distort import CATALOGUE as DISTORTIONS
from pseudo_labels.distort import WATERLOO as STRONG_DISTORTIONS
from pseudo_labels.distort import catalogue
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of, sha256_bytes
from pseudo_labels.images import ImageError, read_bytes

CLEAN = "clean"
LEVELS = (1, 2, 3, 4, 5)
_PREFIX = "waterloo_"
KINDS = tuple(name.removeprefix(_PREFIX) for name in STRONG_DISTORTIONS)
"""Distortions of the Waterloo set, without the prefix that tells them from the catalogue's."""
_SEED = 0
_REST = 1 - CROP
_CROPS = {
    f"crop {where}": Crop(top, left, CROP, CROP)
    for where, (top, left) in {
        "top left": (0.0, 0.0),
        "top right": (0.0, _REST),
        "bottom left": (_REST, 0.0),
        "bottom right": (_REST, _REST),
        "middle": (_REST / 2, _REST / 2),
    }.items()
}
CROPS, SIZES = tuple(_CROPS), tuple(f"side {side}" for side in SIDES_PX)


def copies(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Labels of the copies of these distortions: all levels of the first, of the second, ..."""
    return tuple(f"{kind} {level}" for kind in kinds for level in LEVELS)


LABELS: dict[str, tuple[str, ...]] = {
    WATERLOO: (CLEAN, *copies(KINDS)),
    CATALOGUE: (CLEAN, *copies(tuple(DISTORTIONS))),
    VIEWS: (CLEAN, *CROPS, *SIZES),
}
"""Labels of the pictures of each test that needs no model to make them, in order."""


def version_of(test: str) -> str:
    """Digest of all that determines the pictures of a test, besides the photograph."""
    return digest_of([test, list(LABELS[test]), images.VERSION, catalogue.VERSION])


@dataclass(frozen=True)
class PhotographFile:
    """A photograph that need not be decoded where all its scores are stored.

    Attributes:
        path: file.
        key: digest of name and content.
    """

    path: Path
    key: str

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "PhotographFile":
        """Read the file for its digest.

        Raises:
            PocketiqaError: it cannot be read; it is named, with the reason.
        """
        try:
            content = sha256_bytes(read_bytes(path))
        except ImageError as error:
            raise PocketiqaError(f"{os.fspath(path)} cannot be used ({error.status}): {error.reason}") from error
        # The name too: the noise of the copies follows from it.
        return cls(Path(path), digest_of([Path(path).name, content]))

    def open(self) -> Photograph:
        """Decode it.

        Raises:
            PocketiqaError: it cannot be decoded, or has a side below 64 pixels; it is named, with the reason.
        """
        return Photograph.open(self.path)


def picture(photograph: Photograph, test: str, label: str) -> np.ndarray:
    """One picture of a test, uint8 HxWx3, not to be written into.

    Args:
        photograph: clean photograph.
        test: one of ``LABELS``.
        label: one of its labels.
    """
    if label == CLEAN:
        return photograph.rgb
    if label in _CROPS:
        return _CROPS[label].cut(photograph.rgb)
    kind, _, number = label.rpartition(" ")
    if kind == "side":
        return resized(photograph.original, int(number))
    if test == WATERLOO:
        # Several tests ask for these copies, JPEG 2000 among them, which takes long: the photograph holds them.
        return photograph.distorted(_PREFIX + kind, int(number))
    return catalogue.distort(photograph.rgb, kind, int(number), seed=_SEED, image_id=photograph.name)


def pictures(photograph: Photograph, test: str) -> Iterator[tuple[str, np.ndarray]]:
    """Label and pixels of each picture of a test, made one by one."""
    for label in LABELS[test]:
        yield label, picture(photograph, test, label)
