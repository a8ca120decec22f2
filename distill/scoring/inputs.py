"""What ``pocketiqa score`` is given: files, folders, patterns, lists, archives, tables and addresses, as images.

Base install only; Parquet files and saved data sets need the extra ``tables``, see ``pseudo_labels.sources``.
"""

import glob
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from pseudo_labels import tars
from pseudo_labels.downloads import Downloads, check_address
from pseudo_labels.errors import PocketiqaError, install_command, shown, system_words
from pseudo_labels.files import from_utf8_path, local_path, name_of, utf8_path
from pseudo_labels.folders import PassedOver, is_saved_dataset, leftover_on_the_way
from pseudo_labels.images import open_regular
from pseudo_labels.records import ImageError, Status
from students.paths import address_of, find_images, listed

_NAMES = "names of images end in .jpg, .png and so on; a file of another name is scored if it is named itself"
_REMEDY = "name them themselves"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_OWN_SCHEMES = ("tar", "parquet", "dataset")
"""Of images in archives and tables, see ``pseudo_labels.addresses``."""
_MOST_LIST_BYTES = 1 << 30
Warn = Callable[[str], None]


@dataclass(frozen=True)
class ImageSource:
    """One image to score.

    Attributes:
        name: as its row has it: the path as it was given, or an address.
        file: local file that holds it: its own, or that of its archive; None for an address of the web.
        read: gives its bytes; None where ``file`` is the image itself.
        problem: status and reason, if it is known already that it cannot be read.
    """

    name: str
    file: Path | None = None
    read: Callable[[], bytes] | None = None
    problem: tuple[Status, str] | None = None

    def __fspath__(self) -> str:
        return self.name

    @property
    def is_file(self) -> bool:
        """Whether it is a file of its own on this machine."""
        return self.read is None and self.problem is None

    def content(self) -> Path | bytes:
        """What the runtime reads.

        Raises:
            ImageError: it cannot be read.
        """
        if self.problem is not None:
            raise ImageError(*self.problem)
        if self.read is not None:
            return self.read()
        return Path(self.name)

    @property
    def place(self) -> Path:
        """Absolute path of the image, as if archives, tables and servers were folders; never outside of these."""
        if self.is_file or "://" not in self.name:
            return Path(os.path.abspath(self.name))
        scheme, _, rest = self.name.partition("://")
        parts: list[str] = []
        if scheme == "tar":
            parts = list(PurePosixPath(unquote(rest.partition("::")[0].rpartition("?")[0], errors="replace")).parts)
        elif scheme in _OWN_SCHEMES:
            table, _, row = rest.rpartition("#")
            parts = [f"{PurePosixPath(table).stem}-{row}"]
        else:
            address = urlsplit(self.name)
            parts = [address.netloc, *PurePosixPath(unquote(address.path, errors="replace")).parts]
        safe = [part.replace("\0", "") for part in parts if part.strip("/") and part not in (".", "..")]
        return Path(os.path.abspath(self.file or "")).joinpath(*safe or ["image"])


@dataclass(frozen=True)
class Inputs:
    """The images that were named.

    Attributes:
        images: each once, in the order of the words.
        empty: a sentence for each folder, pattern, list or archive without an image.
    """

    images: list[ImageSource]
    empty: list[str]


@dataclass(frozen=True)
class Reading:
    """How words are read.

    Attributes:
        recursive: enter the folders below as well.
        null: paths of lists end with NUL, and not with a line end.
        downloads: bounds for addresses of the web; None refuses them.
    """

    recursive: bool = False
    null: bool = False
    downloads: Downloads | None = None


@dataclass
class _Finder:
    reading: Reading
    warn: Warn
    images: dict[str, ImageSource] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    passed: PassedOver = field(default_factory=PassedOver)
    visited: set[tuple[int, int]] = field(default_factory=set)

    def word(self, word: str) -> None:
        """A word of the command line."""
        if word == "-":
            self.lines("standard input", _split(sys.stdin.buffer.read(_MOST_LIST_BYTES), self.reading.null, "it"))
        elif os.path.lexists(word):
            self.path(word)
        elif word.startswith("@"):
            self.lines(f"the list {shown(word[1:])}", _read_list(word[1:], self.reading.null))
        elif glob.has_magic(word) and not _SCHEME.match(word):
            self.pattern(word)
        else:
            self.path(word)

    def lines(self, what: str, paths: Sequence[str]) -> None:
        """Paths of a list, which are taken as they are."""
        for path in paths:
            self.path(path)
        if not paths:
            self.empty.append(f"{what} names no image")

    def pattern(self, pattern: str) -> None:
        """What a pattern matches, as a shell would give it, but without copies and leftovers of other programs."""
        # Files that programs left deeper down are named by ``**`` without anybody having asked for them.
        named = leftover_on_the_way(pattern)
        paths = []
        for path in sorted(glob.iglob(pattern, recursive=True)):
            rule = leftover_on_the_way(path)
            if rule and not named:
                self.passed.left_out[rule] += 1
            else:
                paths.append(path)
        for path in paths:
            self.path(path)
        if not paths:
            self.empty.append(f"nothing matches the pattern {shown(pattern)}: check it, and what it is relative to")

    def path(self, path: str) -> None:
        """A file, folder or address."""
        scheme = _SCHEME.match(path)
        if scheme and not os.path.lexists(path):
            self.address(path, scheme[1].lower())
        elif os.path.isdir(path) and is_saved_dataset(set(_children(path))):
            self.table(path)
        elif os.path.isfile(path) and path.lower().endswith(tars.COMPRESSED):
            raise PocketiqaError(f"{shown(path)} is compressed, which rules out random access: decompress it to .tar")
        elif os.path.isfile(path) and path.lower().endswith(".tar"):
            self.tar(path)
        elif os.path.isfile(path) and path.lower().endswith(".parquet"):
            self.table(path)
        else:
            before = len(self.images)
            for file in listed(Path(path), self.passed, recursive=self.reading.recursive, visited=self.visited):
                self.add(ImageSource(str(file), file), address_of(file))
            if len(self.images) == before and os.path.isdir(path):
                self.empty += empty_folders([Path(path)], [], recursive=self.reading.recursive)

    def address(self, address: str, scheme: str) -> None:
        """An address of the web, of a member of an archive, or of a name that is not UTF-8."""
        if scheme == "file":
            path = from_utf8_path(address)
            if not os.path.isabs(path):
                raise PocketiqaError(f"{shown(address)} names no file of this machine: file:///FOLDER/FILE is needed")
            self.path(path)
        elif scheme == "tar":
            archive, _, _ = _checked(partial(tars.place_of, address), address)
            self.add(ImageSource(address, local_path(archive), partial(tars.read_member, address)))
        elif scheme in _OWN_SCHEMES:
            table = local_path(address.partition("://")[2].rpartition("#")[0])
            self.add(ImageSource(address, table, partial(_pool_reader(address), address)))
        else:
            check_address(address)
            if self.reading.downloads is None:
                raise PocketiqaError(
                    f"{shown(address)} is on the web, and nothing is fetched unasked: add --allow-remote, or fetch it "
                    "yourself and name the file"
                )
            self.add(ImageSource(address, None, partial(self.reading.downloads.read, address)))

    def tar(self, path: str) -> None:
        """The images of a tar."""
        name, before = utf8_path(os.path.abspath(path)), len(self.images)
        try:
            with open_regular(path) as file:
                for image in tars.list_tar(name, file, self.passed):
                    read = None if image.problem else partial(tars.read_member, image.address)
                    self.add(ImageSource(image.address, Path(path), read, image.problem))
        except ImageError as error:
            raise PocketiqaError(f"{shown(path)} cannot be opened: {error.reason}") from error
        if len(self.images) == before:
            self.empty.append(f"no images in {path}")

    def table(self, path: str) -> None:
        """The rows of a Parquet file or of a saved data set."""
        read = _pool_reader(path)
        from pseudo_labels.sources import list_sources

        for entry in list_sources([path]).entries:
            self.add(ImageSource(entry.address, Path(path), partial(read, entry.address), entry.problem))

    def add(self, image: ImageSource, key: str = "") -> None:
        """Take an image, once."""
        self.images.setdefault(key or image.name, image)


def find_inputs(words: Iterable[str | os.PathLike[str]], reading: Reading, warn: Warn) -> Inputs:
    """All images that the words of a command line name.

    A word is a file or folder if there is one of this name; else ``-`` (paths on standard input), ``@FILE`` (paths in
    a file), an address, or a pattern (``*``, ``?``, ``[...]``, and ``**`` for folders at any depth). Whatever is none
    of these stays: it becomes a row that says that there is no such file.

    Args:
        words: of the command line.
        reading: how they are read.
        warn: called with a sentence on what was left out by rule or not read.

    Raises:
        PocketiqaError: a list, archive or table cannot be read, or an address is not one that can be fetched.
    """
    finder = _Finder(reading, warn)
    for word in words:
        finder.word(os.fspath(word))
    for sentence in finder.passed.sentences(_REMEDY):
        warn(sentence)
    return Inputs(list(finder.images.values()), finder.empty)


def empty_folders(paths: Sequence[Path], images: Sequence[Path], *, recursive: bool) -> list[str]:
    """Words for each folder among ``paths`` that holds no image, with what to do.

    Args:
        paths: files and folders that a user named.
        images: ``find_images(paths, recursive)``.
        recursive: whether subfolders were entered.
    """
    lines = []
    for folder in paths:
        # An image that another path led to first is not listed below this folder: then it is listed once more.
        if not folder.is_dir() or any(folder in image.parents for image in images) or find_images([folder], recursive):
            continue
        below = 0 if recursive else len(find_images([folder], recursive=True))
        hint = f"but {below} in its subfolders: add --recursive, or name these" if below else "or below it: " + _NAMES
        lines.append(f"no images in {folder} {hint}")
    return lines


def _read_list(path: str, null: bool) -> list[str]:
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_LIST_BYTES)
    except OSError as error:
        refused, step = system_words(error)
        raise PocketiqaError(f"the list {shown(path)} cannot be read: {refused}; {step}") from error
    return _split(data, null, f"the list {shown(path)}")


def _split(data: bytes, null: bool, what: str) -> list[str]:
    """Paths of a list of names, byte by byte as they are in the file system."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not null and b"\0" in data:
        raise PocketiqaError(f"{what} holds NUL bytes: add --null if these end its paths (find -print0 writes such)")
    names = data.split(b"\0" if null else b"\n")
    if null and len(names) == 1 and b"\n" in data:
        raise PocketiqaError(f"{what} holds no NUL byte, but line ends: leave out --null")
    if not null and all(name.endswith(b"\r") for name in names if name):
        names = [name.removesuffix(b"\r") for name in names]  # written by Windows
    return [os.fsdecode(name) for name in names if name]


def _children(folder: str) -> Iterator[str]:
    try:
        yield from os.listdir(folder)
    except OSError:  # which becomes a row
        return


def _checked(work: Callable[[], tuple[str, int, int]], address: str) -> tuple[str, int, int]:
    try:
        return work()
    except ImageError as error:
        raise PocketiqaError(f"{shown(address)}: {error.reason}") from error


def _pool_reader(what: str) -> Callable[[str], bytes]:
    """Reads rows of tables.

    Raises:
        PocketiqaError: the packages for it are not installed.
    """
    try:
        from pseudo_labels.addresses import read
    except ModuleNotFoundError as error:
        raise PocketiqaError(
            f"{shown(name_of(what))} is a table of images, which needs the package {error.name}: "
            f"{install_command('tables')}"
        ) from error
    return read
