"""Synthetic pools: clean references and damaged copies of them, with the link between the two."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pseudo_labels.copies.maker import Maker, Task
from pseudo_labels.copies.pool import check_whole_numbers, originals_of, write_copies
from pseudo_labels.copies.shrink import MIN_SIDE_PX
from pseudo_labels.distort.catalogue import VERSION, distort, select
from pseudo_labels.distort.plan import plan
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef

_LEAST = {"per_image": 1, "seed": 0, "workers": 1, "max_side": MIN_SIDE_PX}


@dataclass(frozen=True)
class DamagedCopy:
    """A copy that one distortion damages.

    Attributes:
        distortion: name in the catalogue.
        level: above 0, at most 5.
        seed: of the whole pool.
    """

    distortion: str
    level: float
    seed: int

    @property
    def file_name(self) -> str:
        """Such as ``jpeg-3.25.png``."""
        return f"{self.distortion}-{self.level:.2f}.png"

    def make(self, rgb: np.ndarray, image_id: str) -> np.ndarray:
        """See ``catalogue.distort``."""
        return distort(rgb, self.distortion, self.level, seed=self.seed, image_id=image_id)

    def describe(self, row: ImageRef, original_id: str) -> ImageRef:
        """The row with its reference and damage."""
        return replace(row, ref_id=original_id, distortion=self.distortion, level=self.level)


def build_synthetic_pool(
    pool: Pool,
    out: Path,
    *,
    per_image: int,
    names: Sequence[str] | None = None,
    seed: int = 0,
    max_side: int | None = None,
    workers: int = 1,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Pool:
    """Make damaged copies of the clean images of a pool, and a pool of both.

    Each clean image (``ok`` and an original) gives one row of its own, level 0, and ``per_image`` rows of damaged
    copies, chosen as ``plan.plan`` says. An interrupted run goes on where it was, and ends with the same bytes; see
    ``copies.pool``.

    Args:
        pool: of clean images. Rows that are bad there, or distorted already, are left out.
        out: folder of the new pool.
        per_image: damaged copies of each clean image, at least 1.
        names: distortions and groups, see ``catalogue.select``; None means the 25 of KADID-10k.
        seed: another seed, other distortions, levels and noise.
        max_side: shrink references until neither side exceeds it (but no side falls below 64 pixels); at least 64.
        workers: processes, see ``copies.pool.write_copies``.
        overwrite: replace an earlier pool that was made differently.
        progress: called with damaged copies done and in total.

    Raises:
        PocketiqaError: an unknown name, an argument out of range, or no clean image.
        OutputConflictError: ``out`` holds something else, or is being written by another process.
        StorageFullError: the disk is full; what was made before is kept.
    """
    chosen = select(names)
    shrinking = {} if max_side is None else {"max_side": max_side}
    check_whole_numbers(_LEAST, per_image=per_image, seed=seed, workers=workers, **shrinking)
    spec = {
        "clean_pool": pool.digest,
        "distortions": list(chosen),
        "catalogue_version": VERSION,
        "per_image": per_image,
        "seed": seed,
        "max_side": max_side,
    }
    tasks = _tasks(originals_of(pool), chosen, per_image, seed)
    maker = Maker(pool, Path(out), max_side)
    return write_copies(maker, tasks, spec=spec, workers=workers, overwrite=overwrite, progress=progress)


def _tasks(originals: Sequence[ImageRef], names: Sequence[str], per_image: int, seed: int) -> list[Task]:
    damages = plan([ref.id for ref in originals], names, per_image, seed)
    return [(ref, [DamagedCopy(name, level, seed) for name, level in damages[ref.id]]) for ref in originals]
