"""Where the regions of an image come from: a grid, superpixels, mask files, or what people drew (BSDS500).

A source proposes; which proposals become regions is decided by ``make.Limits``. SAM, which needs torch, is a source in
``teachers.sam_iqa.masks``; tables and JSON of any size are in ``readers``.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from pseudo_labels.errors import PocketiqaError, install_command
from pseudo_labels.files import digest_of, name_of
from pseudo_labels.images import DecodeLimits, ImageError, read_bytes
from pseudo_labels.records import ImageRef, Status
from pseudo_labels.regions.masks import RegionError, encode, from_box

NAN = math.nan
OBJECT, PART = "object", "part"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A region that a source gives for an image, or what is wrong with it.

    Attributes:
        counts: run lengths for the image's size (``masks.from_coco``); empty if the proposal is refused.
        level: ``object`` or ``part``.
        status: ``ok``, or why it is refused.
        reason: words for a person; empty if ``ok``.
        quality: as the source states it, in [0, 1]; NaN where it states none. So are ``importance`` and ``severity``.
        importance: see ``quality``.
        severity: see ``quality``.
        distortion: type of the distortion; empty where none is named.
    """

    counts: str
    level: str = PART
    status: Status = Status.OK
    reason: str = ""
    quality: float = NAN
    importance: float = NAN
    severity: float = NAN
    distortion: str = ""


def refused(error: RegionError, level: str = PART) -> Proposal:
    """A proposal that cannot be used, with the reason."""
    return Proposal("", level, error.status, error.reason)


class RegionSource(Protocol):
    """Gives the regions of an image, always the same for the same image and options.

    Attributes:
        name: as in manifests.
        needs_pixels: whether the decoded image is needed; else ``propose`` gets None.
        in_threads: whether several threads may call ``propose`` at a time.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def needs_pixels(self) -> bool: ...  # noqa: D102

    @property
    def in_threads(self) -> bool: ...  # noqa: D102

    def spec(self) -> dict[str, Any]:
        """Everything that determines the regions, as JSON values."""
        ...

    def opened(self, images: Iterable[ImageRef], scratch: Path) -> AbstractContextManager[Any]:
        """Prepare for these images; temporary files may be written to the folder ``scratch``."""
        ...

    def notes(self) -> dict[str, Any]:
        """What readers of the manifest should know, once all images are done; JSON values."""
        ...

    def propose(self, ref: ImageRef, rgb: np.ndarray | None) -> Iterable[Proposal]:
        """Regions of an image in the order in which they are preferred.

        Args:
            ref: a row of the pool with status ``ok``.
            rgb: uint8 [H, W, 3], if ``needs_pixels``.

        Raises:
            PocketiqaError: this image has none for this reason.
        """
        ...


class _Simple:
    """What most sources have in common."""

    needs_pixels = False
    in_threads = True

    def opened(self, images: Iterable[ImageRef], scratch: Path) -> AbstractContextManager[Any]:
        """Nothing to prepare."""
        return nullcontext()

    def notes(self) -> dict[str, Any]:
        """Nothing to note."""
        return {}


class Grid(_Simple):
    """Equal cells, row by row; sides that do not divide are rounded.

    Args:
        columns: cells across, at least 1.
        rows: cells down, at least 1.
    """

    name = "grid"

    def __init__(self, columns: int = 4, rows: int = 3):
        self.columns, self.rows = _count(columns, "columns"), _count(rows, "rows")

    def spec(self) -> dict[str, Any]:
        """Columns and rows."""
        return {"columns": self.columns, "rows": self.rows}

    def propose(self, ref: ImageRef, rgb: np.ndarray | None) -> Iterator[Proposal]:
        """Cells of the grid; of an image with fewer pixels than cells on a side, those that have pixels."""
        down = [round(ref.height * row / self.rows) for row in range(self.rows + 1)]
        across = [round(ref.width * column / self.columns) for column in range(self.columns + 1)]
        for top, bottom in pairwise(down):
            for left, right in pairwise(across):
                if bottom > top and right > left:
                    yield Proposal(from_box((left, top, right - left, bottom - top), ref.height, ref.width))


class Slic(_Simple):
    """Superpixels (Achanta et al. 2012, IEEE TPAMI 34(11)), computed by scikit-image.

    Args:
        segments: wanted number; the image may have fewer.
        compactness: weight of nearness against colour, above 0.
    """

    name = "slic"
    needs_pixels = True

    def __init__(self, segments: int = 50, compactness: float = 10.0):
        if find_spec("skimage") is None:  # said before any image is decoded
            raise PocketiqaError(f"slic needs scikit-image: {install_command('train')}, or take grid")
        self.segments, self.compactness = _count(segments, "segments"), float(compactness)
        if not self.compactness > 0:
            raise PocketiqaError(f"compactness is {compactness}, but must be above 0")

    def spec(self) -> dict[str, Any]:
        """Options, and the version of scikit-image, which computes them."""
        return {
            "segments": self.segments,
            "compactness": self.compactness,
            "scikit-image": metadata.version("scikit-image"),
        }

    def propose(self, ref: ImageRef, rgb: np.ndarray | None) -> Iterator[Proposal]:
        """Superpixels in the order of their numbers."""
        from skimage.segmentation import slic

        labels = slic(rgb, n_segments=self.segments, compactness=self.compactness, start_label=1, channel_axis=-1)
        yield from regions_of_map(labels, PART)


def regions_of_map(labels: np.ndarray, level: str) -> Iterator[Proposal]:
    """A proposal for each number above 0 of a map [H, W], in rising order."""
    for number in np.unique(labels).tolist():
        if number > 0:
            yield Proposal(encode(labels == number), level)


class Bsds(_Simple):
    """Regions that people drew for the Berkeley Segmentation Data Set (Arbelaez et al. 2011, IEEE TPAMI 33(5)).

    Args:
        folder: folder that holds, at any depth, one ``NAME.mat`` for each ``NAME.jpg`` of the pool.
        person: index of the person; ``median`` takes the one with the median number of regions (the earlier of two).
    """

    name = "bsds"

    def __init__(self, folder: Path | str, person: int | str = "median"):
        if person != "median" and (isinstance(person, bool) or not isinstance(person, int) or person < 0):
            raise PocketiqaError(f"person is {person!r}, but must be median or a number from 0")
        self.folder, self.person = _folder(folder), person
        self._names = NamedFiles(self.folder, ".mat")

    def spec(self) -> dict[str, Any]:
        """Person, and names and sizes of the files."""
        return {"person": self.person, "files": self._names.digest}

    def propose(self, ref: ImageRef, rgb: np.ndarray | None) -> Iterator[Proposal]:
        """Regions of the chosen person, in the order of their numbers."""
        from scipy.io import loadmat

        path = self._names.file_for(ref)
        try:
            drawn = loadmat(path)["groundTruth"][0]
            maps = [np.asarray(one["Segmentation"][0, 0]) for one in drawn]
        # Corrupt files make scipy raise nearly anything; the image then has no regions for this reason.
        except Exception as error:
            raise RegionError(Status.CORRUPT, f"{path.name} is no ground truth of BSDS ({error})") from error
        if self.person != "median" and int(self.person) >= len(maps):
            raise RegionError(Status.MISSING, f"{path.name} has people 0 to {len(maps) - 1}, but not {self.person}")
        labels = maps[int(self.person)] if self.person != "median" else _median(maps)
        check_size(labels, ref)
        yield from regions_of_map(labels, OBJECT)


def _median(maps: list[np.ndarray]) -> np.ndarray:
    numbers = [len(np.unique(one)) for one in maps]
    return maps[sorted(range(len(maps)), key=lambda index: (numbers[index], index))[(len(maps) - 1) // 2]]


class MaskFolder(_Simple):
    """Masks as image files: a map ``NAME.png`` whose pixels are numbers of regions, or a folder ``NAME`` of masks.

    Files are gray or with a palette (whose indices count), 8 or 16 bits: 0 is outside, and in a map each other number
    is a region. In a folder, each file is one region.

    Args:
        folder: folder with a file or folder for each image of the pool, named as the image without its suffix.
    """

    name = "masks"

    def __init__(self, folder: Path | str):
        self.folder = _folder(folder)
        self._maps = NamedFiles(self.folder, ".png", (".tif", ".tiff", ".bmp"))

    def spec(self) -> dict[str, Any]:
        """Names and sizes of the files."""
        return {"files": self._maps.digest}

    def propose(self, ref: ImageRef, rgb: np.ndarray | None) -> Iterator[Proposal]:
        """Regions of the map, or of each file of the folder in the order of names."""
        below = self._maps.in_folder(PurePosixPath(name_of(ref.uri)).stem)
        for path in below:
            try:
                yield Proposal(encode(check_size(_read_map(path), ref)), OBJECT)
            except RegionError as error:
                yield refused(error, OBJECT)
        if not below:
            yield from regions_of_map(check_size(_read_map(self._maps.file_for(ref)), ref), OBJECT)


def _read_map(path: Path) -> np.ndarray:
    """Numbers of a mask file, int64 [H, W]."""
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(read_bytes(path)), formats=("PNG", "TIFF", "BMP")) as image:
            if image.width * image.height > DecodeLimits().max_pixels:
                raise RegionError(Status.TOO_LARGE, f"{path.name} has {image.width}x{image.height} pixels")
            if image.mode not in ("1", "L", "P", "I", "I;16"):
                raise RegionError(
                    Status.CORRUPT, f"{path.name} is a picture in mode {image.mode}: masks are gray or have a palette"
                )
            return np.array(image).astype(np.int64)
    except ImageError as error:
        raise RegionError(error.status, f"{path.name}: {error.reason}") from error
    except RegionError:
        raise
    except Exception as error:  # of a corrupt file, nearly anything
        raise RegionError(Status.CORRUPT, f"{path.name} cannot be read as a mask ({error})") from error


def check_size(mask: np.ndarray, ref: ImageRef) -> np.ndarray:
    """The same mask, if it has the size of the image.

    Raises:
        RegionError: CORRUPT.
    """
    if mask.shape != (ref.height, ref.width):
        shown = "x".join(str(side) for side in reversed(mask.shape))
        raise RegionError(Status.CORRUPT, f"the mask is {shown}, but the image {ref.width}x{ref.height}")
    return mask


class NamedFiles:
    """Files of a folder by their names without suffix."""

    def __init__(self, folder: Path, suffix: str, others: tuple[str, ...] = ()):
        accepted = (suffix, *others)
        self._folder, self._suffix = folder, suffix
        self._files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in accepted and path.is_file())
        if not self._files:
            raise PocketiqaError(f"{folder} holds no {', '.join(accepted)} file: name the folder of the masks")

    @property
    def digest(self) -> str:
        """Of names and sizes."""
        files = [(str(path.relative_to(self._folder)), path.stat().st_size) for path in self._files]
        return digest_of([[name.encode("utf-8", "backslashreplace").decode(), size] for name, size in files])

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        stems: dict[str, list[Path]] = {}
        for path in self._files:
            stems.setdefault(path.stem, []).append(path)
        return stems

    def file_for(self, ref: ImageRef) -> Path:
        """The file named as an image.

        Raises:
            RegionError: MISSING; there is none, or there are several.
        """
        stem = PurePosixPath(name_of(ref.uri)).stem
        matches = self._by_stem.get(stem, [])
        if len(matches) != 1:
            number = "no file" if not matches else f"{len(matches)} files"
            raise RegionError(Status.MISSING, f"{number} named {stem}{self._suffix} in {self._folder.name}")
        return matches[0]

    def in_folder(self, name: str) -> list[Path]:
        """Files in folders of this name, in order."""
        return self._by_parent.get(name, [])

    @cached_property
    def _by_parent(self) -> dict[str, list[Path]]:
        parents: dict[str, list[Path]] = {}
        for path in self._files:
            if path.parent != self._folder:
                parents.setdefault(path.parent.name, []).append(path)
        return parents


def _folder(folder: Path | str) -> Path:
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise PocketiqaError(f"{path} is no folder: name the folder that holds the masks")
    return path


def _count(value: int, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100_000:
        raise PocketiqaError(f"{name} is {value!r}, but must be a whole number from 1 to 100000")
    return value


SOURCES: Mapping[str, str] = {
    "grid": "cells of equal size, such as grid:4x3",
    "slic": "superpixels, such as slic:50",
    "boxes": "boxes or masks in a table or JSON file",
    "masks": "folder of mask files",
    "bsds": "folder of BSDS500's ground truth",
    "seagull": "JSON files of SEAGULL-100w",
    "sam": "masks by the Segment Anything Model, from a checkpoint",
}
"""What ``pocketiqa regions --by`` knows."""
