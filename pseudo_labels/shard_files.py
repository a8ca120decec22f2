"""Where the shards of a store lie, and how one is committed whole: in a folder of a disk, or in an object store.

On a disk a shard is a folder that is written aside and renamed. Objects cannot be renamed. There the files of a shard
are put first, each under a name that holds a part of its SHA-256 (``shard-00003/labels-1f0c….parquet``), so that two
writers of one shard never replace each other's; then its marker (``markers/shard-00003.json``), only where there is
none. The marker holds the SHA-256 of the files, and so says which belong to the shard: readers see nothing else. Names
of files and bytes of markers are those of a store on a disk, and so are their digests.
"""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from pseudo_labels import object_cache, remote, shards
from pseudo_labels.files import exclusive, parse_json, sha256_bytes, sha256_file, staged_folder
from pseudo_labels.remote import Address

_MARKERS = "markers"
_DIGITS = 16
# Up to so many shards are asked for one by one; a list of all costs a request for each thousand.
_ASKED_SINGLY = 8


def shard_files(folder: Path) -> "ShardFiles":
    """Shards below a path or an address."""
    return ShardObjects(folder) if isinstance(folder, Address) else ShardFolders(folder)


class ShardFiles(ABC):
    """The files of the shards of a store.

    Attributes:
        folder: path or address of the store.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @abstractmethod
    def has(self, index: int) -> bool:
        """Whether a shard has its marker."""

    @abstractmethod
    def missing(self, among: Iterable[int]) -> list[int]:
        """Which of some shards have no marker."""

    @abstractmethod
    def marker(self, index: int) -> bytes:
        """The marker of a shard.

        Raises:
            FileNotFoundError: it has none.
        """

    @abstractmethod
    def commit(self, index: int, files: Mapping[str, bytes]) -> bool:
        """Make a shard, whole or not at all, where there is none.

        Returns:
            Whether the shard that is there now is this one.

        Raises:
            StorageFullError: the disk is full; nothing of this shard is left.
            PocketiqaError: it cannot be written for another reason.
        """

    @abstractmethod
    def remove(self, index: int) -> None:
        """Remove a shard, its marker first: a removal that is interrupted leaves a missing shard, no corrupt one."""

    @abstractmethod
    def writing(self, index: int, *, wait: bool) -> AbstractContextManager[None]:
        """Keep other processes from working on a shard, see ``files.exclusive``."""

    @abstractmethod
    def opened(self, index: int, marker: str = "", *, fresh: bool = False) -> AbstractContextManager[Path]:
        """A local folder with the files of a shard, as they are, which stays as long as the block runs.

        Args:
            index: of the shard.
            marker: SHA-256 of its marker, where it is known; saves a request.
            fresh: whether copies on this machine are no answer.

        Raises:
            FileNotFoundError: the shard has no marker.
        """

    @abstractmethod
    def sweep(self, markers: Iterable[bytes]) -> None:
        """Remove what killed or late writers have left of shards all of which are there.

        Args:
            markers: of all shards, in their order.
        """


class ShardFolders(ShardFiles):
    """Shards as folders of a disk."""

    def path(self, index: int) -> Path:
        """Folder of a shard."""
        return self.folder / shards.shard_name(index)

    def has(self, index: int) -> bool:
        """See ``ShardFiles``."""
        return (self.path(index) / shards.MARKER).is_file()

    def missing(self, among: Iterable[int]) -> list[int]:
        """See ``ShardFiles``."""
        return [index for index in among if not self.has(index)]

    def marker(self, index: int) -> bytes:
        """See ``ShardFiles``."""
        return (self.path(index) / shards.MARKER).read_bytes()

    def commit(self, index: int, files: Mapping[str, bytes]) -> bool:
        """See ``ShardFiles``."""
        if self.has(index):
            # The marker holds the digests of all files, so it stands for them.
            return self.marker(index) == files[shards.MARKER]
        with staged_folder(self.path(index)) as staged:
            for name, data in files.items():
                # Plain writes: the folder is flushed file by file before it is renamed, see ``staged_folder``.
                (staged / name).write_bytes(data)
        return True

    def remove(self, index: int) -> None:
        """See ``ShardFiles``."""
        (self.path(index) / shards.MARKER).unlink(missing_ok=True)
        shutil.rmtree(self.path(index), ignore_errors=True)

    def writing(self, index: int, *, wait: bool) -> AbstractContextManager[None]:
        """See ``ShardFiles``."""
        name = shards.shard_name(index)
        return exclusive(self.folder / f".{name}.lock", what=f"{name} of {self.folder}", wait=wait)

    @contextmanager
    def opened(self, index: int, marker: str = "", *, fresh: bool = False) -> Iterator[Path]:
        """See ``ShardFiles``."""
        yield self.path(index)

    def sweep(self, markers: Iterable[bytes]) -> None:
        """See ``ShardFiles``; nothing: who writes a shard anew removes what is left of it (``staged_folder``)."""


class ShardObjects(ShardFiles):
    """Shards in an object store, read through the cache of this machine (``object_cache``)."""

    def __init__(self, folder: Address):
        super().__init__(folder)
        self.folder: Address = folder

    def _marker(self, index: int) -> Address:
        return self.folder / _MARKERS / f"{shards.shard_name(index)}.json"

    def _object(self, index: int, name: str, digest: str) -> Address:
        stem, dot, ending = name.rpartition(".")
        return self.folder / shards.shard_name(index) / f"{stem}-{digest[:_DIGITS]}{dot}{ending}"

    def has(self, index: int) -> bool:
        """See ``ShardFiles``."""
        return self._marker(index).is_file()

    def missing(self, among: Iterable[int]) -> list[int]:
        """See ``ShardFiles``."""
        wanted = list(among)
        if len(wanted) <= _ASKED_SINGLY:
            return [index for index in wanted if not self.has(index)]
        there = set(remote.names_below(self.folder / _MARKERS))
        return [index for index in wanted if self._marker(index).name not in there]

    def marker(self, index: int) -> bytes:
        """See ``ShardFiles``."""
        return self._marker(index).read_bytes()

    def commit(self, index: int, files: Mapping[str, bytes]) -> bool:
        """See ``ShardFiles``."""
        marker = files[shards.MARKER]
        if self.has(index):
            return self.marker(index) == marker
        for name, digest in _digests(marker).items():
            remote.write(self._object(index, name, digest), files[name])
        return remote.create(self._marker(index), marker)

    def remove(self, index: int) -> None:
        """See ``ShardFiles``."""
        self._marker(index).unlink(missing_ok=True)
        folder = self.folder / shards.shard_name(index)
        remote.remove_all(folder, remote.names_below(folder))

    @contextmanager
    def writing(self, index: int, *, wait: bool) -> Iterator[None]:
        """See ``ShardFiles``; where there is no conditional put there are no claims, but a single writer of all."""
        name = shards.shard_name(index)
        if not remote.has_conditional_put(self.folder):
            yield
            return
        with exclusive(self.folder / f".{name}.lock", what=f"{name} of {self.folder}", wait=wait):
            yield

    @contextmanager
    def opened(self, index: int, marker: str = "", *, fresh: bool = False) -> Iterator[Path]:
        """See ``ShardFiles``."""
        content = b"" if marker else self.marker(index)

        def fetch(staged: Path) -> bool:
            written = content or self.marker(index)
            (staged / shards.MARKER).write_bytes(written)
            sound = sha256_bytes(written) == key
            for name, digest in _digests(written).items():
                try:
                    remote.fetch(self._object(index, name, digest), staged / name)
                except FileNotFoundError:  # found out by whoever compares the folder with its marker
                    sound = False
                else:
                    sound = sound and sha256_file(staged / name) == digest
            return sound

        key = marker or sha256_bytes(content)
        with object_cache.held(key, fetch, fresh=fresh) as folder:
            yield folder

    def sweep(self, markers: Iterable[bytes]) -> None:
        """See ``ShardFiles``."""
        for index, marker in enumerate(markers):
            folder = self.folder / shards.shard_name(index)
            kept = {self._object(index, name, digest).name for name, digest in _digests(marker).items()}
            remote.remove_all(folder, [name for name in remote.names_below(folder) if name not in kept])


def _digests(marker: bytes) -> dict[str, str]:
    """SHA-256 of each file of a shard by its name; none of a marker that is not ours, which others find out."""
    try:
        files: Any = parse_json(marker)["files"]
        return {
            str(name): str(digest)
            for name, digest in files.items()
            if "/" not in str(name) and str(name) not in (shards.MARKER, "", ".", "..")
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
