"""Label the regions of a pool: a shard is a task, committed whole, verified and resumed.

Which process labels which shard is decided in ``teachers.sharing``; who labels, and how, in
``teachers.region_labellers``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from pseudo_labels.defaults import DECODE_WORKERS, LABEL_THREADS, MAX_FAILED_FRACTION
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import DEFAULT_LIMITS, DecodeLimits
from pseudo_labels.parallel import Progress, in_order
from pseudo_labels.pool import Pool
from pseudo_labels.records import Status
from pseudo_labels.regions.store import Region, RegionLabel, RegionLabelStore, RegionSet
from pseudo_labels.remote import location
from pseudo_labels.store import batch_sizes, shard_count
from teachers.batched import Warn
from teachers.label import check_counts
from teachers.launch import torch_threads
from teachers.region_labellers import Labeller, RegionWork, labeller_named, without_label
from teachers.sharing import FailureLimit, Ranks, ShardQueue, Share, Work

PATCHES = ("auto", "box", "masked")
_PIXELS_AHEAD = 64_000_000
_ALONE = Ranks()


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
    batch_size: int | None = None,
    device: str = "auto",
    threads: int = LABEL_THREADS,
    decode_workers: int = DECODE_WORKERS,
    limits: DecodeLimits = DEFAULT_LIMITS,
    max_failed_fraction: float = MAX_FAILED_FRACTION,
    overwrite: bool = False,
    share: Share = _ALONE,
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
        batch_size: most crops in one call of the teacher, see ``label.label``.
        device: see ``launch.current_launch``.
        threads: CPU threads of the teacher; part of the store's spec.
        decode_workers: threads that decode ahead.
        limits: limits of decoding.
        max_failed_fraction: fraction of the usable regions; if more got no label, the store is not finished.
        overwrite: start over, even if ``out`` holds a store that was made differently.
        share: how shards are divided among processes, see ``sharing``.
        progress: called with images done and in all, of this process.
        warn: called with a sentence on corrupt shards and on memory that ran out.

    Returns:
        The store; finished, unless other parts of it (``sharing.Part``) are not done.

    Raises:
        PocketiqaError: see above and the parts called; whatever was committed stays valid.
    """
    if patch not in PATCHES:
        raise PocketiqaError(f"patch is {patch!r}: choose {', '.join(PATCHES)}")
    order = RegionOrder(
        pool_folder=location(pool_folder), regions_folder=location(regions_folder), teacher_name=teacher_name,
        out=location(out), shards=shards, options=dict(options or {}), patch=patch, batch_size=batch_size,
        device=device, threads=threads, decode_workers=decode_workers, limits=limits,
        max_failed_fraction=max_failed_fraction, overwrite=overwrite,
    )  # fmt: skip
    share.label(order, progress=progress, warn=warn or (lambda _text: None))
    return RegionLabelStore.open(order.out)


@dataclass(frozen=True, kw_only=True)
class RegionOrder:
    """What ``label_regions`` was asked for, see there."""

    pool_folder: Path
    regions_folder: Path
    teacher_name: str
    out: Path
    shards: int | None
    options: Mapping[str, Any]
    patch: str
    batch_size: int | None
    device: str
    threads: int
    decode_workers: int
    limits: DecodeLimits
    max_failed_fraction: float
    overwrite: bool

    def work(self, warn: Warn) -> "RegionLabelWork":
        """See ``sharing.Order``."""
        pool, regions, limits = Pool.open(self.pool_folder), RegionSet.open(self.regions_folder), self.limits
        check_counts(batch_size=self.batch_size, decode_workers=self.decode_workers)
        works = _Works(pool, regions)
        if not any(works.of(row).regions for row in range(len(pool))):
            raise PocketiqaError(
                f"{regions.folder} has no region that fits an image of the pool {pool.folder}: make regions of this "
                "pool, or of the one that its images are distorted copies of"
            )
        labeller = labeller_named(self.teacher_name, self.options, pool, limits=limits, patch=self.patch)
        rows = len(pool)
        begun, batch_size = batch_sizes(
            self.out, RegionLabelStore.kind, rows, self.batch_size, overwrite=self.overwrite,
            warn=warn if labeller.batched else None,
        )  # fmt: skip
        spec = {
            "teacher": labeller.stamp.as_dict(),
            "pool": pool.digest,
            "regions": regions.digest,
            "rows": rows,
            "shards": self.shards or shard_count(self.out, RegionLabelStore.kind, rows, overwrite=self.overwrite),
            "mode": labeller.mode,
            "scale_importance": labeller.scale_importance,
            "preprocessing": {
                "decode": {**asdict(limits), "background": list(limits.background)}, **labeller.options()
            },
            "threads": self.threads,
            # As in manifests of earlier versions, whose digests stay.
            **({"batch_size": begun} if labeller.batched and begun is not None else {}),
        }  # fmt: skip
        if not 1 <= spec["shards"] <= rows:
            raise PocketiqaError(f"{self.shards} shards for a pool of {rows} images: choose from 1 to {rows}")
        labeller.begin(batch_size, warn)
        failed = RegionFailures(self.max_failed_fraction)
        return RegionLabelWork(
            RegionLabelStore, self.out, spec, pool.folder, failed,
            labeller=labeller, works=works, decode_workers=self.decode_workers,
        )  # fmt: skip


@dataclass
class RegionLabelWork(Work[RegionLabelStore]):
    """Regions of the images of a pool, by one of the four kinds of labellers.

    Attributes:
        labeller: who labels.
        works: the regions of each row of the pool.
        decode_workers: threads that decode ahead.
    """

    labeller: Labeller
    works: "_Works"
    decode_workers: int

    def to(self, device: torch.device) -> None:
        """See ``sharing.Work``."""
        self.labeller.to(device)

    def label(self, store: RegionLabelStore, queue: ShardQueue) -> None:
        """See ``sharing.Work``."""
        ahead, work = queue.twice()
        all_works = (self.works.of(row) for index in ahead for row in store.shard_rows(index))
        # One stream for all shards: between two shards the decoding threads go on.
        loaded = in_order(
            self.labeller.load, all_works, self.decode_workers, size=lambda work: work.ref.width * work.ref.height,
            size_ahead=_PIXELS_AHEAD,
        )  # fmt: skip
        with torch_threads(store.manifest.spec["threads"]):
            try:
                for index in work:
                    images = islice(loaded, len(store.shard_rows(index)))
                    rows = self.labeller.label(images, self.works.usable(store.shard_rows(index)), queue.step)
                    store.write_rows(index, rows)
                    queue.give_back(index)
            finally:
                loaded.close()
                queue.close()


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
