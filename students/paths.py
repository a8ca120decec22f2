"""From paths to files: the images to score, each once, in a stable order; and the files of a student. Without torch.

The rules for images are those of ``pseudo_labels.folders``, as for pools.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from pseudo_labels.folders import PassedOver, list_folder

RECORD = "student.json"
CHECKPOINT_SUFFIXES = (".pth", ".pt", ".safetensors")
"""Suffixes of files that are read as the checkpoint of DP-IQA's authors, see ``students.dp_iqa_b7``."""

_REMEDY = "write their images to a folder, or read them with `pocketiqa pool`"


def find_images(
    paths: Iterable[str | os.PathLike[str]], recursive: bool = False, warn: Callable[[str], None] | None = None
) -> list[Path]:
    """Expand folders by the rules of ``pseudo_labels.folders``; any other path stays, whether it exists or not.

    What cannot be scored but looks as if it should be is returned as well, to become a row with a reason: broken links,
    links that lead back up, folders that cannot be listed, folders named like images.

    Args:
        paths: files and folders.
        recursive: enter the folders below as well.
        warn: called with a sentence on images that were left out by rule, and on files that were not read.

    Returns:
        Paths in the order of ``paths``, within a folder by name, files before folders below; a file met twice comes
        once, where it was met first.
    """
    visited, passed = set[tuple[int, int]](), PassedOver()
    unique: dict[str, Path] = {}
    for path in map(Path, paths):
        for file in listed(path, passed, recursive=recursive, visited=visited):
            unique.setdefault(address_of(file), file)
    if warn is not None:
        for sentence in passed.sentences(_REMEDY):
            warn(sentence)
    return list(unique.values())


def listed(path: Path, passed: PassedOver, *, recursive: bool, visited: set[tuple[int, int]]) -> list[Path]:
    """The images of a folder, see ``folders.list_folder``; any other path is itself, whether it exists or not."""
    if not path.is_dir():
        return [path]
    return [Path(one.path) for one in list_folder(str(path), passed, recursive=recursive, visited=visited)]


def address_of(file: Path) -> str:
    """Absolute address of the name itself: links in the folders are resolved, a link to a file stays its own file."""
    return os.path.join(os.path.realpath(file.parent), file.name)


def find_student(path: str | Path) -> Path | None:
    """The path that ``open_student`` would read: ``path``, its ``student`` folder, or None if there is no student."""
    path = Path(path)
    if path.is_file() and path.suffix in CHECKPOINT_SUFFIXES:
        return path
    return next((folder for folder in (path, path / "student") if (folder / RECORD).is_file()), None)
