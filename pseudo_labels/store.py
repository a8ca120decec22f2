"""Stores over a pool in shards that exist whole or not at all; first of them the pseudo-labels of a teacher.

``DIR/manifest.json`` names the teacher, the pool's digest and everything else that determines the labels; each shard
is a folder (see ``shards``) that was written aside and renamed into place. Killing
a writer costs the shard that it was writing.
"""

import json
import math
import os
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from pseudo_labels import outputs, shards
from pseudo_labels.errors import IntegrityError, OutputConflictError, PocketiqaError
from pseudo_labels.files import canonical_json, digest_of, exclusive, read_json, sha256_file, staged_folder
from pseudo_labels.records import PseudoLabel, TeacherStamp
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
    """

    stamp: TeacherStamp
    pool_digest: str
    rows: int
    shards: int
    preprocessing: dict[str, Any] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    threads: int = 1

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise PocketiqaError("the pool has no rows: there is nothing to label")
        if not 1 <= self.shards <= self.rows:
            raise PocketiqaError(f"{self.shards} shards for a pool of {self.rows} images: choose from 1 to {self.rows}")
        if self.threads < 1:
            raise PocketiqaError(f"{self.threads} threads: at least 1 is needed")

    @property
    def of_crops(self) -> bool:
        """Whether its labels are of crops of the images (``crops.RandomCrops``) and not of the whole images."""
        return "crops" in self.preprocessing

    def as_dict(self) -> dict[str, Any]:
        """JSON form: what reading it back from a file gives."""
        record = asdict(self)
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
        folder: folder of the store.
        manifest: its head; ``spec`` has ``rows`` (of the pool) and ``shards``.
    """

    kind: ClassVar[str]
    command: ClassVar[str]

    def __init__(self, folder: Path, manifest: outputs.Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
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
            folder: folder of the store.
            spec: what determines its content, as JSON values, with ``rows`` and ``shards``.
            pool_path: folder of the pool, for readers; kept relative to ``folder``, so that both can move together.
            overwrite: remove an earlier store first.

        Raises:
            OutputConflictError: the folder holds something else, or a store made differently.
        """
        folder = Path(folder)
        note = {"pool": os.path.relpath(Path(pool_path).resolve(), folder.resolve())}
        outputs.claim(folder, cls.kind, dict(spec), overwrite=overwrite, notes=note)
        store = cls.open(folder)
        if {**store.manifest.notes, **note} != store.manifest.notes:  # the pool has moved since
            store.manifest = replace(store.manifest, notes={**store.manifest.notes, **note})
            outputs.write_manifest(folder, store.manifest)
        return store

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a store, finished or not.

        Raises:
            PocketiqaError: there is none.
            IntegrityError: its manifest was altered.
        """
        return cls(Path(folder), outputs.read_manifest(Path(folder), cls.kind))

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
        return (self.folder / str(self.manifest.notes.get("pool", ""))).resolve()

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

    def missing(self) -> list[int]:
        """Shards that are not committed; says nothing of the bytes of the others (see ``fault``)."""
        return [i for i in range(self._shards) if not (self.shard_folder(i) / shards.MARKER).is_file()]

    def shard_folder(self, index: int) -> Path:
        """Folder of a shard."""
        return self.folder / shards.shard_name(index)

    def shard_rows(self, index: int) -> range:
        """Positions in the pool of the rows of a shard."""
        return shards.shard_rows(self._rows, self._shards, index)

    @contextmanager
    def writing(self, index: int) -> Iterator[None]:
        """Keep other processes from working on a shard; given back by the system if this process dies.

        Raises:
            OutputConflictError: another process works on it.
        """
        name = shards.shard_name(index)
        with exclusive(self.folder / f".{name}.lock", what=f"{name} of {self.folder}"):
            self._held.add(index)
            try:
                yield
            finally:
                self._held.discard(index)

    def commit(self, index: int, files: Mapping[str, bytes]) -> None:
        """Commit the files of a shard, the marker included (see ``shards.with_marker``).

        Raises:
            PocketiqaError: the shard is there already.
            OutputConflictError: another process writes it, or has started the store over.
            StorageFullError: the disk is full; nothing of this shard is left.
        """
        # A lock belongs to an open file, not to a process: taken twice, it would be refused to its own holder.
        if index not in self._held:
            with self.writing(index):
                return self.commit(index, files)
        if (self.shard_folder(self._valid(index)) / shards.MARKER).exists():
            raise PocketiqaError(f"shard {index} of {self.folder} is committed already: discard it before writing it")
        # Read again: since this object was opened, another process may have begun another store in the folder.
        if outputs.read_manifest(self.folder, self.kind).spec != self.manifest.spec:
            raise OutputConflictError(f"{self.folder} was started over by another process: run the command again")
        with staged_folder(self.shard_folder(index)) as staged:
            for name, data in files.items():
                # Plain writes: the folder is flushed file by file before it is renamed, see ``staged_folder``.
                (staged / name).write_bytes(data)
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
        content = {
            # The marker holds the digests of the other files, so its own digest stands for the whole shard.
            "shards": [sha256_file(self.shard_folder(i) / shards.MARKER) for i in range(self._shards)],
            "status": dict(sorted(counts.items())),
        }
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
        """Why a committed shard cannot be trusted (every byte is read); empty if it can."""
        folder = self.shard_folder(self._valid(index))
        reason = shards.find_fault(
            folder,
            index=index,
            spec_digest=self._spec_digest,
            rows=len(self.shard_rows(index)),
            files=self.file_names(),
        )
        if not reason and self.manifest.complete:
            # A shard may agree with its own marker and still not be the one that was finished, such as a copy from
            # another run.
            recorded = self.manifest.content.get("shards", [])
            if len(recorded) != self._shards or recorded[index] != sha256_file(folder / shards.MARKER):
                reason = f"{shards.MARKER} does not match the manifest"
        if reason:
            self._trusted.discard(index)
        else:
            self._trusted.add(index)
        return reason

    def verify(self) -> list[ShardFault]:
        """Read every committed shard and list those that are not as they were written; ``missing`` lists the others."""
        missing = set(self.missing())
        reasons = ((i, self.fault(i)) for i in range(self._shards) if i not in missing)
        return [ShardFault(index, reason) for index, reason in reasons if reason]

    def discard(self, index: int) -> None:
        """Remove a shard, so that labelling writes it anew; a finished store is then unfinished."""
        folder = self.shard_folder(self._valid(index))
        self._trusted.discard(index)
        # First of all: no process may find a finished store that lacks a shard.
        if outputs.read_manifest(self.folder, self.kind).complete:
            self.manifest = replace(self.manifest, complete=False, content={})
            outputs.write_manifest(self.folder, self.manifest)
        # The marker first: a removal that is interrupted leaves a missing shard, not a corrupt one.
        (folder / shards.MARKER).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def _trust(self, index: int) -> Path:
        """Folder of a shard whose bytes were checked, once for each store object."""
        folder = self.shard_folder(self._valid(index))
        if not (folder / shards.MARKER).is_file():
            self._require_all()
        if index not in self._trusted:
            reason = self.fault(index)
            if reason:
                raise IntegrityError(
                    f"shard {index} of {self.folder} was altered or corrupt ({reason}): "
                    f"run the same {self.command} command again, it makes that shard anew"
                )
        return folder

    def stats(self, index: int) -> dict[str, Any]:
        """``stats.json`` of a shard (see ``shards.shard_stats``)."""
        return read_json(self._trust(index) / shards.STATS, what="shard statistics")


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
            PocketiqaError: rows or features are not those of the shard, or it is there already.
            OutputConflictError: another process writes it, or has started the store over.
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
        files = shards.shard_files(labels, features or {}, index=index, spec_digest=self._spec_digest)
        self.commit(index, files)

    def shard_labels(self, index: int) -> pa.Table:
        """Labels of one committed shard, verified."""
        return shards.read_table(self._trust(index))

    def labels(self) -> pa.Table:
        """All rows in the pool's order, verified; columns as in ``PseudoLabel``.

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
        return shards.read_features(self._trust(index))
