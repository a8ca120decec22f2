"""Which files of a folder are images, which are left out by rule, and what else was passed over. Standard library only.

The one rule of ``sources`` (pools) and of ``students.paths`` (the CPU runtime). In a folder the name decides, and the
content later:

* a name with a suffix of ``IMAGE_SUFFIXES`` is an image. Formats that nothing here decodes are among them, such as
  camera raw: better a row that says so than silence;
* copies and leftovers of other programs are left out, see ``leftover``, and counted;
* files that may hold images, such as Parquet files and tars, are not opened, but named, see ``PassedOver``;
* everything else is counted by its suffix.

A file or folder that a person names is always taken, whatever its name.
"""

import os
from collections import Counter, deque
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

DECODED_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif"),
    *(".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".avif", ".avifs", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".heic", ".heif", ".hif", ".heics", ".heifs"),
)
"""Suffixes of formats that ``images.decode`` reads, the last line of them with the package pillow-heif."""

IMAGE_SUFFIXES = frozenset(
    {*DECODED_SUFFIXES}
    # Camera raw.
    | {".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".srw", ".raf", ".orf", ".ori", ".rw2"}
    | {".rwl", ".raw", ".pef", ".ptx", ".x3f", ".3fr", ".fff", ".iiq", ".mef", ".mos", ".mrw", ".kdc", ".dcr", ".k25"}
    | {".erf", ".gpr"}
    # Other formats of photographs.
    | {".jxl", ".jxr", ".wdp", ".hdp", ".jls", ".jph", ".bpg", ".avci", ".psd", ".psb", ".xcf", ".exr", ".hdr"}
    | {".pfm", ".pam", ".tga", ".pcx", ".qoi", ".dds"}
)
"""Suffixes, in lower case, of what is listed as an image."""

_NAMEABLE = (".parquet", ".tar")
_PACKED = (
    *(".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".zip", ".7z", ".rar"),
    *(".arrow", ".tfrecord", ".tfrecords", ".h5", ".hdf5", ".lmdb", ".mdb", ".npz"),
)

# Folders in which other programs hold copies, previews or deleted files; and beginnings of such names, all hidden.
_LEFTOVER_NAMES = {
    name.lower(): name
    for name in (
        *("__MACOSX", ".AppleDouble", ".Spotlight-V100", ".fseventsd", ".DocumentRevisions-V100", ".TemporaryItems"),
        *(".thumbnails", ".thumbs", ".thumb", ".dtrash", ".stversions", ".ipynb_checkpoints", ".cache", ".git"),
        *("@eaDir", "@Recycle", ".@__thumb", ".@upload_cache", "#recycle", "$RECYCLE.BIN"),
        "System Volume Information",
    )
}
_LEFTOVER_BEGINNINGS = ("._", ".Trash", ".pending-")

_LEADS_BACK = "a link that leads back to a folder it is in"
_SHOWN = 5


def is_image_name(name: str) -> bool:
    """Whether the suffix is in ``IMAGE_SUFFIXES``."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def leftover(name: str) -> str:
    """The rule by which a file or folder of this name is left out, as a pattern; empty if it is not.

    Args:
        name: of the file or folder itself, such as ``._p1.jpg`` (of macOS) or ``@eaDir`` (of a Synology NAS).
    """
    lowered = name.lower()
    if lowered in _LEFTOVER_NAMES:
        return _LEFTOVER_NAMES[lowered]
    if not lowered.startswith("."):
        return ""
    return next((f"{begin}*" for begin in _LEFTOVER_BEGINNINGS if lowered.startswith(begin.lower())), "")


def leftover_on_the_way(path: str) -> str:
    """As ``leftover``, of any part of a path with forward slashes, such as the name of a member of a tar."""
    return next((rule for part in path.split("/") if (rule := leftover(part))), "")


@dataclass
class PassedOver:
    """What lay beside the images that were listed.

    Attributes:
        left_out: number of images by the rule that left them out.
        unread: number of files that may hold images, by folder and suffix (``photos/*.zip``), or 1 by folder for a data
            set that the package ``datasets`` saved.
        others: number of other files by suffix.
    """

    left_out: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)

    def count(self, folder: str, name: str) -> None:
        """Count a file that is no image by its name; hidden ones are no photographs, but for those left in iCloud."""
        lowered = name.lower()
        held = next((suffix for suffix in (*_PACKED, *_NAMEABLE) if lowered.endswith(suffix)), "")
        if held and not leftover(name):
            self.unread[os.path.join(folder, f"*{held}")] += 1
        elif lowered.endswith(".icloud") or not (name.startswith(".") or lowered in ("thumbs.db", "desktop.ini")):
            self.others[os.path.splitext(lowered)[1] or "without suffix"] += 1

    def sentences(self, remedy: str) -> list[str]:
        """What a person should know, at most a line of each kind.

        Args:
            remedy: what to do with Parquet files, tars and saved data sets.
        """
        archives = tuple(f"*{suffix}" for suffix in _PACKED)
        packed = {name: count for name, count in sorted(self.unread.items()) if name.endswith(archives)}
        nameable = {name: count for name, count in sorted(self.unread.items()) if name not in packed}
        lines = []
        if self.left_out:
            lines.append(
                f"images left out by rule: {_in_words(dict(sorted(self.left_out.items())), 'of {0}')}; they are copies "
                "and leftovers of other programs, and read only where they are named themselves"
            )
        for unread, what_to_do in ((nameable, remedy), (packed, "unpack them into a folder of images")):
            if unread:
                lines.append(f"not read, though they may hold images: {_in_words(unread, '{0!r}')}; {what_to_do}")
        if self.others:
            others = dict(sorted(self.others.items(), key=lambda item: (-item[1], item[0])))
            lines.append(f"passed over, for their names are not those of images: {_in_words(others, '{0}')}")
        return lines


def _in_words(counts: Mapping[str, int], form: str) -> str:
    words = [f"{count} {form.format(name)}" for name, count in counts.items()]
    return ", ".join(words[:_SHOWN]) + (f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else "")


class Listed(NamedTuple):
    """An image of a folder by its name, or a folder that cannot be searched.

    Attributes:
        path: begins with the root as it was given.
        problem: why the folder of this path could not be searched; empty for an image.
        is_folder: a folder named like an image, which reading will refuse.
    """

    path: str
    problem: str = ""
    is_folder: bool = False


def list_folder(
    root: str, passed: PassedOver, *, recursive: bool = True, visited: set[tuple[int, int]] | None = None
) -> list[Listed]:
    """The images of a folder by their names, and what looks as if it should be one.

    Links are followed, each real folder is entered once, real folders come before linked ones and links nearer to the
    root before deeper ones, so loops end. Broken links, links that lead back up, folders that cannot be searched and
    folders named like images are listed too, to become rows with a reason.

    Args:
        root: path of the folder.
        passed: counts what is not listed.
        recursive: enter the folders below as well.
        visited: device and inode of the folders entered so far, where several roots count as one.

    Returns:
        Sorted by name, in each folder its files before the folders below.
    """
    visited = set() if visited is None else visited
    listed: list[Listed] = []
    folders, links, datasets = deque([root]), deque[str](), set[str]()
    while folders or links:
        folder = (folders or links).popleft()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in visited:
                if _leads_up(folder):
                    listed.append(Listed(folder, _LEADS_BACK))
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as scan:
                children = sorted(scan, key=lambda child: child.name)
        except OSError as error:
            listed.append(Listed(folder, f"a folder that cannot be listed ({error.strerror})"))
            continue
        is_dataset = is_saved_dataset({child.name for child in children})
        if is_dataset:
            datasets.add(folder)
            # The splits of a data set are part of it, and need not be named apart.
            passed.unread[folder] += os.path.dirname(folder) not in datasets
        below = [_sort_in(child, listed, passed, counted=not is_dataset, recursive=recursive) for child in children]
        if recursive:
            folders.extend(child.path for child in below if child and not child.is_symlink())
            links.extend(child.path for child in below if child and child.is_symlink())
    passed.unread = +passed.unread
    return sorted(listed, key=lambda one: _files_first(root, one))


def is_saved_dataset(names: Container[str]) -> bool:
    """Whether a folder with these files was written by ``save_to_disk`` of the package ``datasets``."""
    return "dataset_dict.json" in names or ("state.json" in names and "dataset_info.json" in names)


def _sort_in(
    child: os.DirEntry[str], listed: list[Listed], passed: PassedOver, *, counted: bool, recursive: bool
) -> os.DirEntry[str] | None:
    """List or count a child of a folder; returned if it is a folder to enter."""
    is_link = child.is_symlink()
    is_folder = os.path.isdir(child.path) if is_link else child.is_dir()
    rule = leftover(child.name)
    if rule:
        if not is_folder:
            passed.left_out[rule] += is_image_name(child.name)
        elif recursive and not is_link:
            passed.left_out[rule] += _images_below(child.path)
        passed.left_out = +passed.left_out
        return None
    # A broken link without a suffix may have been a folder of images: it is not passed over.
    is_lost = is_link and not os.path.splitext(child.name)[1] and not os.path.exists(child.path)
    if is_lost or is_image_name(child.name):
        listed.append(Listed(child.path, is_folder=is_folder))
    elif counted and not is_folder:
        passed.count(os.path.dirname(child.path), child.name)
    return child if is_folder else None


def _images_below(folder: str) -> int:
    return sum(is_image_name(name) for _, _, names in os.walk(folder) for name in names)


def _leads_up(link: str) -> bool:
    if not os.path.islink(link):
        return False
    target, inside = os.path.realpath(link), os.path.realpath(os.path.dirname(link))
    return os.path.commonpath([target, inside]) == target


def _files_first(root: str, one: Listed) -> list[tuple[bool, str]]:
    *folders, name = one.path.removeprefix(root).split(os.sep)
    return [*((True, folder) for folder in folders), (bool(one.problem), name)]
