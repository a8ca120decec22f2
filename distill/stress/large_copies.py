"""Copies of a photograph of today's size: damaged at its own size, then seen as a display of 2 megapixels shows it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from pseudo_labels.crops import generator
from pseudo_labels.distort.blur import gaussian
from pseudo_labels.distort.compression import recode_jpeg
from pseudo_labels.distort.scale import to_uint8
from pseudo_labels.errors import PocketiqaError
from students.look import DISPLAY_PIXELS, size_within
from students.preprocess import shrink

LADDERS: dict[str, tuple[float, ...]] = {
    "blur": (1, 2, 4),
    "noise": (10, 20, 40),
    "jpeg": (95, 80, 60, 40, 20, 10),
    "upscaling": (2, 3, 4),
}
"""Strengths by kind, each worse than the one before: standard deviation of a Gaussian in pixels of the photograph, of
white noise in grey levels, quality of JPEG (4:2:0), and the factor by which it was enlarged from a smaller one."""
SCALES = (0.5, 0.71)
"""Sizes of the photograph, as fractions of its sides, between which its score should hardly move."""
CLEAN, SCALED = "clean", "scaled"
_SEED = 0


class Reference(Protocol):
    """Judges what a display shows of a copy beside what it shows of the photograph: 1 is no difference."""

    def __call__(self, shown: np.ndarray, clean: np.ndarray) -> float:
        """Two pictures of one size, uint8 HxWx3, to a score in [0, 1]."""
        ...


@dataclass(frozen=True)
class LargeCopy:
    """A photograph, or a copy of it.

    Attributes:
        kind: of ``LADDERS``, ``CLEAN``, or ``SCALED``.
        strength: see ``LADDERS``; of a scaled copy the factor, of the photograph 0.
        rgb: uint8 HxWx3.
        reference: in [0, 1], see ``Reference``; 1 for the photograph and its scaled copies.
    """

    kind: str
    strength: float
    rgb: np.ndarray
    reference: float


def large_copies(rgb: np.ndarray, reference: Reference, *, name: str) -> Iterator[LargeCopy]:
    """The photograph, its damaged copies in the order of ``LADDERS``, and its scaled ones, one at a time.

    Args:
        rgb: uint8 HxWx3.
        reference: judges what a display shows.
        name: of the photograph; the noise follows from it.
    """
    clean = displayed(rgb)
    yield LargeCopy(CLEAN, 0.0, rgb, 1.0)
    for kind, strengths in LADDERS.items():
        for strength in strengths:
            copy = damaged(rgb, kind, strength, name=name)
            yield LargeCopy(kind, strength, copy, reference(displayed(copy), clean))
    for factor in SCALES:
        yield LargeCopy(SCALED, factor, scaled(rgb, factor), 1.0)


def damaged(rgb: np.ndarray, kind: str, strength: float, *, name: str) -> np.ndarray:
    """A copy that is worse in one way, at the size of the photograph.

    Args:
        rgb: uint8 HxWx3; never changed.
        kind: of ``LADDERS``.
        strength: see there.
        name: of the photograph; the noise follows from it.

    Returns:
        uint8 HxWx3.

    Raises:
        PocketiqaError: an unknown kind.
    """
    if kind == "blur":
        # A plane at a time and in float32: 24 megapixels in float64 are 0.6 GB.
        planes = [to_uint8(gaussian(rgb[..., plane].astype(np.float32), strength)) for plane in range(3)]
        return np.stack(planes, axis=-1)
    if kind == "noise":
        rng = generator(_SEED, name, kind, float(strength))
        noise = rng.standard_normal(rgb.shape, dtype=np.float32)
        noise *= np.float32(strength)
        noise += rgb
        return to_uint8(noise)
    if kind == "jpeg":
        return recode_jpeg(rgb, round(strength))
    if kind == "upscaling":
        height, width = rgb.shape[:2]
        small = scaled(rgb, 1 / strength)
        return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    raise PocketiqaError(f"unknown kind {kind!r}: choose one of {', '.join(LADDERS)}")


def scaled(rgb: np.ndarray, factor: float) -> np.ndarray:
    """A picture with sides multiplied by ``factor``, by Lanczos; uint8 HxWx3."""
    height, width = rgb.shape[:2]
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.array(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))


def displayed(rgb: np.ndarray) -> np.ndarray:
    """What a display of ``DISPLAY_PIXELS`` shows of a picture; uint8 HxWx3, smaller pictures as they are."""
    return shrink(rgb, size_within(rgb.shape[0], rgb.shape[1], DISPLAY_PIXELS))
