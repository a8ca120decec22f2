"""One clean image in, its row and those of its distorted copies out.

The copies (and the reference, where it was shrunk) are PNG files in a folder of their own, which is written aside and
renamed: it exists whole or not at all.
"""

import io
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from pseudo_labels import addresses
from pseudo_labels.crops import generator
from pseudo_labels.distort.catalogue import MIN_SIDE_PX, VERSION, distort
from pseudo_labels.distort.scale import LEVELS
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of, sha256_bytes, staged_folder
from pseudo_labels.fingerprints import fingerprint
from pseudo_labels.images import ImageError, decode, read_bytes
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef, RegionDistortion, Status, id_of, joined_distortions
from pseudo_labels.regions import masks

_STRATA = 5
# Two decimals name a file; levels closer than that look the same.
_DECIMALS = 2


Distortion = tuple[str, float]


@dataclass(frozen=True, slots=True)
class RegionMask:
    """Where a copy is distorted.

    Attributes:
        region: id of the region.
        height: of the image, pixels.
        width: of the image, pixels.
        counts: run lengths of the mask.
    """

    region: str
    height: int
    width: int
    counts: str

    def blended(
        self, clean: np.ndarray, distorted: np.ndarray, feather_px: float, *, onto: np.ndarray | None = None
    ) -> np.ndarray:
        """The clean image with the distorted pixels inside the mask.

        Args:
            clean: uint8 [H, W, 3].
            distorted: of the same shape.
            feather_px: width of the edge inside the mask along which the distortion grows to its full strength, in
                pixels; 0 has no such edge. Outside the mask every pixel stays as it is.
            onto: what lies outside the mask, such as a copy that is distorted in other regions; None is ``clean``.

        Raises:
            PocketiqaError: the image has another size than the mask.
        """
        if clean.shape[:2] != (self.height, self.width):
            raise masks.RegionError(
                Status.CORRUPT,
                f"region {self.region} is of {self.width}x{self.height}, but the image {clean.shape[1]}x"
                f"{clean.shape[0]}",
            )
        mask, outside = masks.decode(self.counts, self.height, self.width), clean if onto is None else onto
        if not feather_px:
            return np.where(mask[..., None], distorted, outside)
        # Distance to the nearest pixel outside; the edge of the image is no edge of the region.
        from scipy.ndimage import distance_transform_edt

        distance = np.asarray(distance_transform_edt(mask)) if not mask.all() else np.full(mask.shape, np.inf)
        weight = np.clip(distance / feather_px, 0, 1)[..., None]
        blend = np.floor(clean + weight * (distorted.astype(np.float64) - clean) + 0.5).astype(np.uint8)
        return np.where(mask[..., None], blend, outside)


def deal_regions(
    image_id: str, regions: Sequence[RegionMask], counts: Sequence[int], seed: int
) -> list[list[RegionMask]]:
    """The regions of each copy of an image: shuffled by seed and id, each again only when all had their turn.

    Args:
        image_id: id of the image.
        regions: its regions, in any order.
        counts: number of regions of each copy; an image that has fewer gives all of them.
        seed: seed of the order.
    """
    # In the order of their ids, so that the order of a manifest has no influence.
    by_id = {region.region: region for region in sorted(regions, key=lambda region: region.region)}
    deck = _Deck(list(by_id), generator("regions", seed, image_id))
    return [[by_id[name] for name in deck.drawn(min(count, len(by_id)))] for count in counts]


def plan(image_ids: Sequence[str], names: Sequence[str], per_image: int, seed: int) -> dict[str, list[Distortion]]:
    """For each image the (distortion, level) pairs of its distorted versions.

    Names are dealt like cards from decks that hold each once: over all images no name comes more than once more often
    than another, and one image gets a name twice only if ``per_image`` exceeds the number of names. Levels are
    continuous in [1, 5], with two decimals: of every five uses of a name, one falls into each fifth of that range. The
    order of ``image_ids`` has no influence.
    """
    deal = _Deck(names, generator("deck", seed))
    levels = {name: _levels(name, seed) for name in names}
    dealt = {}
    # By digest, so that the order of the images in their pool does not decide what each of them gets.
    for image_id in sorted(image_ids, key=lambda image_id: digest_of([seed, image_id])):
        pairs: list[Distortion] = []
        for name in deal.hand(per_image):
            level = next(levels[name])
            # The pair is the name of a file: twice the same would be one copy less.
            while (name, level) in pairs:
                level = next(levels[name])
            pairs.append((name, level))
        dealt[image_id] = pairs
    return {image_id: dealt[image_id] for image_id in image_ids}


class _Deck:
    """Names, shuffled again whenever all were dealt."""

    def __init__(self, names: Sequence[str], rng: np.random.Generator) -> None:
        self._names = list(names)
        self._rng = rng
        self._left: list[str] = []

    def drawn(self, size: int) -> list[str]:
        """The next ``size`` names, as different from each other as can be."""
        held: list[str] = []
        while len(held) < size:
            if not self._left:
                self._left = [self._names[i] for i in self._rng.permutation(len(self._names))]
                # What this hand holds already goes to the end of the new deck.
                self._left.sort(key=held.count)
            held.append(self._left.pop(0))
        return held

    def hand(self, size: int) -> list[str]:
        """As ``drawn``, equal names side by side."""
        return list(Counter(self.drawn(size)).elements())


def _levels(name: str, seed: int) -> Iterator[float]:
    rng = generator("levels", seed, name)
    while True:
        for stratum in rng.permutation(_STRATA):
            fraction = (stratum + rng.random()) / _STRATA
            yield float(np.round(1 + (LEVELS - 1) * fraction, _DECIMALS))


IMAGES = "images"
_REFERENCE = "reference"
_LONGEST_NAME = 60  # characters: file systems allow 255 bytes
# PNG level 1 takes a third of the time of the usual level 6, for files a tenth larger.
_PNG_LEVEL = 1


@dataclass(frozen=True)
class Task:
    """A clean image and what its copies are.

    Attributes:
        ref: the clean image.
        distortions: name and level of each distortion, copy after copy.
        regions: the regions of each copy, each with a distortion of its own; empty if the whole image is distorted.
        fault: why no copy can be made; empty if nothing is wrong.
    """

    ref: ImageRef
    distortions: list[Distortion]
    regions: list[list[RegionMask]] = field(default_factory=list)
    fault: str = ""

    @property
    def copies(self) -> list["Parts"]:
        """What is done to each copy."""
        if not self.regions:
            return [((name, level, None),) for name, level in self.distortions]
        left = iter(self.distortions)
        return [tuple((*next(left), region) for region in own) for own in self.regions]


Parts = tuple[tuple[str, float, RegionMask | None], ...]
"""Distortions of a copy: name, level and where; None is the whole image."""


@dataclass(frozen=True)
class Maker:
    """What every clean image of a synthetic pool is treated with; travels to worker processes.

    Attributes:
        pool: pool of the clean images.
        out: folder of the synthetic pool.
        seed: seed of its randomness.
        max_side: see ``shrunk_size``.
        feather_px: see ``RegionMask.blended``.
    """

    pool: Pool
    out: Path
    seed: int
    max_side: int | None
    feather_px: float = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker opens the pool for itself; its table is not sent. It may have another working folder.
        where = self.pool.folder.absolute(), self.out.absolute()
        return _reopen, (*where, (self.pool.digest, VERSION), self.seed, self.max_side, self.feather_px)

    def check_made(self, task: Task, rows: Sequence[ImageRef]) -> None:
        """Refuse copies that were made elsewhere and are not here.

        Raises:
            PocketiqaError: the folder of the clean image is not there.
        """
        if (
            any(row.status == Status.OK and row.ref_id for row in rows)
            and not (self.out / IMAGES / task.ref.id).is_dir()
        ):
            raise PocketiqaError(
                f"the copies of {task.ref.id} are not in {self.out}: the worker that made them sees another disk under "
                "this path; name a folder that all nodes share"
            )

    def make(self, task: Task) -> list[ImageRef]:
        """Rows of a clean image and its copies; the files are there afterwards, made now or by an earlier run.

        Raises:
            StorageFullError: the disk is full.
        """
        if task.fault:
            return self._without_region(task)
        rows = self._found(task)
        if rows is not None:
            return rows
        try:
            clean = shrink(self.pool.load(task.ref), self.max_side)
        except ImageError as error:
            return self._bad(task, error)
        return self._made(task, clean)

    def _found(self, task: Task) -> list[ImageRef] | None:
        """Rows from the files of an earlier run; None if they are not all there and readable."""
        ref = task.ref
        folder = self.out / IMAGES / ref.id
        if not folder.is_dir():
            return None
        try:
            encoded = [(name, read_bytes(folder / name)) for name in self._files(task)]
            # Decoded, because a row has the hash of the pixels: what cannot be decoded is made again.
            rows = [_row(data, decode(data), _uri(ref, name)) for name, data in encoded]
        except ImageError:
            return None
        return self._linked(task, rows)

    def _made(self, task: Task, clean: np.ndarray) -> list[ImageRef]:
        ref, rows = task.ref, []
        with staged_folder(self.out / IMAGES / ref.id) as staged:
            for name, number in self._files(task).items():
                rgb = clean if number is None else self._copy(task, number, clean)
                data = _png(rgb)
                (staged / name).write_bytes(data)
                rows.append(_row(data, rgb, _uri(ref, name)))
        return self._linked(task, rows)

    def _copy(self, task: Task, number: int, clean: np.ndarray) -> np.ndarray:
        copy = clean
        for name, level, region in task.copies[number]:
            rgb = distort(clean, name, level, seed=self.seed, image_id=task.ref.id)
            copy = rgb if region is None else region.blended(clean, rgb, self.feather_px, onto=copy)
        return copy

    def _files(self, task: Task) -> dict[str, int | None]:
        """What each file holds: the number of a copy; None is the reference."""
        copies = {name: number for number, name in enumerate(_file_names(task))}
        return {_reference_name(task.ref, copies): None, **copies} if self._is_shrunk(task.ref) else {**copies}

    def _is_shrunk(self, ref: ImageRef) -> bool:
        return shrunk_size(ref.width, ref.height, self.max_side) != (ref.width, ref.height)

    def _linked(self, task: Task, rows: list[ImageRef]) -> list[ImageRef]:
        """Bare rows of files, given their group, reference, distortion, level and region."""
        ref = task.ref
        reference, copies = (rows[0], rows[1:]) if self._is_shrunk(ref) else (self._moved(ref), rows)
        linked = [
            replace(row, group=ref.group, ref_id=reference.id, **_fields(parts))
            for row, parts in zip(copies, task.copies, strict=True)
        ]
        return [replace(reference, group=ref.group), *linked]

    def _bad(self, task: Task, error: ImageError) -> list[ImageRef]:
        reason = f"not made, its reference is {error.status.value}: {error.reason}"
        clean = replace(self._moved(task.ref), status=error.status, reason=error.reason)
        return [clean, *self._not_made(task, Status.NO_REFERENCE, reason)]

    def _without_region(self, task: Task) -> list[ImageRef]:
        return [self._moved(task.ref), *self._not_made(task, Status.DROPPED, f"not made: {task.fault}")]

    def _not_made(self, task: Task, status: Status, reason: str) -> list[ImageRef]:
        ref, rows = task.ref, []
        for file_name, parts in zip(_file_names(task), task.copies, strict=True):
            uri = _uri(ref, file_name)
            bare = ImageRef(id_of(sha256_bytes(uri.encode())), uri, status=status, reason=reason)
            rows.append(replace(bare, group=ref.group, ref_id=ref.id, **_fields(parts)))
        return rows

    def _moved(self, ref: ImageRef) -> ImageRef:
        """The clean image's row with an address that holds in any folder."""
        path = addresses.local_path(ref.uri, self.pool.folder)
        return ref if path is None else replace(ref, uri=addresses.of_path(path))


def _reopen(
    folder: Path, out: Path, wanted: tuple[str, int], seed: int, max_side: int | None, feather_px: float
) -> Maker:
    pool = Pool.open(folder)
    # On another machine the path may be another pool's, and the package another one.
    if (pool.digest, VERSION) != wanted:
        raise PocketiqaError(
            f"a worker sees the pool {pool.digest[:12]} under {folder} and has distortions of version {VERSION}, but "
            f"the pool {wanted[0][:12]} and version {wanted[1]} are needed: share the folder, and install one "
            "pocketiqa everywhere"
        )
    return Maker(pool, out, seed, max_side, feather_px)


def _fields(parts: Parts) -> dict[str, Any]:
    """What the row of a copy says of it."""
    return joined_distortions(
        [RegionDistortion("" if region is None else region.region, name, level) for name, level, region in parts]
    )


def _file_names(task: Task) -> list[str]:
    names = []
    for number, parts in enumerate(task.copies):
        name, level, region = parts[0]
        one = f"{name}-{level:.2f}" if region is None else f"{name}-{level:.2f}-{region.region}"
        # Of several regions, all names and ids would be longer than a file name can be.
        names.append(f"{one}.png" if len(parts) == 1 else f"{number:02d}-{len(parts)}_regions.png")
    return names


def _reference_name(ref: ImageRef, taken: Collection[str]) -> str:
    """Like the file that the clean image came from, so that a person knows it again."""
    stem = PurePath(addresses.name_of(ref.uri)).stem
    plain = re.sub(r"[^\w.-]+", "_", stem).strip("._")[:_LONGEST_NAME]
    name = f"{plain or _REFERENCE}.png"
    return f"{_REFERENCE}.png" if name in taken else name


def _uri(ref: ImageRef, file_name: str) -> str:
    return f"{IMAGES}/{ref.id}/{file_name}"


def _row(data: bytes, rgb: np.ndarray, uri: str) -> ImageRef:
    digest = sha256_bytes(data)
    return ImageRef(
        id=id_of(digest),
        uri=uri,
        sha256=digest,
        dhash=fingerprint(rgb).dhash,
        bytes=len(data),
        width=rgb.shape[1],
        height=rgb.shape[0],
    )


def _png(rgb: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, "PNG", compress_level=_PNG_LEVEL)
    return data.getvalue()


def shrunk_size(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    """Size with the longer side at most ``max_side``, aspect kept; never enlarged, no side below 64 pixels by it."""
    if max_side is None or max(width, height) <= max_side or min(width, height) <= MIN_SIDE_PX:
        return width, height
    scale = max(max_side / max(width, height), MIN_SIDE_PX / min(width, height))
    return math.floor(width * scale + 0.5), math.floor(height * scale + 0.5)


def shrink(rgb: np.ndarray, max_side: int | None) -> np.ndarray:
    """The image at ``shrunk_size``, by Lanczos after a whole-number box reduction."""
    size = shrunk_size(rgb.shape[1], rgb.shape[0], max_side)
    if size == (rgb.shape[1], rgb.shape[0]):
        return rgb
    return np.array(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))
