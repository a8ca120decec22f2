"""Stores over a pool in shards that exist whole or not at all; first of them the pseudo-labels of a teacher.

``DIR/manifest.json`` names the teacher, the pool's digest and everything else that determines the labels; each shard
is written whole or not at all, in a folder or in an object store (see ``shard_files``). Killing a writer costs the
shard that it was writing.
"""

import json
import math
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from pseudo_labels import outputs, shards
from pseudo_labels.defaults import LABEL_BATCH_SIZE
from pseudo_labels.errors import IntegrityError, OutputConflictError, PocketiqaError
from pseudo_labels.files import canonical_json, digest_of, is_leftover, read_json, sha256_bytes, sha256_file
from pseudo_labels.records import PseudoLabel, TeacherStamp
from pseudo_labels.remote import Address, location
from pseudo_labels.shard_files import shard_files
from pseudo_labels.shards import ShardFault

KIND = "labels"
# A shard is what a killed process loses and what a process takes at a time: larger ones lose more work, smaller ones
# cost more files and flushes.
_IMAGES_PER_SHARD = 256
# Small pools are cut finer, so that a few processes find work and a kill costs little. It must not follow the number of
# processes, for the shards of a store never change.
_FEWEST_SHARDS = 8


def shard_count(out: Path, kind: str, rows: int, *, overwrite: bool) -> int:
    """The number that the store in ``out`` has, if it may be resumed; else a good one."""
    if not overwrite and (out / outputs.MANIFEST).is_file():
        # Shards of a store never change: another number would make another spec, which is refused.
        manifest = outputs.read_manifest(out)
        if manifest.kind == kind and manifest.spec.get("rows") == rows:
            return int(manifest.spec["shards"])
    return max(1, min(rows, max(_FEWEST_SHARDS, math.ceil(rows / _IMAGES_PER_SHARD))))


def batch_sizes(
    out: Path, kind: str, rows: int, asked: int | None, *, overwrite: bool, warn: Callable[[str], None] | None = None
) -> tuple[int | None, int]:
    """The batch size that the spec of a store says, and the one to label with.

    A store that was begun is gone on with in batches of its own size unless a smaller one is asked for: that is what
    running out of memory does, too, and the rows say it. A larger one makes another spec, which is refused.

    Args:
        out: folder of the store, which need not exist.
        kind: kind of the store.
        rows: rows of the pool.
        asked: batch size that is asked for; None is that of the store, else the default.
        overwrite: whether an earlier store is removed.
        warn: called with a sentence where a smaller size is asked for than the store was begun in.

    Returns:
        Spec, None for a store of an earlier version, whose rows say nothing of batches; and images in one call.
    """
    fresh = LABEL_BATCH_SIZE if asked is None else asked
    if overwrite or not (out / outputs.MANIFEST).is_file():
        return fresh, fresh
    manifest = outputs.read_manifest(out)
    if manifest.kind != kind or manifest.spec.get("rows") != rows:
        return fresh, fresh
    begun: int | None = manifest.spec.get("batch_size")
    if begun is None:
        return None, fresh
    if asked is None:
        return begun, begun
    if asked < begun and warn is not None:
        warn(f"the store was begun in batches of {begun}: from now on in batches of {asked}, and rows say so")
    return max(begun, asked), asked


@dataclass(frozen=True)
class StoreSpec:
    """Everything that determines the labels; never changes for a store.

    Attributes:
        stamp: who labels.
        pool_digest: digest of the pool that is labelled.
        rows: number of rows of the pool, bad ones included.
        shards: how many blocks the rows are cut into, 1 to ``rows``.
        preprocessing: how a file becomes what the teacher sees, as JSON values.
        features: names of the stored feature maps.
        threads: CPU threads of the teacher; another number adds up in another order.
        batch_size: most images in one call of the teacher; another number adds up in another order, too. Where memory
            did not suffice it was less: each row says in how large a batch it was scored. None for stores that say
            nothing of batches: of earlier versions, and those that no teacher's calls made.
    """

    stamp: TeacherStamp
    pool_digest: str
    rows: int
    shards: int
    preprocessing: dict[str, Any] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    threads: int = 1
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise PocketiqaError("the pool has no rows: there is nothing to label")
        if not 1 <= self.shards <= self.rows:
            raise PocketiqaError(f"{self.shards} shards for a pool of {self.rows} images: choose from 1 to {self.rows}")
        if self.threads < 1:
            raise PocketiqaError(f"{self.threads} threads: at least 1 is needed")
        if self.batch_size is not None and self.batch_size < 1:
            raise PocketiqaError(f"a batch size of {self.batch_size}: at least 1 is needed")

    @property
    def of_crops(self) -> bool:
        """Whether its labels are of crops of the images (``crops.RandomCrops``) and not of the whole images."""
        return "crops" in self.preprocessing

    def as_dict(self) -> dict[str, Any]:
        """JSON form: what reading it back from a file gives."""
        record = asdict(self)
        if self.batch_size is None:  # as in manifests of earlier versions, whose digests stay
            del record["batch_size"]
        # The keys of manifests on disk, whatever the attributes are called.
        record["teacher"] = record.pop("stamp")
        record["pool"] = record.pop("pool_digest")
        return json.loads(canonical_json(record))

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "StoreSpec":
        """Inverse of ``as_dict``.

        Raises:
            IntegrityError: a key is missing or foreign.
        """
        try:
            values = dict(record)
            stamp = TeacherStamp(**values.pop("teacher"))
            return cls(stamp, values.pop("pool"), features=tuple(values.pop("features")), **values)
        except (KeyError, TypeError) as error:
            raise IntegrityError(f"the label store's manifest is not what pocketiqa writes ({error})") from error


class ShardStore(ABC):
    """What every store over a pool has in common: a manifest, and shards that are committed whole and verified.

    Attributes:
        kind: kind of the folder, as its manifest states it.
        command: command that makes such a store, for messages.
        folder: folder of the store, or its address.
        manifest: its head; ``spec`` has ``rows`` (of the pool) and ``shards``.
    """

    kind: ClassVar[str]
    command: ClassVar[str]

    def __init__(self, folder: Path, manifest: outputs.Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._files = shard_files(folder)
        self._rows, self._shards = int(manifest.spec["rows"]), int(manifest.spec["shards"])
        self._spec_digest = digest_of(manifest.spec)
        # Shards whose bytes this object has checked: each is read once for that, not at every access.
        self._trusted: set[int] = set()
        # Shards that this object has locked, see ``commit``.
        self._held: set[int] = set()

    @classmethod
    def claim(cls, folder: Path, spec: Mapping[str, Any], *, pool_path: Path, overwrite: bool = False) -> Self:
        """Start a store, or go on with an unfinished or finished one that was made alike.

        Args:
            folder: folder of the store, or its address.
            spec: what determines its content, as JSON values, with ``rows`` and ``shards``.
            pool_path: folder of the pool, for readers; kept relative to ``folder``, so that both can move together,
                unless one of them has an address.
            overwrite: remove an earlier store first.

        Raises:
            OutputConflictError: the folder holds something else, or a store made differently.
        """
        folder, pool_path = location(folder), location(pool_path).resolve()
        elsewhere = isinstance(folder, Address) or isinstance(pool_path, Address)
        note = {"pool": str(pool_path) if elsewhere else os.path.relpath(pool_path, folder.resolve())}
        outputs.claim(folder, cls.kind, dict(spec), overwrite=overwrite, notes=note)
        store = cls.open(folder)
        if {**store.manifest.notes, **note} != store.manifest.notes:  # the pool has moved since
            store.manifest = replace(store.manifest, notes={**store.manifest.notes, **note})
            outputs.write_manifest(folder, store.manifest)
        return store

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Open a store, finished or not.

        Raises:
            PocketiqaError: there is none.
            IntegrityError: its manifest was altered.
        """
        folder = location(folder)
        return cls(folder, outputs.read_manifest(folder, cls.kind))

    @property
    def shard_count(self) -> int:
        """Number of shards, missing ones included."""
        return self._shards

    @abstractmethod
    def file_names(self) -> set[str]:
        """Names of the files of a shard, without its marker."""

    @property
    def pool_path(self) -> Path:
        """Where the pool was when the store was made; it may be gone."""
        pool = location(str(self.manifest.notes.get("pool", "")))
        return pool if isinstance(pool, Address) or pool.is_absolute() else (self.folder / pool).resolve()

    @property
    def is_complete(self) -> bool:
        """Whether every shard is there and the store was finished."""
        return self.manifest.complete and not self.missing()

    @property
    def digest(self) -> str:
        """Identity of the content: of the spec and of every shard.

        Raises:
            PocketiqaError: the store is not finished.
        """
        self._require_complete()
        return self.manifest.digest

    def has(self, index: int) -> bool:
        """Whether a shard is committed; says nothing of its bytes (see ``fault``)."""
        return self._files.has(index)

    def missing(self, among: Iterable[int] | None = None) -> list[int]:
        """Shards that are not committed, of all or of some of them."""
        return self._files.missing(range(self._shards) if among is None else among)

    def shard_folder(self, index: int) -> Path:
        """Folder of a shard; of a store that has an address, where its files are put. ``opened`` is for reading."""
        return self.folder / shards.shard_name(index)

    def shard_rows(self, index: int) -> range:
        """Positions in the pool of the rows of a shard."""
        return shards.shard_rows(self._rows, self._shards, index)

    @contextmanager
    def writing(self, index: int, *, wait: bool = True) -> Iterator[None]:
        """Keep other processes from working on a shard; given back by the system if this process dies.

        Args:
            index: of the shard.
            wait: in an object store, where a claim of a dead process is known by its age, see ``claims.held``.

        Raises:
            OutputConflictError: another process works on it.
        """
        with self._files.writing(index, wait=wait):
            self._held.add(index)
            try:
                yield
            finally:
                self._held.discard(index)

    def commit(self, index: int, files: Mapping[str, bytes]) -> None:
        """Commit the files of a shard, the marker included (see ``shards.with_marker``).

        A shard that is there already with the same files is left as it is: a process that was taken for dead, and
        whose work another has done meanwhile, may write late and do no harm.

        Raises:
            OutputConflictError: the shard is there with other files, another process writes it, or has started the
                store over.
            StorageFullError: the disk is full; nothing of this shard is left.
        """
        # A lock belongs to an open file, not to a process: taken twice, it would be refused to its own holder.
        if index not in self._held:
            with self.writing(index):
                return self.commit(index, files)
        # Read again: since this object was opened, another process may have begun another store in the folder.
        if outputs.read_manifest(self.folder, self.kind).spec != self.manifest.spec:
            raise OutputConflictError(f"{self.folder} was started over by another process: run the command again")
        if not self._files.commit(self._valid(index), files):
            raise OutputConflictError(
                f"shard {index} of {self.folder} is committed already, with other content, which stays: discard it "
                "before writing it"
            )
        return None

    def marked(self, index: int, files: Mapping[str, bytes]) -> dict[str, bytes]:
        """The same files and the marker of a shard of this store."""
        return shards.with_marker(
            files, index=index, rows=len(self.shard_rows(self._valid(index))), spec_digest=self._spec_digest
        )

    def _valid(self, index: int) -> int:
        if not 0 <= index < self._shards:
            raise PocketiqaError(f"shard {index} of {self.folder}: it has shards 0 to {self._shards - 1}")
        return index

    def finish(self) -> outputs.Manifest:
        """Mark the store as complete, with the digest of each shard.

        Raises:
            PocketiqaError: shards are missing.
        """
        self._require_all()
        self.manifest = outputs.read_manifest(self.folder, self.kind)  # another process may have discarded a shard
        counts: Counter[str] = Counter()
        for index in range(self._shards):
            # Reading the statistics verifies the shard, so that a store is never finished with a corrupt one.
            counts.update(self.stats(index)["status"])
        markers = [self._files.marker(index) for index in range(self._shards)]
        content = {
            # The marker holds the digests of the other files, so its own digest stands for the whole shard.
            "shards": [sha256_bytes(marker) for marker in markers],
            "status": dict(sorted(counts.items())),
        }
        self._files.sweep(markers)
        self.manifest = outputs.finish(self.folder, {**content, **self.summary()})
        return self.manifest

    def summary(self) -> dict[str, Any]:
        """What the manifest of the finished store says besides digests and statuses, as JSON values."""
        return {}

    def _require_all(self) -> None:
        missing = self.missing()
        if missing:
            shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
            raise PocketiqaError(
                f"{len(missing)} of {self._shards} shards of {self.folder} are missing ({shown}): "
                f"run the same {self.command} command again, it goes on where it stopped"
            )

    def _require_complete(self) -> None:
        self._require_all()
        if not self.manifest.complete:
            raise PocketiqaError(
                f"{self.folder} is not finished: run the same {self.command} command again to finish it"
            )

    def fault(self, index: int) -> str:
        """Why a committed shard cannot be trusted (every byte is read where it lies); empty if it can."""
        try:
            with self._files.opened(self._valid(index), fresh=True) as folder:
                return self._fault_in(folder, index)
        except FileNotFoundError:
            return f"it has no {shards.MARKER}"

    def _fault_in(self, folder: Path, index: int) -> str:
        reason = shards.find_fault(
            folder,
            index=index,
            spec_digest=self._spec_digest,
            rows=len(self.shard_rows(index)),
            files=self.file_names(),
        )
        # A shard may agree with its own marker and still not be the one that was finished, such as a copy from another
        # run.
        if not reason and self.manifest.complete and self._recorded(index) != sha256_file(folder / shards.MARKER):
            reason = f"{shards.MARKER} does not match the manifest"
        if reason:
            self._trusted.discard(index)
        else:
            self._trusted.add(index)
        return reason

    def _recorded(self, index: int) -> str:
        """SHA-256 of the marker of a shard of a finished store; empty where none is stated."""
        recorded = self.manifest.content.get("shards", []) if self.manifest.complete else []
        return str(recorded[index]) if len(recorded) == self._shards else ""

    def verify(self) -> list[ShardFault]:
        """Read every committed shard and list those that are not as they were written; ``missing`` lists the others."""
        missing = set(self.missing())
        reasons = ((i, self.fault(i)) for i in range(self._shards) if i not in missing)
        return [ShardFault(index, reason) for index, reason in reasons if reason]

    def discard(self, index: int) -> None:
        """Remove a shard, so that labelling writes it anew; a finished store is then unfinished."""
        self._trusted.discard(self._valid(index))
        # First of all: no process may find a finished store that lacks a shard.
        if outputs.read_manifest(self.folder, self.kind).complete:
            self.manifest = replace(self.manifest, complete=False, content={})
            outputs.write_manifest(self.folder, self.manifest)
        self._files.remove(index)

    @contextmanager
    def opened(self, index: int) -> Iterator[Path]:
        """A local folder with the files of a shard, whose bytes were checked, once for each store object.

        It stays as long as the block runs; do not write into it.

        Raises:
            PocketiqaError: the shard is missing.
            IntegrityError: it was altered.
        """
        reason = ""
        # A copy in the cache of this machine may be what is wrong.
        for fresh in (False, True) if isinstance(self.folder, Address) else (False,):
            with ExitStack() as stack:
                try:
                    marker = self._recorded(self._valid(index))
                    folder = stack.enter_context(self._files.opened(index, marker, fresh=fresh))
                except FileNotFoundError:
                    break
                if not (folder / shards.MARKER).is_file():
                    break
                # What is no entry of the cache was just fetched, and may be what others made of the shard since.
                trusted = index in self._trusted and not is_leftover(folder)
                reason = "" if trusted else self._fault_in(folder, index)
                if not reason:
                    yield folder
                    return
        if not reason:
            self._require_all()
        raise IntegrityError(
            f"shard {index} of {self.folder} was altered or corrupt ({reason or 'it is missing'}): "
            f"run the same {self.command} command again, it makes that shard anew"
        )

    def stats(self, index: int) -> dict[str, Any]:
        """``stats.json`` of a shard (see ``shards.shard_stats``)."""
        with self.opened(index) as folder:
            return read_json(folder / shards.STATS, what="shard statistics")


class LabelStore(ShardStore):
    """Labels of one teacher for one pool."""

    kind = KIND
    command = "label"

    def __init__(self, folder: Path, manifest: outputs.Manifest) -> None:
        self.spec = StoreSpec.from_dict(manifest.spec)
        super().__init__(folder, manifest)

    @classmethod
    def create(cls, folder: Path, spec: StoreSpec, *, pool_path: Path, overwrite: bool = False) -> "LabelStore":
        """Start a store of labels, see ``claim``."""
        return cls.claim(folder, spec.as_dict(), pool_path=pool_path, overwrite=overwrite)

    def file_names(self) -> set[str]:
        """Labels, statistics and, if they are stored, features."""
        return {shards.LABELS, shards.STATS} | ({shards.FEATURES} if self.spec.features else set())

    def write_shard(
        self, index: int, labels: Sequence[PseudoLabel], features: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Commit a shard.

        Args:
            index: index of the shard.
            labels: its rows, all of them, in the pool's order.
            features: arrays [rows, ...], named as the spec says; stored as fp16, rows that are not ``ok`` as zeros.

        Raises:
            PocketiqaError: rows or features are not those of the shard.
            OutputConflictError: see ``commit``.
            StorageFullError: the disk is full; nothing of this shard is left.
        """
        rows = self.shard_rows(self._valid(index))
        if len(labels) != len(rows):
            raise PocketiqaError(f"shard {index} has {len(rows)} rows, but {len(labels)} labels were given")
        if set(features or {}) != set(self.spec.features):
            raise PocketiqaError(
                f"features {sorted(features or {})} were given for shard {index}, "
                f"but the store holds {list(self.spec.features)}"
            )
        files = shards.shard_files(
            labels, features or {}, index=index, spec_digest=self._spec_digest, schema=self._schema
        )
        self.commit(index, files)

    def shard_labels(self, index: int) -> pa.Table:
        """Labels of one committed shard, verified."""
        with self.opened(index) as folder:
            return shards.read_table(folder, self._schema)

    @property
    def _schema(self) -> pa.Schema:
        return shards.SCHEMA if self.spec.batch_size is None else shards.SCHEMA_WITH_BATCH

    def labels(self) -> pa.Table:
        """All rows in the pool's order, verified; columns as in ``PseudoLabel`` (``batch`` where the spec has one).

        Raises:
            PocketiqaError: the store is not finished.
            IntegrityError: a shard was altered.
        """
        self._require_complete()
        return pa.concat_tables(self.shard_labels(index) for index in range(self._shards))

    def shard_features(self, index: int) -> dict[str, np.ndarray]:
        """Features of one shard, verified: name to fp16 [rows of the shard, ...]; zeros where a row is not ``ok``.

        Raises:
            PocketiqaError: the store holds no features, or the shard is missing.
            IntegrityError: the shard was altered.
        """
        if not self.spec.features:
            raise PocketiqaError(
                f"{self.folder} holds no features: label the pool again with --features into another --out"
            )
        with self.opened(index) as folder:
            return shards.read_features(folder)
