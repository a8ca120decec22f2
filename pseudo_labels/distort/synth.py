"""Synthetic pools: clean references and distorted copies of them, with the link between the two.

    OUT/images/<id of the clean image>/<name of its file>.png    only where max_side shrank it
    OUT/images/<id of the clean image>/<distortion>-<level>.png

The folder of one clean image exists whole or not at all (see ``maker``); it is the unit of resuming.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pseudo_labels.distort.catalogue import MIN_SIDE_PX, VERSION, select
from pseudo_labels.distort.maker import IMAGES, Maker, Task, plan
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import remove_leftovers
from pseudo_labels.outputs import exclusively
from pseudo_labels.parallel import Progress, in_order
from pseudo_labels.pool import Pool, write_pool
from pseudo_labels.records import ImageRef, Status


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
    progress: Progress | None = None,
) -> Pool:
    """Make distorted copies of the clean images of a pool, and a pool of both.

    Each clean image (``ok`` and an original) gives one row of its own, level 0, and ``per_image`` rows of distorted
    copies, chosen as ``maker.plan`` says. A copy with the bytes of an earlier row is a ``duplicate``; a reference that
    can no longer be read gives rows that say so. An interrupted run goes on where it was, and ends with the same bytes.

    Args:
        pool: pool of clean images. Rows that are bad there, or distorted already, are left out.
        out: folder of the new pool.
        per_image: distorted copies of each clean image, at least 1.
        names: distortions and groups, see ``catalogue.select``; None means the 25 of KADID-10k.
        seed: seed of distortions, levels and noise.
        max_side: shrink references until neither side exceeds it (but no side falls below 64 pixels); at least 64.
        workers: processes. They are started afresh, so a script needs the usual ``if __name__ == "__main__"``.
        overwrite: replace an earlier pool that was made differently.
        progress: called with distorted copies done and in total.

    Raises:
        PocketiqaError: an unknown name, an argument out of range, or no clean image.
        OutputConflictError: ``out`` holds something else, or is being written by another process.
        StorageFullError: the disk is full; what was made before is kept.
    """
    out = Path(out)
    chosen = select(names)
    _check_arguments(per_image, seed, max_side, workers)
    originals = [ref for ref in pool.ok() if not ref.ref_id]
    if not originals:
        raise PocketiqaError(f"the pool {pool.folder} holds no clean image: give one that `pocketiqa pool` made")
    distortions = plan([ref.id for ref in originals], chosen, per_image, seed)
    tasks = [(ref, distortions[ref.id]) for ref in originals]
    spec = {
        "clean_pool": pool.digest,
        "distortions": list(chosen),
        "catalogue_version": VERSION,
        "per_image": per_image,
        "seed": seed,
        "max_side": max_side,
    }
    # A generator: nothing is made before ``write_pool`` has claimed the folder, or removed an earlier pool from it.
    rows = _make_all(Maker(pool, out, seed, max_side), tasks, workers, progress)
    notes = {"clean_pool": str(pool.folder)}
    return write_pool(out, _mark_copies(rows), spec=spec, notes=notes, overwrite=overwrite)


def _check_arguments(per_image: int, seed: int, max_side: int | None, workers: int) -> None:
    numbers: dict[str, Any] = {"per_image": per_image, "seed": seed, "workers": workers}
    if max_side is not None:
        numbers["max_side"] = max_side
    least = {"per_image": 1, "seed": 0, "workers": 1, "max_side": MIN_SIDE_PX}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least[name]:
            raise PocketiqaError(f"{name} is {value!r}, but must be a whole number of at least {least[name]}")


def _make_all(maker: Maker, tasks: Sequence[Task], workers: int, progress: Progress | None) -> Iterator[ImageRef]:
    total, done = sum(len(distortions) for _, distortions in tasks), 0
    # ``write_pool``, which takes the rows, holds the folder by now.
    with exclusively(maker.out):
        remove_leftovers(maker.out / IMAGES, alone=True)
        # One worker is this process: starting another would only cost time.
        for (_, distortions), rows in zip(
            tasks, in_order(maker.make, tasks, workers if workers > 1 else 0, processes=True), strict=True
        ):
            yield from rows
            done += len(distortions)
            if progress:
                progress(done, total)


def _mark_copies(rows: Iterable[ImageRef]) -> Iterator[ImageRef]:
    """A distortion may change nothing (saturation of a gray picture): such a copy has an id that is taken."""
    first: dict[str, str] = {}
    for row in rows:
        earlier = first.setdefault(row.sha256, row.uri) if row.status == Status.OK else row.uri
        if earlier == row.uri:
            yield row
        else:
            yield replace(row, status=Status.DUPLICATE, reason=f"the same bytes as {earlier}")
