"""A photograph that is decoded once, with distorted copies that all checks and all models use."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from pseudo_labels.distort import distort
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import ImageError, load

# The levels of distortion are declared in pixels of pictures of 512x384: in a photograph of 12 megapixels a blur of
# level 1 is invisible. So larger photographs are distorted at this size, the largest that the check of sizes asks for.
LARGEST_SIDE_PX = 1024
_SEED = 0


class Photograph:
    """Pixels of a clean photograph.

    Attributes:
        name: name for a person; the noise of its copies follows from it.
        original: uint8 HxWx3 as decoded.
        rgb: ``original`` with a longer side of at most ``LARGEST_SIDE_PX``; the copies are made of it.
    """

    def __init__(self, name: str, original: np.ndarray):
        """Take decoded pixels, uint8 HxWx3 RGB."""
        self.name = name
        self.original = original
        self.rgb = original if max(original.shape[:2]) <= LARGEST_SIDE_PX else resized(original, LARGEST_SIDE_PX)
        self._copies: dict[tuple[str, int], np.ndarray] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Photograph":
        """Decode a file.

        Raises:
            PocketiqaError: it cannot be used; it is named, with the reason.
        """
        try:
            return cls(Path(path).name, load(path))
        except ImageError as error:
            raise PocketiqaError(f"{os.fspath(path)} cannot be used ({error.status}): {error.reason}") from error

    def distorted(self, distortion: str, level: int) -> np.ndarray:
        """A distorted copy of ``rgb``, uint8 HxWx3, made once; not to be written into.

        Args:
            distortion: name in the catalogue of distortions.
            level: 1 to 5.

        Raises:
            PocketiqaError: an unknown distortion or level, or a photograph with a side below 64 pixels.
        """
        key = distortion, level
        if key not in self._copies:
            # By name, not by path: the same photographs in another folder give the same noise, and the same figures.
            self._copies[key] = distort(self.rgb, distortion, level, seed=_SEED, image_id=self.name)
        return self._copies[key]

    def forget(self, distortion: str) -> None:
        """Free the copies of a distortion: those of all distortions at once would take hundreds of megabytes."""
        self._copies = {key: copy for key, copy in self._copies.items() if key[0] != distortion}


def resized(rgb: np.ndarray, longer_px: int) -> np.ndarray:
    """A picture with another longer side, resized by Lanczos; uint8 HxWx3 to uint8 HxWx3."""
    height, width = rgb.shape[:2]
    scale = longer_px / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (width, height):
        return rgb
    return np.array(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))
