"""Pools of photographs and random crops of them: more images for a teacher to label, of the same scenes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pseudo_labels.copies.maker import Maker
from pseudo_labels.copies.pool import check_whole_numbers, originals_of, write_copies
from pseudo_labels.copies.randomness import generator
from pseudo_labels.copies.shrink import MIN_SIDE_PX
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef

_LEAST = {"per_image": 1, "seed": 0, "workers": 1}


@dataclass(frozen=True)
class Crop:
    """A window of a photograph, in its pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def file_name(self) -> str:
        """Such as ``crop-12-0-340x340.png``: top, left, height and width."""
        return f"crop-{self.top}-{self.left}-{self.height}x{self.width}.png"

    def make(self, rgb: np.ndarray, image_id: str) -> np.ndarray:
        """The window."""
        del image_id  # nothing random is left
        return np.ascontiguousarray(rgb[self.top : self.top + self.height, self.left : self.left + self.width])

    def describe(self, row: ImageRef, original_id: str) -> ImageRef:
        """The row as it is: a crop is a photograph of its own, of the scene of its original."""
        del original_id
        return row


def build_crop_pool(
    pool: Pool,
    out: Path,
    *,
    per_image: int,
    smallest: float = 0.5,
    largest: float = 0.9,
    seed: int = 0,
    workers: int = 1,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Pool:
    """Cut random windows out of the clean images of a pool, and make a pool of both.

    Each clean image (``ok`` and an original) gives one row of its own, and ``per_image`` rows of crops in its group:
    of its own aspect, at its own resolution, height and width in pixels between ``smallest`` and ``largest`` of its
    own, anywhere in it. They follow from seed and image alone. No side falls below 64 pixels by it. See
    ``copies.pool`` for interrupted runs and bad rows.

    Args:
        pool: of clean images. Rows that are bad there, or distorted already, are left out.
        out: folder of the new pool.
        per_image: crops of each clean image, at least 1.
        smallest: least share of height and width, above 0.
        largest: largest share, at most 1.
        seed: another seed, other crops.
        workers: processes, see ``copies.pool.write_copies``.
        overwrite: replace an earlier pool that was made differently.
        progress: called with crops done and in total.

    Raises:
        PocketiqaError: an argument out of range, or no clean image.
        OutputConflictError: ``out`` holds something else, or is being written by another process.
        StorageFullError: the disk is full; what was made before is kept.
    """
    check_whole_numbers(_LEAST, per_image=per_image, seed=seed, workers=workers)
    if not 0 < smallest <= largest <= 1:
        raise PocketiqaError(
            f"crops from {smallest} to {largest} of a side: give two shares above 0 and at most 1, the smaller first"
        )
    spec = {"clean_pool": pool.digest, "per_image": per_image, "smallest": smallest, "largest": largest, "seed": seed}
    tasks = [(ref, _crops(ref, per_image, smallest, largest, seed)) for ref in originals_of(pool)]
    maker = Maker(pool, Path(out))
    return write_copies(maker, tasks, spec=spec, workers=workers, overwrite=overwrite, progress=progress)


def _crops(ref: ImageRef, count: int, smallest: float, largest: float, seed: int) -> list[Crop]:
    """Windows that differ from each other and from the whole image; fewer where it has no room for so many."""
    chance = generator("crop", seed, ref.id)
    drawn = (_crop(ref, chance, smallest, largest) for _ in range(8 * count))
    whole = Crop(0, 0, ref.height, ref.width)
    return [crop for crop in dict.fromkeys(drawn) if crop != whole][:count]


def _crop(ref: ImageRef, chance: np.random.Generator, smallest: float, largest: float) -> Crop:
    size, down, across = chance.random(3).tolist()
    share = smallest + size * (largest - smallest)
    height, width = (min(side, max(MIN_SIDE_PX, round(share * side))) for side in (ref.height, ref.width))
    return Crop(int(down * (ref.height - height + 1)), int(across * (ref.width - width + 1)), height, width)
