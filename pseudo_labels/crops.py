"""What a label of an image can be of: the whole image, its mirror image, or a crop."""

import re
from dataclasses import dataclass

import numpy as np

from pseudo_labels.defaults import CROP_LARGEST, CROP_SMALLEST
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of

FULL, FLIP = "full", "flip"
# Of a fraction, so that the name of a crop in a store gives exactly this crop back. Rounding moves an edge by at most
# 0.05 pixels in an image of 1,000.
_DIGITS = 4
_CROP = re.compile(r"crop (0\.\d{4}) (0\.\d{4}) ([01]\.\d{4}) ([01]\.\d{4})")


def generator(*key: int | float | str) -> np.random.Generator:
    """A generator that equal keys give on every machine and in every process, unlike ``hash()``."""
    return np.random.Generator(np.random.PCG64(int(digest_of(list(key)), 16)))


@dataclass(frozen=True)
class Crop:
    """A part of an image, as fractions of its height and width: the same part at every size.

    Attributes:
        top: upper edge as a fraction of the height, in [0, 1).
        left: left edge as a fraction of the width, in [0, 1).
        height: fraction of the height, above 0; it ends within the image.
        width: fraction of the width, above 0; it ends within the image.
    """

    top: float = 0.0
    left: float = 0.0
    height: float = 1.0
    width: float = 1.0

    @property
    def view(self) -> str:
        """Name in a label store: ``crop TOP LEFT HEIGHT WIDTH``."""
        return f"crop {self.top:.4f} {self.left:.4f} {self.height:.4f} {self.width:.4f}"

    def in_pixels(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width in an image of this size; at least one pixel."""
        tall, wide = (max(1, round(fraction * side)) for fraction, side in ((self.height, height), (self.width, width)))
        # Rounded on their own, top and height may together exceed the image by a pixel.
        return min(round(self.top * height), height - tall), min(round(self.left * width), width - wide), tall, wide

    def cut(self, rgb: np.ndarray) -> np.ndarray:
        """This part of an image HxWx3, contiguous."""
        top, left, height, width = self.in_pixels(*rgb.shape[:2])
        return np.ascontiguousarray(rgb[top : top + height, left : left + width])


WHOLE = Crop()


def crop_of(view: str) -> Crop:
    """The crop that the ``view`` of a label names; ``WHOLE`` for the full and the mirrored image.

    Raises:
        PocketiqaError: the name is not known.
    """
    if view in (FULL, FLIP):
        return WHOLE
    match = _CROP.fullmatch(view)
    window = Crop(*map(float, match.groups())) if match else WHOLE
    # Sums of decimals carry float noise: 1 is told by being below the next larger sum of four digits.
    fits = window.top + window.height < 1 + 10**-_DIGITS and window.left + window.width < 1 + 10**-_DIGITS
    if not match or not fits or not window.height * window.width:
        raise PocketiqaError(
            f"unknown view {view!r}: known are {FULL!r}, {FLIP!r} and such as {Crop(0.1, 0.2, 0.5, 0.5).view!r}"
        )
    return window


@dataclass(frozen=True)
class RandomCrops:
    """One random crop of each image, anywhere in it and with its aspect ratio; the same in every process and run.

    Attributes:
        smallest: least fraction of height and width, above 0.
        largest: largest fraction, at most 1.
        seed: seed of sizes and positions.

    Raises:
        PocketiqaError: a fraction is out of range, or ``smallest`` is above ``largest``.
    """

    smallest: float = CROP_SMALLEST
    largest: float = CROP_LARGEST
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= self.largest <= 1:
            raise PocketiqaError(
                f"crops from {self.smallest} to {self.largest} of a side: give two fractions above 0 and at most 1, "
                "the smaller first"
            )

    def of(self, image_id: str) -> Crop:
        """The crop of an image, by its id."""
        # The word keeps these draws apart from those of distortions, which are made from seed and id, too.
        size, down, across = generator("crop", self.seed, image_id).random(3).tolist()
        fraction = max(round(self.smallest + size * (self.largest - self.smallest), _DIGITS), 10**-_DIGITS)
        # Rounded before it is used: what is cut is what the name in the store says.
        top, left = (round(position * (1 - fraction), _DIGITS) for position in (down, across))
        return Crop(top, left, fraction, fraction)
