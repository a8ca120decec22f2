"""Label a pool: a shard is a task, decoded ahead, scored in batches and committed whole.

Rank r of ``world`` processes owns the shards r, r + world, ... and nothing is exchanged while labelling. Batches never
cross the border of a shard and the number of CPU threads is fixed, so that the bytes do not depend on how many
processes there are or how often they were killed. What was committed is verified first, and done again if corrupt.
"""

import json
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pseudo_labels import outputs
from pseudo_labels.crops import RandomCrops
from pseudo_labels.defaults import DECODE_WORKERS, LABEL_BATCH_SIZE, LABEL_THREADS, MAX_FAILED_FRACTION
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import canonical_json
from pseudo_labels.images import DEFAULT_LIMITS, DecodeLimits
from pseudo_labels.parallel import Progress
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef, Status
from pseudo_labels.store import KIND, LabelStore, ShardStore, StoreSpec, shard_count
from teachers.base import Teacher
from teachers.batched import Predictor, Warn
from teachers.fitted_folder import read_seen
from teachers.launch import Launch, current_launch, torch_threads
from teachers.reading import Preparer, read_ahead
from teachers.registry import build_teacher

Store = TypeVar("Store", bound=ShardStore)


class FailureLimit:
    """Good images that got no label though one was wanted: how many are too many, and which shards to try again."""

    what = "images"

    def __init__(self, pool: Pool, limit: float):
        self._good = [status == Status.OK for status in (ref.status for ref in pool)]
        self._limit = limit

    def failures(self, store: Any, index: int) -> tuple[int, list[str]]:
        """Number of good images in a shard of a label store, and status and reason of those without label."""
        table = store.shard_labels(index)
        rows = zip(store.shard_rows(index), table["status"].to_pylist(), table["reason"].to_pylist(), strict=True)
        # Rows of ``unseen`` are left out on request: neither a failure nor an image that wanted a label.
        good = [(status, reason) for row, status, reason in rows if self._good[row] and status != Status.SEEN]
        return len(good), [f"{status}: {reason}" for status, reason in good if status != Status.OK]

    def of_shard(self, store: ShardStore, index: int) -> str:
        """Why a valid shard of an unfinished store is to be tried again.

        If too many images of the pool failed, then too many of at least one shard did: those are worth another try,
        once the user has mended the cause.
        """
        # It passed ``check`` with the limit of that time. A lower limit today does not undo finished work.
        if store.manifest.complete:
            return ""
        good, failures = self.failures(store, index)
        return f"{len(failures)} of its {good} {self.what} had failed" if len(failures) > self._limit * good else ""

    def check(self, store: ShardStore) -> None:
        """Refuse to finish a store in which too many failed."""
        good, failures = 0, Counter[str]()
        for index in range(store.shard_count):
            more, reasons = self.failures(store, index)
            good += more
            failures.update(reasons)
        if failures.total() > self._limit * good:
            worst = failures.most_common(1)[0][0]
            raise PocketiqaError(
                f"{failures.total()} of {good} {self.what} got no label, more than the limit of {self._limit:.0%} "
                f"(most often: {worst}); the others are kept: mend the cause and run the same command again, "
                "or raise the limit"
            )


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
    batch_size: int = LABEL_BATCH_SIZE,
    device: str = "auto",
    threads: int = LABEL_THREADS,
    decode_workers: int = DECODE_WORKERS,
    limits: DecodeLimits = DEFAULT_LIMITS,
    max_failed_fraction: float = MAX_FAILED_FRACTION,
    overwrite: bool = False,
    progress: Progress | None = None,
    warn: Warn | None = None,
) -> LabelStore:
    """Label a pool with a teacher, or finish what an earlier call began; under a launcher, call it in every process.

    Args:
        pool_folder: folder of a finished pool.
        teacher_name: see ``registry.build_teacher``.
        out: folder of the store.
        shards: how many; None means about 256 images each but at least 8 shards, or those of the store in ``out``.
        features: also store the teacher's feature maps.
        options: options of the teacher.
        unseen: whether images that a fitted teacher has learned from are left out: it may reproduce their ratings.
        crops: random crop of each image that is labelled in place of the whole image; students learn such labels from
            the same crop.
        batch_size: most images in one call of the teacher; halved when memory runs out.
        device: see ``launch.current_launch``.
        threads: CPU threads of the teacher; part of the store's spec, as another number adds up in another order.
        decode_workers: threads that decode ahead.
        limits: limits of decoding.
        max_failed_fraction: fraction of the pool's good images; if more got no label, the store is not finished.
        overwrite: start over, even if ``out`` holds a store that was made differently.
        progress: called with rows done and rows in all, of this process.
        warn: called with a sentence on corrupt shards and on memory that ran out.

    Returns:
        The finished store.

    Raises:
        PocketiqaError: see above and the parts called; whatever was committed stays valid.
    """
    pool, out = Pool.open(Path(pool_folder)), Path(out)
    teacher = build_teacher(teacher_name, **(options or {}))
    _check(pool, teacher, batch_size=batch_size, decode_workers=decode_workers, features=features)
    spec = StoreSpec(
        teacher.stamp,
        pool.digest,
        rows=len(pool),
        shards=shard_count(out, KIND, len(pool), overwrite=overwrite) if shards is None else shards,
        preprocessing=_preprocessing(limits, unseen, crops),
        features=tuple(teacher.feature_names) if features else (),
        threads=threads,
    )
    launch = current_launch(device)
    teacher.to(launch.device)
    failed = FailureLimit(pool, max_failed_fraction)
    with store_of_all_ranks(
        LabelStore, out, spec.as_dict(), launch, pool_path=pool.folder, overwrite=overwrite, check=failed.check
    ) as store:
        seen = read_seen(teacher_name) if unseen else frozenset[str]()
        label_pool(
            pool, teacher, store, batch_size=batch_size, rank=launch.rank, world=launch.world,
            decode_workers=decode_workers, limits=limits, seen=seen, crops=crops, retry=failed.of_shard,
            progress=progress, warn=warn,
        )  # fmt: skip
    return LabelStore.open(out)


def label_pool(
    pool: Pool,
    teacher: Teacher,
    store: LabelStore,
    *,
    batch_size: int = LABEL_BATCH_SIZE,
    rank: int = 0,
    world: int = 1,
    decode_workers: int = DECODE_WORKERS,
    limits: DecodeLimits = DEFAULT_LIMITS,
    seen: Container[str] = (),
    crops: RandomCrops | None = None,
    retry: Callable[[LabelStore, int], str] | None = None,
    progress: Progress | None = None,
    warn: Warn | None = None,
) -> None:
    """Label the shards of one rank that are missing or corrupt; no collectives, and the store is not finished here.

    Args:
        pool: the pool that the store was made for.
        teacher: the teacher, on its device.
        store: see ``LabelStore.create``.
        batch_size: most images in one call of the teacher.
        rank: rank of this process.
        world: number of processes.
        decode_workers: threads that decode ahead.
        limits: limits of decoding.
        seen: ids of images that are left out.
        crops: random crops in place of whole images.
        retry: gives the reason why a committed and valid shard is done again; empty if it is good.
        progress: called with rows done and rows in all, of this rank.
        warn: called with a sentence on shards that are done again, and on memory that ran out.

    Raises:
        PocketiqaError: the pool is another one.
        OutputConflictError: another process works on a shard of this rank.
        StorageFullError: the disk is full; what was committed is valid.
    """
    if pool.digest != store.spec.pool_digest:
        raise PocketiqaError(
            f"the pool {pool.folder} is not the one that {store.folder} was made for: choose another --out"
        )
    mine = range(rank, store.spec.shards, world)
    pending = pending_shards(store, mine, retry or (lambda _store, _index: ""), warn or _silent)
    count = row_count(store, mine, pending, progress)
    predictor = Predictor(teacher, batch_size=batch_size, features=store.spec.features, warn=warn or _silent)
    refs = (ref for index in pending for ref in _refs(pool, store, index))
    # One stream for all shards: between two shards the decoding threads go on.
    rows = read_ahead(refs, Preparer(pool, teacher, limits, seen, crops), workers=decode_workers, batch_size=batch_size)
    with torch_threads(store.spec.threads):
        try:
            for index in pending:
                # Locked while it is scored, not only while it is written: a second run of the same command is refused
                # before it has scored the same shard.
                with store.writing(index):
                    size = len(store.shard_rows(index))
                    store.write_shard(index, *predictor.shard(islice(rows, size), size, step=count.step))
        finally:
            # Also after an error: waits for the decoding threads, so that none works on once the caller goes on.
            rows.close()


def _check(pool: Pool, teacher: Teacher, *, batch_size: int, decode_workers: int, features: bool) -> None:
    check_counts(batch_size=batch_size, decode_workers=decode_workers)
    if not callable(teacher):
        raise PocketiqaError(
            f"teacher {teacher.stamp.name!r} labels regions, not whole images: use pocketiqa label-regions"
        )
    if features and not teacher.feature_names:
        raise PocketiqaError(f"teacher {teacher.stamp.name!r} has no feature maps: label without --features")
    if teacher.needs_reference and not any(ref.ref_id for ref in pool):
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


@contextmanager
def store_of_all_ranks(
    kind: type[Store],
    out: Path,
    spec: Mapping[str, Any],
    launch: Launch,
    *,
    pool_path: Path,
    overwrite: bool,
    check: Callable[[Store], None],
) -> Iterator[Store]:
    """A store that every rank writes shards of, claimed before and finished after by the main one.

    Args:
        kind: class of the store.
        out: folder of the store.
        spec: see ``ShardStore.claim``.
        launch: the processes.
        pool_path: see there.
        overwrite: see there.
        check: refuses to finish a store with too many failures; called in the main process once all shards are there.

    Raises:
        PocketiqaError: this rank was started with other settings; and whatever claiming and ``check`` raise.
    """
    # The main process holds the folder for all ranks; each shard has a lock of its own.
    with outputs.exclusively(out) if launch.is_main else nullcontext():
        if launch.is_main:
            kind.claim(out, spec, pool_path=pool_path, overwrite=overwrite)
        launch.wait_for_all()
        store = kind.open(out)
        # Each rank compares its own: only the main one has claimed the folder, and labels of two settings must not mix.
        if store.manifest.spec != json.loads(canonical_json(spec)):
            raise PocketiqaError(
                f"rank {launch.rank} was started with other settings than the store in {out} was made with"
            )
        yield store
        # Every rank must have committed its shards before they are counted.
        launch.wait_for_all()
        if launch.is_main:
            check(store)
            store.finish()
        # No rank may open the store before it is finished.
        launch.wait_for_all()


def pending_shards(store: ShardStore, mine: range, retry: Callable[[Any, int], str], warn: Warn) -> list[int]:
    """Which shards of a rank are to be labelled: those that are missing, corrupt or worth another try.

    The last two are discarded.

    Raises:
        OutputConflictError: another process works on one of them.
    """
    missing = set(store.missing())
    for index in mine:
        if index in missing:
            continue
        # Locked because a corrupt shard is removed below, and another process may just be labelling it again.
        with store.writing(index):
            reason = store.fault(index) or retry(store, index)
            if reason:
                warn(f"shard {index} is labelled again: {reason}")
                store.discard(index)
                missing.add(index)
    return [index for index in mine if index in missing]


def _refs(pool: Pool, store: LabelStore, index: int) -> Iterator[ImageRef]:
    return (pool[row] for row in store.shard_rows(index))


class RowCount:
    """Rows done, of a known total; each step is reported."""

    def __init__(self, total: int, progress: Progress | None):
        self._done, self._total, self._progress = 0, total, progress

    def step(self, rows: int) -> None:
        """So many rows more are done."""
        self._done += rows
        if self._progress:
            self._progress(self._done, self._total)


def row_count(store: ShardStore, mine: range, pending: Sequence[int], progress: Progress | None) -> RowCount:
    """Counts the rows of the shards of a rank; those that are not ``pending`` are done at once.

    So a resumed run shows where it is.
    """
    rows_of = {index: len(store.shard_rows(index)) for index in mine}
    count = RowCount(sum(rows_of.values()), progress)
    count.step(sum(rows_of.values()) - sum(rows_of[index] for index in pending))
    return count


def check_counts(*, batch_size: int, decode_workers: int) -> None:
    """Refuse numbers below 1.

    Raises:
        PocketiqaError: names the value.
    """
    for name, value in (("batch size", batch_size), ("number of decode workers", decode_workers)):
        if value < 1:
            raise PocketiqaError(f"a {name} of {value}: at least 1 is needed")


def _silent(_text: str) -> None:
    pass
