"""From paths to files: the images to score, each once, in a stable order; and the files of a student. Without torch.

The rules for images are those of ``pseudo_labels.sources``, which has more kinds of sources and needs more packages.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

# In folders the name decides what is an image (the content decides later); a file named by the user is always taken.
# HEIC and JPEG XL are here to get a row with the reason, instead of being passed over in silence.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif"}
    | {".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".avif", ".avifs", ".ppm", ".pgm", ".pbm", ".pnm"}
    | {".heic", ".heif", ".jxl"}
)

RECORD = "student.json"
CHECKPOINT_SUFFIXES = (".pth", ".pt", ".safetensors")
"""Suffixes of files that are read as the checkpoint of DP-IQA's authors, see ``students.dp_iqa_b7``."""


def find_images(paths: Iterable[str | os.PathLike[str]], recursive: bool = False) -> list[Path]:
    """Expand folders; keep everything else as it is named, whether it exists or not.

    Links are followed, each real folder is entered once, and real folders come before linked ones, so loops end. What
    cannot be scored but looks as if it should be is returned as well, to become a row with a reason: broken links,
    links that lead back up, folders that cannot be listed, folders named like images.

    Args:
        paths: files and folders.
        recursive: enter the folders below as well.

    Returns:
        Paths in the order of ``paths``, within a folder by name, files before folders below; a file met twice comes
        once, where it was met first.
    """
    visited: set[str] = set()
    unique: dict[str, Path] = {}
    for path in map(Path, paths):
        for file in _walk(path, recursive, visited) if path.is_dir() else (path,):
            unique.setdefault(_address(file), file)
    return list(unique.values())


def _walk(root: Path, recursive: bool, visited: set[str]) -> Iterator[Path]:
    # Real folders before linked ones: what is below ``root`` is then named by its own path, not through a link.
    folders, links = [root], list[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop()
        real = os.path.realpath(folder)
        if real in visited:
            if _leads_up(folder, real):
                yield folder
            continue
        visited.add(real)
        try:
            children = [folder / name for name in sorted(os.listdir(folder))]
        except OSError:
            yield folder  # becomes a row that gives the reason
            continue
        yield from filter(_is_wanted, children)
        if recursive:
            # Reversed, as the last is taken first.
            below = [child for child in reversed(children) if child.is_dir()]
            links.extend(child for child in below if child.is_symlink())
            folders.extend(child for child in below if not child.is_symlink())


def _is_wanted(path: Path) -> bool:
    # A broken link without a suffix may have been a folder of images: it is not passed over.
    return path.suffix.lower() in IMAGE_SUFFIXES or (path.is_symlink() and not path.suffix and not path.exists())


def _leads_up(path: Path, real: str) -> bool:
    return path.is_symlink() and Path(real) in Path(os.path.realpath(path.parent), "_").parents


def _address(path: Path) -> str:
    """Absolute address of the name itself: links in the folders are resolved, a link to a file stays its own file."""
    return os.path.join(os.path.realpath(path.parent), path.name)


def find_student(path: str | Path) -> Path | None:
    """The path that ``open_student`` would read: ``path``, its ``student`` folder, or None if there is no student."""
    path = Path(path)
    if path.is_file() and path.suffix in CHECKPOINT_SUFFIXES:
        return path
    return next((folder for folder in (path, path / "student") if (folder / RECORD).is_file()), None)
