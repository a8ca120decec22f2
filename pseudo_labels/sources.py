"""Where images come from: what a user names, as a list of addresses in a fixed order.

Five kinds of source:

* a folder, searched to its bottom, by path or fsspec address: every file whose suffix is in ``SUFFIXES``, sorted by
  path. Other files are passed over. Links are followed, each real folder once. Broken links, link loops, folders that
  cannot be listed and folders named like images are listed too: reading them gives the reason;
* a file of any other kind than the next three: one image, whatever its suffix;
* ``*.tar``: a WebDataset shard, the members with an image suffix. Compressed tars have no random access: refused;
* ``*.parquet``: a row for each image, see ``rows``;
* a folder written by ``datasets.Dataset.save_to_disk`` or ``DatasetDict.save_to_disk``.
"""

import hashlib
import os
import tarfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fsspec.core import url_to_fs

from pseudo_labels import addresses
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import read_json
from pseudo_labels.images import ImageError, open_regular
from pseudo_labels.records import Status
from pseudo_labels.rows import dataset_length, open_remote, parquet_length, stamp_of

# HEIC and JPEG XL are here although they cannot be decoded: better a row that says so than silence.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif"),
    *(".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".avif", ".avifs", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".heic", ".heif", ".jxl"),
)
_COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


class Entry(NamedTuple):
    """An image that was listed but not opened.

    Attributes:
        address: see ``addresses``.
        stamp: size and time of the file, or whatever else changes with it.
        problem: status and reason, if listing has already shown that it cannot be read.
    """

    address: str
    stamp: str
    problem: tuple[Status, str] | None = None


@dataclass(frozen=True)
class Listing:
    """All images of the sources, each address once.

    Attributes:
        sources: absolute addresses of the sources.
        entries: in the order of the sources, within a source in its own.
    """

    sources: tuple[str, ...]
    entries: tuple[Entry, ...]

    @property
    def digest(self) -> str:
        """Changes when a file comes, goes, or changes in size or time."""
        total = hashlib.sha256()
        for entry in self.entries:
            total.update(f"{entry.address}\0{entry.stamp}\0".encode())
        return total.hexdigest()


def list_sources(sources: Sequence[str]) -> Listing:
    """List the images of all sources without opening them.

    Args:
        sources: paths and fsspec addresses.

    Raises:
        PocketiqaError: a source does not exist or cannot be opened, or there is not one image.
    """
    entries: dict[str, Entry] = {}
    names = []
    for source in sources:
        try:
            name, own = _entries_of(os.fspath(source))
            names.append(name)
            for entry in own:
                entries.setdefault(entry.address, entry)
        except ImageError as error:
            raise PocketiqaError(f"the source {source!r} cannot be opened: {error.reason}") from error
    if not entries:
        shown = ", ".join(repr(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
        raise PocketiqaError(
            f"no images in {shown or 'an empty list of sources'}: looked for names ending in {' '.join(SUFFIXES)}; "
            "name .tar and .parquet files and folders saved by `datasets` themselves, not the folder around them"
        )
    return Listing(tuple(names), tuple(entries.values()))


def is_image_name(name: str) -> bool:
    """Whether the suffix is in ``SUFFIXES``."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _entries_of(source: str) -> tuple[str, Iterable[Entry]]:
    if "://" in source and not os.path.lexists(source):
        return _remote(source)
    name, path = addresses.of_path(source), Path(os.path.abspath(source))
    if os.path.isdir(path):
        splits = _dataset_splits(path)
        return name, _dataset(splits) if splits else _folder(path)
    # A name from a shell pattern may have vanished since: it becomes a row. Anything else is a slip of the pen.
    if not os.path.lexists(path) and not is_image_name(path.name):
        raise PocketiqaError(f"no such file or folder: {source!r}; check the spelling")
    return name, _file(name, path)


def _file(name: str, where: Path | str) -> Iterable[Entry]:
    lowered = str(where).lower()
    if lowered.endswith(_COMPRESSED_TARS):
        raise PocketiqaError(f"{name!r} is compressed, which rules out random access: decompress it to .tar")
    if lowered.endswith(".tar"):
        return _tar(name, where)
    if lowered.endswith(".parquet"):
        stamp = stamp_of(where)
        return (Entry(addresses.of_row("parquet", name, row), stamp) for row in range(parquet_length(where)))
    return [Entry(name, file_stamp(where) if isinstance(where, Path) else "")]


def _folder(root: Path) -> list[Entry]:
    """Every image below ``root``. Real folders come before linked ones, so that each is listed under its own path."""
    entries: list[Entry] = []
    visited: set[tuple[int, int]] = set()
    folders, links = deque([os.fspath(root)]), deque[str]()
    while folders or links:
        folder = (folders or links).popleft()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in visited:
                if _leads_up(folder):
                    entries.append(_broken(folder, "a link that leads back to a folder it is in"))
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as scan:
                children = sorted(scan, key=lambda child: child.name)
        except OSError as error:
            entries.append(_broken(folder, f"a folder that cannot be listed ({error.strerror})"))
            continue
        for child in children:
            _sort_in(child, entries, folders, links)
    return sorted(entries, key=lambda entry: entry.address.encode())


def _sort_in(child: os.DirEntry[str], entries: list[Entry], folders: deque[str], links: deque[str]) -> None:
    is_link = child.is_symlink()
    is_folder = os.path.isdir(child.path) if is_link else child.is_dir()
    if is_folder:
        (links if is_link else folders).append(child.path)
    # A broken link without a suffix may have been a folder of images: it is not passed over.
    lost = is_link and "." not in child.name and not os.path.exists(child.path)
    if lost or is_image_name(child.name):
        entries.append(Entry(addresses.of_path(child.path), "" if is_folder else file_stamp(child.path)))


def _leads_up(link: str) -> bool:
    inside = Path(os.path.realpath(os.path.dirname(link)))
    return os.path.islink(link) and Path(os.path.realpath(link)) in (inside, *inside.parents)


def _broken(path: str, reason: str) -> Entry:
    return Entry(addresses.of_path(path), "", (Status.UNREADABLE, reason))


def file_stamp(path: str | Path) -> str:
    """Size and time of a file; empty where it cannot be looked at, which will be said when it is read."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def _tar(name: str, where: Path | str) -> Iterator[Entry]:
    stamp = stamp_of(where)
    with open_regular(where) if isinstance(where, Path) else open_remote(where) as file:
        try:
            archive = tarfile.TarFile(fileobj=file, encoding="utf-8", errors="surrogateescape")
        except tarfile.TarError as error:
            raise PocketiqaError(f"{name!r} is no uncompressed tar ({error}): decompress or replace it") from error
        distortion = ""
        try:
            while (member := archive.next()) is not None:
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  # else all would be kept
                if is_image_name(member.name):
                    yield _member(name, member, stamp)
            # A corrupt header ends the iteration silently; a sound archive ends with zeros, or just ends.
            file.seek(archive.offset)
            distortion = "a header that cannot be read" if file.read(tarfile.BLOCKSIZE).strip(b"\0") else ""
        except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
            distortion = str(error) or type(error).__name__
        if distortion:
            reason = f"the archive is corrupt at byte {archive.offset} ({distortion}): members behind it are lost"
            yield Entry(name, stamp, (Status.CORRUPT, reason))


def _member(archive: str, member: tarfile.TarInfo, stamp: str) -> Entry:
    address = addresses.of_member(archive, member.name, member.offset_data, member.size)
    if member.isreg() and not member.issparse():
        return Entry(address, stamp)
    return Entry(address, stamp, (Status.UNREADABLE, "not a plain file in the archive (link, folder or sparse file)"))


def _dataset_splits(folder: Path) -> list[Path]:
    """Folders with rows, if this is a dataset saved by ``datasets``; else none."""
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        return [folder]
    index = folder / "dataset_dict.json"
    if not index.is_file():
        return []
    content = read_json(index, what="index of a dataset")
    if not isinstance(content, dict) or not isinstance(content.get("splits"), list):
        raise PocketiqaError(f"{index} names no splits: save the dataset again with `datasets`")
    return [folder / str(name) for name in content["splits"]]


def _dataset(splits: list[Path]) -> Iterator[Entry]:
    for split in splits:
        stamp, name = stamp_of(split / "state.json"), addresses.of_path(split)
        for row in range(dataset_length(split)):
            yield Entry(addresses.of_row("dataset", name, row), stamp)


def _remote(source: str) -> tuple[str, Iterable[Entry]]:
    if "::" in source:
        raise PocketiqaError(f"chained addresses such as {source!r} are not supported: unpack the archive first")
    try:
        system, root = url_to_fs(source)
        name = system.unstrip_protocol(root)
        if name.startswith(("file://", "local://")):
            return _entries_of(root)
        if not system.exists(root):
            raise FileNotFoundError(root)
        if not system.isdir(root):
            return name, _file(name, name)
        files = system.find(root, detail=True)
    except PocketiqaError:
        raise
    except Exception as error:  # each file system has errors of its own
        text = " ".join(str(error).split())
        raise PocketiqaError(f"the source {source!r} cannot be opened: {text} ({type(error).__name__})") from error
    images = [file for file in sorted(files) if is_image_name(file)]
    return name, [Entry(system.unstrip_protocol(file), _remote_stamp(files[file])) for file in images]


def _remote_stamp(info: dict[str, Any]) -> str:
    return f"{info.get('size')}-{info.get('ETag') or info.get('mtime') or info.get('created')}"
