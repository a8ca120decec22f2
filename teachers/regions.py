"""Label the regions of a pool: a shard is a task, committed whole, verified and resumed; ranks own shards.

The loop is that of ``teachers.label``; who labels, and how, is in ``teachers.region_labellers``.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from pseudo_labels.defaults import DECODE_WORKERS, LABEL_BATCH_SIZE, LABEL_THREADS, MAX_FAILED_FRACTION
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import DEFAULT_LIMITS, DecodeLimits
from pseudo_labels.parallel import Progress, in_order
from pseudo_labels.pool import Pool
from pseudo_labels.records import Status
from pseudo_labels.regions.store import Region, RegionLabel, RegionLabelStore, RegionSet
from pseudo_labels.store import shard_count
from teachers.batched import Warn
from teachers.label import FailureLimit, check_counts, pending_shards, row_count, store_of_all_ranks
from teachers.launch import current_launch, torch_threads
from teachers.region_labellers import Labeller, RegionWork, labeller_named, without_label

PATCHES = ("auto", "box", "masked")
_PIXELS_AHEAD = 64_000_000


class RegionFailures(FailureLimit):
    """As for images, of the regions that were to be labelled."""

    what = "regions"

    def __init__(self, limit: float):
        self._limit = limit

    def failures(self, store: Any, index: int) -> tuple[int, list[str]]:
        """Number of usable regions in a shard, and status and reason of those without label."""
        table = store.shard_table(index)
        columns = (table[name].to_pylist() for name in ("region", "status", "reason"))
        usable = [(status, reason) for region, status, reason in zip(*columns, strict=True) if region]
        return len(usable), [f"{status}: {reason}" for status, reason in usable if status != Status.OK]


def label_regions(
    pool_folder: Path | str,
    regions_folder: Path | str,
    teacher_name: str,
    out: Path | str,
    *,
    shards: int | None = None,
    options: Mapping[str, Any] | None = None,
    patch: str = "auto",
    batch_size: int = LABEL_BATCH_SIZE,
    device: str = "auto",
    threads: int = LABEL_THREADS,
    decode_workers: int = DECODE_WORKERS,
    limits: DecodeLimits = DEFAULT_LIMITS,
    max_failed_fraction: float = MAX_FAILED_FRACTION,
    overwrite: bool = False,
    progress: Progress | None = None,
    warn: Warn | None = None,
) -> RegionLabelStore:
    """Label the regions of a pool, or finish what an earlier call began; under a launcher, call it in every process.

    Args:
        pool_folder: folder of a finished pool: that of the regions, or one of distorted copies of its images.
        regions_folder: folder of a finished region manifest.
        teacher_name: see the module; after ``crop:``, as in ``registry.build_teacher``.
        out: folder of the store.
        shards: see ``label.label``.
        options: options of the teacher.
        patch: ``auto``, ``box`` or ``masked``, for teachers that compare.
        batch_size: most crops in one call of the teacher.
        device: see ``launch.current_launch``.
        threads: CPU threads of the teacher; part of the store's spec.
        decode_workers: threads that decode ahead.
        limits: limits of decoding.
        max_failed_fraction: fraction of the usable regions; if more got no label, the store is not finished.
        overwrite: start over, even if ``out`` holds a store that was made differently.
        progress: called with images done and in all, of this process.
        warn: called with a sentence on corrupt shards and on memory that ran out.

    Returns:
        The finished store.

    Raises:
        PocketiqaError: see above and the parts called; whatever was committed stays valid.
    """
    pool, regions, out = Pool.open(Path(pool_folder)), RegionSet.open(Path(regions_folder)), Path(out)
    check_counts(batch_size=batch_size, decode_workers=decode_workers)
    if patch not in PATCHES:
        raise PocketiqaError(f"patch is {patch!r}: choose {', '.join(PATCHES)}")
    warn = warn or (lambda _text: None)
    works = _Works(pool, regions)
    if not any(works.of(row).regions for row in range(len(pool))):
        raise PocketiqaError(
            f"{regions.folder} has no region that fits an image of the pool {pool.folder}: make regions of this pool, "
            "or of the one that its images are distorted copies of"
        )
    labeller = labeller_named(teacher_name, options or {}, pool, limits=limits, patch=patch)
    spec = {
        "teacher": labeller.stamp.as_dict(),
        "pool": pool.digest,
        "regions": regions.digest,
        "rows": len(pool),
        "shards": shards or shard_count(out, RegionLabelStore.kind, len(pool), overwrite=overwrite),
        "mode": labeller.mode,
        "scale_importance": labeller.scale_importance,
        "preprocessing": {"decode": {**asdict(limits), "background": list(limits.background)}, **labeller.options()},
        "threads": threads,
    }
    if not 1 <= spec["shards"] <= len(pool):
        raise PocketiqaError(f"{shards} shards for a pool of {len(pool)} images: choose from 1 to {len(pool)}")
    launch = current_launch(device)
    labeller.to(launch.device)
    failed = RegionFailures(max_failed_fraction)
    with store_of_all_ranks(
        RegionLabelStore, out, spec, launch, pool_path=pool.folder, overwrite=overwrite, check=failed.check
    ) as store:
        mine = range(launch.rank, store.shard_count, launch.world)
        pending = pending_shards(store, mine, failed.of_shard, warn)
        labeller.begin(batch_size, warn)
        count = row_count(store, mine, pending, progress)
        _label_shards(store, pending, labeller, works, workers=decode_workers, step=count.step)
    return RegionLabelStore.open(out)


def _label_shards(
    store: RegionLabelStore,
    pending: list[int],
    labeller: Labeller,
    works: "_Works",
    *,
    workers: int,
    step: Callable[[int], None],
) -> None:
    all_works = (works.of(row) for index in pending for row in store.shard_rows(index))
    # One stream for all shards: between two shards the decoding threads go on.
    loaded = in_order(
        labeller.load, all_works, workers, size=lambda work: work.ref.width * work.ref.height,
        size_ahead=_PIXELS_AHEAD,
    )  # fmt: skip
    with torch_threads(store.manifest.spec["threads"]):
        try:
            for index in pending:
                with store.writing(index):
                    size = len(store.shard_rows(index))
                    rows = labeller.label(islice(loaded, size), works.usable(store.shard_rows(index)), step)
                    store.write_rows(index, rows)
        finally:
            loaded.close()


class _Works:
    """The regions of each row of a pool: those of the image, or of its clean reference."""

    def __init__(self, pool: Pool, regions: RegionSet):
        self._pool, self._regions = pool, regions

    def of(self, row: int) -> RegionWork:
        """Row of the pool with its regions; those that do not fit are rows with the reason."""
        ref = self._pool[row]
        if ref.status != Status.OK:
            return RegionWork(ref, [], [RegionLabel(ref.id, status=ref.status, reason=ref.reason, confidence=0.0)])
        own = self._regions.of_image(ref.id) or self._regions.of_image(ref.ref_id)
        good: list[Region] = []
        rows: list[RegionLabel] = []
        for region in own:
            if region.status != Status.OK:
                # Not again what limits dropped: the manifest lists it once, and each copy would repeat it.
                if region.status != Status.DROPPED:
                    rows.append(without_label(ref, "", region.status, region.reason))
            elif (region.height, region.width) != (ref.height, ref.width):
                reason = f"the mask is {region.width}x{region.height}, but the image {ref.width}x{ref.height}"
                rows.append(without_label(ref, region.region, Status.CORRUPT, reason))
            else:
                good.append(region)
        if not good and not rows:
            rows.append(without_label(ref, "", Status.MISSING, "the manifest has no region of this image"))
        return RegionWork(ref, good, rows)

    def usable(self, rows: Iterable[int]) -> int:
        """Number of regions to be labelled of some rows of the pool."""
        return sum(len(self.of(row).regions) for row in rows)
