"""Where images come from: what a user names, as a list of addresses in a fixed order.

Five kinds of source:

* a folder, searched to its bottom, by path or fsspec address: every file that ``folders`` takes for an image, sorted by
  path. Links are followed, each real folder once. Broken links, link loops, folders that cannot be listed and folders
  named like images are listed too: reading them gives the reason;
* a file of any other kind than the next three: one image, whatever its suffix;
* ``*.tar``: a WebDataset shard, the members with an image suffix. Compressed tars have no random access: refused;
* ``*.parquet``: a row for each image, see ``rows``;
* a folder written by ``datasets.Dataset.save_to_disk`` or ``DatasetDict.save_to_disk``.

What a folder or a tar holds besides is counted and said, see ``Listing.notes``.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fsspec.core import url_to_fs

from pseudo_labels import addresses
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import read_json
from pseudo_labels.folders import (
    DECODED_SUFFIXES,
    PassedOver,
    is_image_name,
    leftover_on_the_way,
    list_folder,
)
from pseudo_labels.images import ImageError, open_regular
from pseudo_labels.records import Status
from pseudo_labels.rows import dataset_length, open_remote, parquet_length, stamp_of
from pseudo_labels.tars import COMPRESSED, list_tar

_NAME_THEM = "name them as sources themselves"


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
        notes: sentences on what the sources hold besides: images left out by rule, files not read or passed over.
    """

    sources: tuple[str, ...]
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()

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
    names, empty, passed = [], [], PassedOver()
    for source in sources:
        try:
            name, own = _entries_of(os.fspath(source), passed)
            names.append(name)
            is_empty = True
            for entry in own:
                entries.setdefault(entry.address, entry)
                is_empty = False
            empty += [name] * is_empty
        except ImageError as error:
            raise PocketiqaError(f"the source {source!r} cannot be opened: {error.reason}") from error
    notes = passed.sentences(_NAME_THEM)
    if not entries:
        shown = ", ".join(repr(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
        containers = f".tar and .parquet files and folders saved by `datasets`: {_NAME_THEM}"
        raise PocketiqaError(
            f"no images in {shown or 'an empty list of sources'}: looked for names ending in "
            f"{' '.join(DECODED_SUFFIXES)}; {'; '.join(notes) or containers}"
        )
    notes += [f"no images in the source {name!r}" for name in empty]
    return Listing(tuple(names), tuple(entries.values()), tuple(notes))


def _entries_of(source: str, passed: PassedOver) -> tuple[str, Iterable[Entry]]:
    if "://" in source and not os.path.lexists(source):
        return _remote(source, passed)
    name, path = addresses.of_path(source), Path(os.path.abspath(source))
    if os.path.isdir(path):
        splits = _dataset_splits(path)
        return name, _dataset(splits) if splits else _folder(path, passed)
    # A name from a shell pattern may have vanished since: it becomes a row. Anything else is a slip of the pen.
    if not os.path.lexists(path) and not is_image_name(path.name):
        raise PocketiqaError(f"no such file or folder: {source!r}; check the spelling")
    return name, _file(name, path, passed)


def _file(name: str, where: Path | str, passed: PassedOver) -> Iterable[Entry]:
    lowered = str(where).lower()
    if lowered.endswith(COMPRESSED):
        raise PocketiqaError(f"{name!r} is compressed, which rules out random access: decompress it to .tar")
    if lowered.endswith(".tar"):
        return _tar(name, where, passed)
    if lowered.endswith(".parquet"):
        stamp = stamp_of(where)
        return (Entry(addresses.of_row("parquet", name, row), stamp) for row in range(parquet_length(where)))
    return [Entry(name, file_stamp(where) if isinstance(where, Path) else "")]


def _folder(root: Path, passed: PassedOver) -> list[Entry]:
    entries = []
    for path, problem, is_folder in list_folder(os.fspath(root), passed):
        stamp = "" if problem or is_folder else file_stamp(path)
        entries.append(Entry(addresses.of_path(path), stamp, (Status.UNREADABLE, problem) if problem else None))
    return sorted(entries, key=lambda entry: entry.address.encode())


def file_stamp(path: str | Path) -> str:
    """Size and time of a file; empty where it cannot be looked at, which will be said when it is read."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def _tar(name: str, where: Path | str, passed: PassedOver) -> Iterator[Entry]:
    stamp = stamp_of(where)
    with open_regular(where) if isinstance(where, Path) else open_remote(where) as file:
        for image in list_tar(name, file, passed):
            yield Entry(image.address, stamp, image.problem)


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


def _remote(source: str, passed: PassedOver) -> tuple[str, Iterable[Entry]]:
    if "::" in source:
        raise PocketiqaError(f"chained addresses such as {source!r} are not supported: unpack the archive first")
    try:
        system, root = url_to_fs(source)
        name = system.unstrip_protocol(root)
        if name.startswith(("file://", "local://")):
            return _entries_of(root, passed)
        if not system.exists(root):
            raise FileNotFoundError(root)
        if not system.isdir(root):
            return name, _file(name, name, passed)
        files = system.find(root, detail=True)
    except PocketiqaError:
        raise
    except Exception as error:  # each file system has errors of its own
        text = " ".join(str(error).split())
        raise PocketiqaError(f"the source {source!r} cannot be opened: {text} ({type(error).__name__})") from error
    entries = []
    for file in sorted(files):
        address, is_image = system.unstrip_protocol(file), is_image_name(file)
        rule = leftover_on_the_way(address.removeprefix(name))
        if rule and is_image:
            passed.left_out[rule] += 1
        elif is_image:
            entries.append(Entry(address, _remote_stamp(files[file])))
        elif not rule:
            passed.count(os.path.dirname(address), os.path.basename(address))
    return name, entries


def _remote_stamp(info: dict[str, Any]) -> str:
    return f"{info.get('size')}-{info.get('ETag') or info.get('mtime') or info.get('created')}"
