"""Synthetic pools: clean references and distorted copies of them, with the link between the two.

    OUT/images/<id of the clean image>/<name of its file>.png    only where max_side shrank it
    OUT/images/<id of the clean image>/<distortion>-<level>.png
    OUT/images/<id of the clean image>/<distortion>-<level>-<id of the region>.png    with regions
    OUT/images/<id of the clean image>/<number>-<regions>_regions.png    a copy that is distorted in several

The folder of one clean image exists whole or not at all (see ``maker``); it is the unit of resuming.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pseudo_labels.distort.catalogue import MIN_SIDE_PX, VERSION, select
from pseudo_labels.distort.maker import IMAGES, Distortion, Maker, RegionMask, Task, deal_regions, plan
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import remove_leftovers
from pseudo_labels.outputs import exclusively
from pseudo_labels.parallel import Cluster, InOrder, Progress, in_order
from pseudo_labels.pool import Pool, write_pool
from pseudo_labels.records import ImageRef, Status
from pseudo_labels.regions.store import RegionSet

ONE_REGION = (1,)
# More regions would name more distortions than a row should hold.
_MOST_REGIONS = 100


def build_synthetic_pool(
    pool: Pool,
    out: Path,
    *,
    per_image: int,
    names: Sequence[str] | None = None,
    seed: int = 0,
    max_side: int | None = None,
    regions: RegionSet | None = None,
    regions_per_copy: Sequence[int] = ONE_REGION,
    feather_px: float = 0.0,
    workers: int = 1,
    cluster: Cluster | None = None,
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
        regions: finished manifest of regions of the same pool; each copy is then distorted in one region only, and its
            row names it. A copy of an image without regions is a row that says so.
        regions_per_copy: number of regions that are distorted in a copy, each by a distortion of its own; several
            numbers take turns from copy to copy. Needs ``regions``; an image that has fewer is distorted in all.
        feather_px: see ``maker.RegionMask.blended``; needs ``regions``.
        workers: processes. They are started afresh, so a script needs the usual ``if __name__ == "__main__"``.
        cluster: makes the copies of each clean image in place of ``workers``, such as
            ``teachers.on_ray.RayCluster.ready``; all its nodes see both pools under the same paths.
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
    counts = _check_regions_per_copy(regions_per_copy, regions)
    _check_regions(pool, regions, feather_px, max_side)
    originals = [ref for ref in pool.ok() if not ref.ref_id]
    if not originals:
        raise PocketiqaError(f"the pool {pool.folder} holds no clean image: give one that `pocketiqa pool` made")
    of_copy = [counts[number % len(counts)] for number in range(per_image)]
    distortions = plan([ref.id for ref in originals], chosen, sum(of_copy), seed)
    tasks = [_task(ref, distortions[ref.id], regions, of_copy, seed) for ref in originals]
    spec: dict[str, Any] = {
        "clean_pool": pool.digest,
        "distortions": list(chosen),
        "catalogue_version": VERSION,
        "per_image": per_image,
        "seed": seed,
        "max_side": max_side,
    }
    if regions is not None:
        spec |= {"regions": regions.digest, "feather_px": float(feather_px)}
        # Not stated where it is as before this could be chosen: such pools are still the same.
        spec |= {} if counts == ONE_REGION else {"regions_per_copy": list(counts)}
    # A generator: nothing is made before ``write_pool`` has claimed the folder, or removed an earlier pool from it.
    notes = {"clean_pool": str(pool.folder)}
    with_regions = regions is not None
    # Ready before an earlier pool is replaced.
    with _alone(workers) if cluster is None else cluster() as in_turn:
        rows = _make_all(Maker(pool, out, seed, max_side, float(feather_px)), tasks, in_turn, progress)
        return write_pool(out, _mark_copies(rows), spec=spec, notes=notes, regions=with_regions, overwrite=overwrite)


def _alone(workers: int) -> AbstractContextManager[InOrder]:
    # One worker is this process: starting another would only cost time.
    return nullcontext(partial(in_order, workers=workers if workers > 1 else 0, processes=True))


def _check_regions(pool: Pool, regions: RegionSet | None, feather_px: float, max_side: int | None) -> None:
    if not (math.isfinite(feather_px) and feather_px >= 0):
        raise PocketiqaError(f"feather_px is {feather_px}, but must be a number of pixels, at least 0")
    if regions is None:
        if feather_px:
            raise PocketiqaError(f"feather_px is {feather_px}, but there are no regions: name them with --regions")
        return
    if max_side is not None:
        raise PocketiqaError(
            f"max_side {max_side} would not fit the masks of {regions.folder}: shrink the photographs first, and make "
            "the pool and its regions from those"
        )
    if regions.manifest.spec["pool"] != pool.digest:
        raise PocketiqaError(
            f"the regions in {regions.folder} are not those of the pool {pool.folder}: make them with "
            f"pocketiqa regions {pool.folder}"
        )


def _check_regions_per_copy(counts: Sequence[int], regions: RegionSet | None) -> tuple[int, ...]:
    if not counts or not all(isinstance(count, int) and 1 <= count <= _MOST_REGIONS for count in counts):
        raise PocketiqaError(
            f"regions_per_copy is {list(counts)[:8]!r}, but whole numbers from 1 to {_MOST_REGIONS} are needed"
        )
    if regions is None and tuple(counts) != ONE_REGION:
        raise PocketiqaError(f"regions_per_copy is {list(counts)}, but there are no regions: name them with --regions")
    return tuple(counts)


def _task(
    ref: ImageRef, distortions: list[Distortion], regions: RegionSet | None, of_copy: Sequence[int], seed: int
) -> Task:
    if regions is None:
        return Task(ref, distortions)
    own = [RegionMask(one.region, one.height, one.width, one.counts) for one in regions.regions_of(ref.id)]
    if not own:
        return Task(ref, distortions[: len(of_copy)], fault="the clean image has no region")
    return Task(ref, distortions, deal_regions(ref.id, own, of_copy, seed))


def _check_arguments(per_image: int, seed: int, max_side: int | None, workers: int) -> None:
    numbers: dict[str, Any] = {"per_image": per_image, "seed": seed, "workers": workers}
    if max_side is not None:
        numbers["max_side"] = max_side
    least = {"per_image": 1, "seed": 0, "workers": 1, "max_side": MIN_SIDE_PX}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least[name]:
            raise PocketiqaError(f"{name} is {value!r}, but must be a whole number of at least {least[name]}")


def _make_all(maker: Maker, tasks: Sequence[Task], in_turn: InOrder, progress: Progress | None) -> Iterator[ImageRef]:
    total, done = sum(len(task.copies) for task in tasks), 0
    # ``write_pool``, which takes the rows, holds the folder by now. Closed before it lets go: nobody writes any more.
    with exclusively(maker.out), closing(in_turn(maker.make, tasks)) as made:
        remove_leftovers(maker.out / IMAGES, alone=True)
        for task, rows in zip(tasks, made, strict=True):
            maker.check_made(task, rows)
            yield from rows
            done += len(task.copies)
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
