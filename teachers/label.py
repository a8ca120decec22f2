"""Label a pool: a shard is a task, decoded ahead, scored in batches and committed whole.

Which process labels which shard is decided in ``sharing``, and nothing is exchanged while labelling. Batches never
cross the border of a shard and the number of CPU threads is fixed, so that the bytes do not depend on how many
processes there are or how often they were killed. What was committed is verified first, and done again if corrupt.
"""

from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from pseudo_labels.crops import RandomCrops
from pseudo_labels.defaults import DECODE_WORKERS, LABEL_BATCH_SIZE, LABEL_THREADS, MAX_FAILED_FRACTION
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import DEFAULT_LIMITS, DecodeLimits
from pseudo_labels.parallel import Progress
from pseudo_labels.pool import Pool
from pseudo_labels.remote import location
from pseudo_labels.store import KIND, LabelStore, StoreSpec, batch_sizes, shard_count
from teachers.base import Teacher
from teachers.batched import Predictor, Warn
from teachers.fitted_folder import read_seen
from teachers.launch import torch_threads
from teachers.reading import Preparer, read_ahead
from teachers.registry import build_teacher
from teachers.sharing import FailureLimit, Ranks, ShardQueue, Share, Work

_ALONE = Ranks()


def label(
    pool_folder: Path | str,
    teacher_name: str,
    out: Path | str,
    *,
    shards: int | None = None,
    features: bool = False,
    options: Mapping[str, Any] | None = None,
    unseen: bool = False,
    crops: RandomCrops | None = None,
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
) -> LabelStore:
    """Label a pool with a teacher, or finish what an earlier call began; under a launcher, call it in every process.

    Args:
        pool_folder: folder of a finished pool, or its address.
        teacher_name: see ``registry.build_teacher``.
        out: folder of the store, or an address such as ``s3://bucket/labels``.
        shards: how many; None means about 256 images each but at least 8 shards, or those of the store in ``out``.
        features: also store the teacher's feature maps.
        options: options of the teacher.
        unseen: whether images that a fitted teacher has learned from are left out: it may reproduce their ratings.
        crops: random crop of each image that is labelled in place of the whole image; students learn such labels from
            the same crop.
        batch_size: most images in one call of the teacher, halved when memory runs out; part of the store's spec, and
            each row says in how large a batch it was scored (``store.batch_sizes``). None is that of the store in
            ``out``, else the default.
        device: see ``launch.current_launch``.
        threads: CPU threads of the teacher; part of the store's spec, as another number adds up in another order.
        decode_workers: threads that decode ahead.
        limits: limits of decoding.
        max_failed_fraction: fraction of the pool's good images; if more got no label, the store is not finished.
        overwrite: start over, even if ``out`` holds a store that was made differently.
        share: how shards are divided among processes, see ``sharing``.
        progress: called with rows done and rows in all, of this process.
        warn: called with a sentence on corrupt shards and on memory that ran out.

    Returns:
        The store; finished, unless other parts of it (``sharing.Part``) are not done.

    Raises:
        PocketiqaError: see above and the parts called; whatever was committed stays valid.
    """
    order = LabelOrder(
        pool_folder=location(pool_folder), teacher_name=teacher_name, out=location(out), shards=shards,
        features=features, options=dict(options or {}), unseen=unseen, crops=crops, batch_size=batch_size,
        device=device, threads=threads, decode_workers=decode_workers, limits=limits,
        max_failed_fraction=max_failed_fraction, overwrite=overwrite,
    )  # fmt: skip
    share.label(order, progress=progress, warn=warn or _silent)
    return LabelStore.open(order.out)


@dataclass(frozen=True, kw_only=True)
class LabelOrder:
    """What ``label`` was asked for, see there."""

    pool_folder: Path
    teacher_name: str
    out: Path
    shards: int | None = None
    features: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    unseen: bool = False
    crops: RandomCrops | None = None
    batch_size: int | None = None
    device: str = "auto"
    threads: int = LABEL_THREADS
    decode_workers: int = DECODE_WORKERS
    limits: DecodeLimits = DEFAULT_LIMITS
    max_failed_fraction: float = MAX_FAILED_FRACTION
    overwrite: bool = False

    def work(self, warn: Warn) -> "LabelWork":
        """See ``sharing.Order``."""
        pool, out = Pool.open(self.pool_folder), self.out
        teacher = build_teacher(self.teacher_name, **self.options)
        _check(pool, teacher, batch_size=self.batch_size, decode_workers=self.decode_workers, features=self.features)
        rows = len(pool)
        begun, batch_size = batch_sizes(out, KIND, rows, self.batch_size, overwrite=self.overwrite, warn=warn)
        spec = StoreSpec(
            teacher.stamp,
            pool.digest,
            rows=rows,
            shards=shard_count(out, KIND, rows, overwrite=self.overwrite) if self.shards is None else self.shards,
            preprocessing=_preprocessing(self.limits, self.unseen, self.crops),
            features=tuple(teacher.feature_names) if self.features else (),
            threads=self.threads,
            batch_size=begun,
        )
        labeller = PoolLabeller(
            pool, teacher, spec.features, batch_size=batch_size, decode_workers=self.decode_workers,
            limits=self.limits, seen=read_seen(self.teacher_name) if self.unseen else frozenset[str](),
            crops=self.crops, warn=warn,
        )  # fmt: skip
        failed = FailureLimit(pool, self.max_failed_fraction)
        return LabelWork(LabelStore, out, spec.as_dict(), pool.folder, failed, labeller=labeller)


@dataclass
class LabelWork(Work[LabelStore]):
    """Images of a pool, by a teacher of whole images.

    Attributes:
        labeller: the teacher, and how the pool is read.
    """

    labeller: "PoolLabeller"

    def to(self, device: torch.device) -> None:
        """See ``sharing.Work``."""
        self.labeller.teacher.to(device)

    def label(self, store: LabelStore, queue: ShardQueue) -> None:
        """See ``sharing.Work``."""
        self.labeller.label(store, queue)


class PoolLabeller:
    """A teacher that labels shards of a store of one pool; its batch size stays halved once memory ran out.

    Args:
        pool: the pool.
        teacher: the teacher; moved to its device before the first shard.
        features: names of the feature maps that are stored.
        batch_size: most images in one call of the teacher.
        decode_workers: threads that decode ahead.
        limits: limits of decoding.
        seen: ids of images that are left out.
        crops: random crops in place of whole images.
        warn: called with a sentence on memory that ran out; None keeps silent.
    """

    def __init__(
        self,
        pool: Pool,
        teacher: Teacher,
        features: tuple[str, ...],
        *,
        batch_size: int = LABEL_BATCH_SIZE,
        decode_workers: int = DECODE_WORKERS,
        limits: DecodeLimits = DEFAULT_LIMITS,
        seen: Container[str] = (),
        crops: RandomCrops | None = None,
        warn: Warn | None = None,
    ):
        self.teacher = teacher
        self._pool, self._batch_size, self._decode_workers = pool, batch_size, decode_workers
        self._preparer = Preparer(pool, teacher, limits, seen, crops)
        self._predictor = Predictor(teacher, batch_size=batch_size, features=features, warn=warn or _silent)

    def label(self, store: LabelStore, queue: ShardQueue) -> None:
        """Label and commit the shards of a queue.

        Raises:
            PocketiqaError: the pool is another one.
            OutputConflictError: another process works on one of the shards.
            StorageFullError: the disk is full; what was committed is valid.
        """
        if self._pool.digest != store.spec.pool_digest:
            raise PocketiqaError(
                f"the pool {self._pool.folder} is not the one that {store.folder} was made for: choose another --out"
            )
        ahead, work = queue.twice()
        refs = (ref for index in ahead for ref in self._pool.rows(store.shard_rows(index)))
        # One stream for all shards: between two shards the decoding threads go on.
        rows = read_ahead(refs, self._preparer, workers=self._decode_workers, batch_size=self._batch_size)
        with torch_threads(store.spec.threads):
            try:
                for index in work:
                    size = len(store.shard_rows(index))
                    store.write_shard(index, *self._predictor.shard(islice(rows, size), size, step=queue.step))
                    queue.give_back(index)
            finally:
                # Also after an error: waits for the decoding threads, so that none works on once the caller goes on.
                rows.close()
                queue.close()


def _check(pool: Pool, teacher: Teacher, *, batch_size: int | None, decode_workers: int, features: bool) -> None:
    check_counts(batch_size=batch_size, decode_workers=decode_workers)
    if not callable(teacher):
        raise PocketiqaError(
            f"teacher {teacher.stamp.name!r} labels regions, not whole images: use pocketiqa label-regions"
        )
    if features and not teacher.feature_names:
        raise PocketiqaError(f"teacher {teacher.stamp.name!r} has no feature maps: label without --features")
    if teacher.needs_reference and not pool.reference_ids:
        raise PocketiqaError(
            f"teacher {teacher.stamp.name!r} compares images with their clean originals, but the pool {pool.folder} "
            "has no distorted images: make a synthetic pool with 'pocketiqa distort' and label that"
        )


def _preprocessing(limits: DecodeLimits, unseen: bool, crops: RandomCrops | None) -> dict[str, Any]:
    """How a file becomes the teacher's input.

    Settings that are off are left out: ``StoreSpec.of_crops`` reads the presence of the key, and the digest covers the
    whole mapping.
    """
    asked = {"decode": asdict(limits), "unseen": unseen or None, "crops": crops and asdict(crops)}
    return {name: value for name, value in asked.items() if value is not None}


def check_counts(*, batch_size: int | None, decode_workers: int) -> None:
    """Refuse numbers below 1.

    Raises:
        PocketiqaError: names the value.
    """
    for name, value in (("batch size", batch_size), ("number of decode workers", decode_workers)):
        if value is not None and value < 1:
            raise PocketiqaError(f"a {name} of {value}: at least 1 is needed")


def _silent(_text: str) -> None:
    pass
