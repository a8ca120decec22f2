"""Who labels which shard of a store: one process, ranks of a launcher, part N of M, or whoever finds a shard open.

A shard is the unit of all of them. It belongs to the process that holds its lock, which the system takes back when that
process dies; it is committed whole (``store.ShardStore.commit``); and its bytes do not depend on who made it. So work
is shared without anything but the store: no server, no queue, no list of who took what.

Locks are those of the file system. Across machines they hold on NFS (from version 4 also when a machine dies: the
server ends its lease) and on cluster file systems that are mounted with ``flock``. Where a file system keeps locks of
one machine from another, two of them may label the same shard; the second commit finds the first and changes nothing.
In an object store locks are claims (``pseudo_labels.claims``), and two may at worst do the same.
"""

import json
import re
import secrets
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from itertools import tee
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch

from pseudo_labels import outputs
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.files import canonical_json
from pseudo_labels.parallel import Progress
from pseudo_labels.pool import Pool
from pseudo_labels.records import Status
from pseudo_labels.store import ShardStore
from teachers.batched import Warn
from teachers.launch import Launch, current_launch, lone_device

Store = TypeVar("Store", bound=ShardStore)
Retry = Callable[[Any, int], str]
"""Gives the reason why a committed and valid shard of a store is done again; empty if it is good."""

# Between two looks at what other processes do; a shard takes seconds to minutes.
_POLL_S = 0.5
# Making an empty store takes moments; whoever holds its folder for longer works alone on all of it.
_PATIENCE_S = 30.0


class FailureLimit:
    """Good images that got no label though one was wanted: how many are too many, and which shards to try again."""

    what = "images"

    def __init__(self, pool: Pool, limit: float):
        self._good = pool.good
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


class Held(StrEnum):
    """What to do with a shard that another process holds."""

    REFUSE = "refuse"  # it is another run of the same command: stop
    SKIP = "skip"  # it is one of many processes: take another shard
    IGNORE = "ignore"  # it may be a process that is taken for dead: label the shard too, the first commit stays


class ShardQueue:
    """The shards that a process is to label, each locked from when its first image is decoded until it is committed.

    Args:
        store: the store.
        shards: indices, in the order of the work.
        held: what to do with shards of others.
        progress: told rows done and rows in all.
        done: rows that are done already.
        total: rows in all.
    """

    def __init__(
        self,
        store: ShardStore,
        shards: Iterable[int],
        *,
        held: Held = Held.REFUSE,
        progress: Progress | None = None,
        done: int = 0,
        total: int = 0,
    ):
        self._store, self._shards, self._held = store, shards, held
        self._done, self._total, self._progress = done, total, progress
        self._locks: dict[int, ExitStack] = {}
        self.taken = 0
        """How many shards were taken so far."""
        self.step(0)

    def twice(self) -> tuple[Iterator[int], Iterator[int]]:
        """The indices for who decodes ahead, and the same for who labels; whoever comes first takes the shard.

        Both are used in one thread.
        """
        ahead, work = tee(self._take())
        return ahead, work

    def _take(self) -> Iterator[int]:
        for index in self._shards:
            lock = self._lock(index)
            if lock is not None:
                self._locks[index] = lock
                self.taken += 1
                yield index

    def _lock(self, index: int) -> ExitStack | None:
        """The lock of a shard; None if it is not to be labelled."""
        with ExitStack() as stack:
            if self._held is not Held.IGNORE:
                try:
                    stack.enter_context(self._store.writing(index, wait=self._held is Held.REFUSE))
                except OutputConflictError:
                    if self._held is Held.REFUSE:
                        raise
                    return None
            # Since the list was made, another process may have committed it.
            if self._held is Held.SKIP and self._store.has(index):
                self.step(len(self._store.shard_rows(index)))
                return None
            return stack.pop_all()

    def step(self, rows: int) -> None:
        """So many rows more are done."""
        self._done += rows
        if self._progress and self._total:
            self._progress(self._done, self._total)

    def give_back(self, index: int) -> None:
        """A shard is committed."""
        self._locks.pop(index).close()

    def close(self) -> None:
        """Give back what is still held, after an error."""
        for lock in self._locks.values():
            lock.close()
        self._locks.clear()


def own_shards(
    store: ShardStore,
    *,
    rank: int,
    world: int,
    retry: Retry | None = None,
    progress: Progress | None = None,
    warn: Warn | None = None,
    held: Held = Held.REFUSE,
) -> ShardQueue:
    """The shards of one of several processes that are missing, corrupt or worth another try.

    Rank r of ``world`` owns the shards r, r + world, ... Rows that are done count at once, so that a resumed run shows
    where it is.

    Raises:
        OutputConflictError: another process works on one of them.
    """
    mine = range(rank, store.shard_count, world)
    pending = pending_shards(store, mine, retry, warn or (lambda _text: None))
    rows_of = {index: len(store.shard_rows(index)) for index in mine}
    total = sum(rows_of.values())
    done = total - sum(rows_of[index] for index in pending)
    return ShardQueue(store, pending, held=held, progress=progress, done=done, total=total)


def pending_shards(store: ShardStore, mine: Iterable[int], retry: Retry | None, warn: Warn) -> list[int]:
    """Which of some shards are to be labelled: those that are missing, corrupt or worth another try.

    The last two are discarded.

    Raises:
        OutputConflictError: another process works on one that is to be discarded.
    """

    def fault(index: int) -> str:
        return store.fault(index) or (retry(store, index) if retry else "")

    mine = list(mine)
    missing = set(store.missing(mine))
    for index in mine:
        if index in missing or not fault(index):
            continue
        # Locked, and asked again: another process may just be labelling it anew, or have done so.
        with store.writing(index):
            reason = fault(index)
            if reason:
                warn(f"shard {index} is labelled again: {reason}")
                store.discard(index)
                missing.add(index)
    return [index for index in mine if index in missing]


@dataclass
class Work(ABC, Generic[Store]):
    """What is labelled, by a teacher that is ready in this process.

    Attributes:
        kind: class of the store.
        out: folder of the store.
        spec: what determines its content, see ``ShardStore.claim``.
        pool_path: folder of the pool.
        failed: how many failures are too many.
    """

    kind: type[Store]
    out: Path
    spec: Mapping[str, Any]
    pool_path: Path
    failed: FailureLimit

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Compute on this device from now on."""

    @abstractmethod
    def label(self, store: Store, queue: ShardQueue) -> None:
        """Label and commit the shards of a queue.

        Raises:
            OutputConflictError: another process works on one of them, or has started the store over.
            StorageFullError: the disk is full; what was committed is valid.
        """


class Order(Protocol[Store]):
    """What a command was asked for: plain values, of which a process of any machine makes the same work.

    Attributes:
        device: see ``launch.current_launch``.
        threads: CPU threads of the teacher.
        overwrite: start over, even if the folder holds a store that was made differently.
    """

    @property
    def device(self) -> str: ...  # noqa: D102

    @property
    def threads(self) -> int: ...  # noqa: D102

    @property
    def overwrite(self) -> bool: ...  # noqa: D102

    def work(self, warn: Warn) -> Work[Store]:
        """Open what is to be labelled, and build the teacher.

        Raises:
            PocketiqaError: one of them is not there or does not fit; nothing was written.
        """
        ...


class Share(Protocol):
    """How shards are divided among processes."""

    def label(self, order: Order[Any], *, progress: Progress | None, warn: Warn) -> None:
        """Do what falls to this process."""
        ...


@dataclass(frozen=True)
class Ranks:
    """All shards, by this process alone or by all processes of a launcher (``torchrun``, ``accelerate launch``)."""

    def label(self, order: Order[Any], *, progress: Progress | None, warn: Warn) -> None:
        """Label all shards of a store and finish it.

        Raises:
            OutputConflictError: another process works in the folder, or it holds something else.
            PocketiqaError: too many failed.
        """
        work, launch = order.work(warn), current_launch(order.device)
        work.to(launch.device)
        with store_of_all_ranks(work, launch, overwrite=order.overwrite) as store:
            queue = own_shards(
                store, rank=launch.rank, world=launch.world, retry=work.failed.of_shard, progress=progress, warn=warn
            )
            work.label(store, queue)


@contextmanager
def store_of_all_ranks(work: Work[Store], launch: Launch, *, overwrite: bool) -> Iterator[Store]:
    """A store that every rank writes shards of, claimed before and finished after by the main one.

    Raises:
        PocketiqaError: this rank was started with other settings; and whatever claiming and finishing raise.
    """
    out, spec = work.out, work.spec
    if launch.world > 1:
        outputs.refuse_shared(out)
    # The main process holds the folder for all ranks; each shard has a lock of its own.
    with outputs.exclusively(out) if launch.is_main else nullcontext():
        if launch.is_main:
            work.kind.claim(out, spec, pool_path=work.pool_path, overwrite=overwrite)
        launch.wait_for_all()
        store = work.kind.open(out)
        # Each rank compares its own: only the main one has claimed the folder, and labels of two settings must not mix.
        if store.manifest.spec != json.loads(canonical_json(spec)):
            raise PocketiqaError(
                f"rank {launch.rank} was started with other settings than the store in {out} was made with"
            )
        yield store
        # Every rank must have committed its shards before they are counted.
        launch.wait_for_all()
        if launch.is_main:
            work.failed.check(store)
            store.finish()
        # No rank may open the store before it is finished.
        launch.wait_for_all()


@dataclass(frozen=True)
class Part:
    """Every ``of``-th shard: one of several processes without a launcher, such as the tasks of a Slurm array.

    Attributes:
        number: 1 to ``of``.
        of: number of processes.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """A part from its spelling ``N/M``.

        Raises:
            PocketiqaError: it is none.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise PocketiqaError(f"part {text!r}: write N/M with N from 1 to M, such as 1/8 for the first of eight")
        return cls(int(match[1]), int(match[2]))

    def label(self, order: Order[Any], *, progress: Progress | None, warn: Warn) -> None:
        """Label the shards of this part; whoever commits the last one of the store finishes it.

        The other parts are not waited for. A finished store is left as it is.

        Raises:
            OutputConflictError: another process labels the same part, or the folder holds something else.
            PocketiqaError: too many failed; or a launcher or ``overwrite`` is asked for, too.
        """
        work, store = _joined(order, "a part N/M", warn)
        if store.manifest.complete:
            return
        queue = own_shards(
            store, rank=self.number - 1, world=self.of, retry=work.failed.of_shard, progress=progress, warn=warn
        )
        work.label(store, queue)
        # What another part wrote and a disk has altered since is not left to a second run of that part.
        while not store.missing() and not _finish(work, store, None, warn):
            _label_open_once(work, store, store.missing(), progress)


@dataclass(frozen=True)
class OpenShards:
    """Whatever shard is open: one of any number of processes, which may come and go."""

    def label(self, order: Order[Any], *, progress: Progress | None, warn: Warn) -> None:
        """Label open shards until the store is finished, together with the other processes.

        Shards that others hold are waited for at the end, and taken over if their holders die. A finished store is left
        as it is.

        Raises:
            OutputConflictError: the folder holds something else.
            PocketiqaError: too many failed; or a launcher or ``overwrite`` is asked for, too.
        """
        work, store = _joined(order, "claiming open shards", warn)
        if store.manifest.complete:
            return
        # All are there, and yet it was not finished: too many had failed, or whoever was to finish it died.
        retry = None if store.missing() else work.failed.of_shard
        said = False
        while True:
            missing = store.missing()
            if not missing:
                if _finish(work, store, retry, warn):
                    return
            elif _label_open_once(work, store, missing, progress):
                said = False
            else:
                if not said:
                    warn(f"waiting for other processes, which label the last shards: {_shown(missing)}")
                said = True
                time.sleep(_POLL_S)
            # Once: else a shard that fails again would be labelled for ever.
            retry = None


def _label_open_once(work: Work[Store], store: Store, missing: list[int], progress: Progress | None) -> bool:
    """Label those of some missing shards that nobody holds; False if there are none."""
    if not missing:
        return False
    # Each process begins at another place, so that they rarely try for the same shard.
    first = secrets.randbelow(len(missing))
    total = sum(len(store.shard_rows(index)) for index in range(store.shard_count))
    queue = ShardQueue(
        store,
        missing[first:] + missing[:first],
        held=Held.SKIP,
        progress=progress,
        done=total - sum(len(store.shard_rows(index)) for index in missing),
        total=total,
    )
    work.label(store, queue)
    return queue.taken > 0


def _shown(indices: list[int]) -> str:
    return ", ".join(map(str, indices[:5])) + (", ..." if len(indices) > 5 else "")


def _joined(order: Order[Store], how: str, warn: Warn) -> tuple[Work[Store], Store]:
    """Work and store of a process that is one of many, the store made by whichever of them comes first.

    Raises:
        OutputConflictError: the folder holds something else, or another process keeps it without making the store.
        PocketiqaError: see ``Part.label``.
    """
    if order.overwrite:
        raise PocketiqaError(
            f"{how} goes together with other processes, so no one of them may start over: remove the store first, or "
            "choose another --out"
        )
    device = lone_device(order.device, how)
    work = order.work(warn)
    outputs.refuse_shared(work.out)
    give_up_s = time.monotonic() + _PATIENCE_S
    while not (work.out / outputs.MANIFEST).is_file():
        with ExitStack() as stack:
            try:
                stack.enter_context(outputs.exclusively(work.out))
            except OutputConflictError:
                if time.monotonic() > give_up_s or (work.out.exists() and not work.out.is_dir()):
                    raise
                time.sleep(_POLL_S / 10)
                continue
            work.kind.claim(work.out, work.spec, pool_path=work.pool_path)
    # Without the lock, and without a note on where the pool is: what is there is only compared.
    outputs.claim(work.out, work.kind.kind, dict(work.spec))
    work.to(device)
    return work, work.kind.open(work.out)


def _finish(work: Work[Store], store: Store, retry: Retry | None, warn: Warn) -> bool:
    """Verify and finish a store of which no shard is missing; False if shards must be labelled again.

    Raises:
        PocketiqaError: too many failed.
    """
    while not outputs.read_manifest(work.out, work.kind.kind).complete:
        with ExitStack() as stack:
            try:
                stack.enter_context(outputs.exclusively(work.out))
            except OutputConflictError:  # another process is finishing it
                time.sleep(_POLL_S)
                continue
            if outputs.read_manifest(work.out, work.kind.kind).complete:
                break
            try:
                if pending_shards(store, range(store.shard_count), retry, warn):
                    return False
            except OutputConflictError:  # another process is labelling a corrupt one already
                return False
            work.failed.check(store)
            store.finish()
    return True
