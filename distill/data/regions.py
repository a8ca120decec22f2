"""Labels of regions that a student learns: of each image of a pool the masks, with quality and importance."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill.evaluation.regions import RegionTargets
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef, Status, TeacherStamp
from pseudo_labels.regions.masks import Box, Cells, decode, inner_of
from pseudo_labels.regions.store import RegionLabelStore, RegionSet


@dataclass(frozen=True)
class ImageRegions:
    """The labelled regions of one image.

    Attributes:
        names: ids of the regions.
        counts: their masks, COCO's compressed run lengths.
        height: of image and masks, pixels.
        width: of image and masks, pixels.
        quality: float32 [R] in [0, 1], 1 best.
        importance: float32 [R] in [0, 1]; NaN where the teacher gives none.
        confidence: float32 [R] in (0, 1].
        severity: float32 [R] of the distortion, in [0, 1]; 0 of an untouched region, NaN where it is not known.
        distorted: id of the region that alone is distorted; empty where the whole image is, several are, or none.
        types: distortion that the teacher names in each; empty where it names none, or there is none.
    """

    names: tuple[str, ...]
    counts: tuple[str, ...]
    height: int
    width: int
    quality: np.ndarray
    importance: np.ndarray
    confidence: np.ndarray
    severity: np.ndarray
    distorted: str = ""
    types: tuple[str, ...] = ()

    def masks(self) -> Iterator[np.ndarray]:
        """The masks one by one, bool [height, width]: thousands at once would not fit in memory."""
        return (decode(text, self.height, self.width) for text in self.counts)


class RegionTable:
    """Labels of the regions of a pool, with their masks.

    Args:
        pool: pool that was labelled.
        regions: finished manifest of regions of the pool, or of the one that its images are distorted copies of.
        labels: finished store of labels of these regions.

    Raises:
        PocketiqaError: the labels are of another pool or other regions, or no region has a label.
    """

    def __init__(self, pool: Pool, regions: RegionSet, labels: RegionLabelStore):
        spec = labels.manifest.spec
        for what, made_of, given in (("pool", pool.digest, pool.folder), ("regions", regions.digest, regions.folder)):
            if spec[what] != made_of:
                raise PocketiqaError(
                    f"the labels in {labels.folder} are not of the {what} in {given}: make them with pocketiqa "
                    "label-regions"
                )
        self.teacher: TeacherStamp = TeacherStamp(**labels.teacher)
        self.digest = digest_of([regions.digest, labels.digest])
        # A teacher that compares takes the type from the pool: it is no answer of its own.
        self.names_types: bool = spec.get("mode") != "reference"
        self._pool, self._regions, self._labels = pool, regions, labels
        # Masks stay as run lengths, some hundred bytes each.
        self._rows = {row: made for row, ref in enumerate(pool) if (made := self._of(ref)) is not None}
        if not self._rows:
            raise PocketiqaError(f"no region in {labels.folder} has a label: see the reasons in its rows")

    @classmethod
    def open(cls, pool: Pool, regions: Path, labels: Path) -> "RegionTable":
        """The same from the folders."""
        return cls(pool, RegionSet.open(regions), RegionLabelStore.open(labels))

    @property
    def rows(self) -> list[int]:
        """Positions in the pool of the images that have labelled regions."""
        return list(self._rows)

    def at(self, row: int) -> ImageRegions | None:
        """The regions of a row of the pool; None where it has none with a label."""
        return self._rows.get(row)

    def _of(self, ref: ImageRef) -> ImageRegions | None:
        if ref.status != Status.OK:
            return None
        masks = {one.region: one for id in (ref.id, ref.ref_id) for one in self._regions.regions_of(id)}
        good = [
            label
            for label in self._labels.of_image(ref.id)
            if label.status == Status.OK and label.confidence > 0 and label.region in masks
        ]
        if not good:
            return None
        names = ("quality", "importance", "confidence", "severity")
        columns = {name: np.array([getattr(one, name) for one in good], np.float32) for name in names}
        return ImageRegions(
            tuple(one.region for one in good), tuple(masks[one.region].counts for one in good), ref.height, ref.width,
            distorted=ref.region if len(ref.distorted_regions) == 1 else "",
            types=tuple(one.type for one in good), **columns,
        )  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """What a map shows of an image.

    Attributes:
        map_size: rows and columns of the map.
        stride: side of a cell, pixels of the resized image.
        resized: height and width of the resized image.
        crop: left, top, width and height of what the network sees, in pixels of the resized image.
        flip: whether that is mirrored left and right.
    """

    map_size: tuple[int, int]
    stride: int
    resized: tuple[int, int]
    crop: Box
    flip: bool = False

    def pooled(self, mask: np.ndarray) -> np.ndarray:
        """Fraction of each cell's part of the image that lies inside a mask, float32 of ``map_size``.

        As the runtime pools masks (``masks.Cells.fractions``).

        Args:
            mask: bool [H, W], of the image before it was resized.
        """
        # Mirrored as the pixels are.
        box, inner = inner_of(mask[:, ::-1] if self.flip else mask)
        return self._cells(mask.shape).fractions(box, inner).astype(np.float32)

    def inside(self) -> np.ndarray:
        """1 for each cell that shows a part of the image, 0 for one of padding alone: float32 of ``map_size``."""
        return (self._cells((1, 1)).of_image > 0).astype(np.float32)

    def _cells(self, image: tuple[int, ...]) -> Cells:
        left, top, width, height = self.crop
        if self.flip:
            # The crop lies as far from the right as it did from the left.
            left = self.resized[1] - left - width
        return Cells(image, self.map_size, resized=self.resized, stride=self.stride, crop=(left, top, width, height))

    def whole(self) -> bool:
        """Whether all of the image is shown."""
        return self.crop == (0, 0, self.resized[1], self.resized[0])


class RegionArrays(NamedTuple):
    """The regions of the images of a batch, one row a region.

    Attributes:
        overlap: float32 [R, h, w], fraction of each cell's part of the image that lies in the region.
        image: int64 [R], which image of the batch.
        quality: float32 [R] in [0, 1].
        importance: float32 [R] in [0, 1]; 0 where there is none.
        weight: float32 [R], confidence with a mean of about 1 over the run, times the fraction of the region that is
            shown.
        importance_weight: float32 [R], the same; 0 where no importance can be learned.
        inside: float32 [B, h, w], 1 for cells that show some of the image, 0 for padding alone.
    """

    overlap: np.ndarray
    image: np.ndarray
    quality: np.ndarray
    importance: np.ndarray
    weight: np.ndarray
    importance_weight: np.ndarray
    inside: np.ndarray


class RegionReader:
    """Regions of the images that a batch shows.

    Args:
        tables: of each source; None for one without regions.
        rows: source and position in its pool of every training image: their confidences are scaled to a mean of 1.

    Raises:
        PocketiqaError: no training image has a labelled region.
    """

    def __init__(self, tables: Sequence[RegionTable | None], rows: Sequence[tuple[int, int]]):
        self._tables = tables
        confidences = [made.confidence for source, row in rows if (made := self._at(source, row)) is not None]
        if not confidences:
            raise PocketiqaError("no training image has a labelled region: name regions and region_labels of a source")
        self._scale = 1 / float(np.concatenate(confidences).mean())
        # Whole images come again and again, in two versions with flips; crops hardly ever.
        self._whole = lru_cache(maxsize=4096)(self._pooled)

    def _at(self, source: int, row: int) -> ImageRegions | None:
        table = self._tables[source]
        return None if table is None else table.at(row)

    def has_regions(self, source: int, row: int) -> bool:
        """Whether an image has labelled regions: ``row`` is its position in the pool of the source."""
        return self._at(source, row) is not None

    def _pooled(self, source: int, row: int, shown: Shown) -> np.ndarray:
        regions = self._at(source, row)
        assert regions is not None, "asked for images with regions alone"
        return np.stack([shown.pooled(mask) for mask in regions.masks()])

    def read(self, images: Sequence[tuple[int, int, Shown]]) -> RegionArrays:
        """Regions of a batch.

        Args:
            images: source, position in its pool, and what is shown, of each image; all with one size of map.
        """
        inside = np.stack([shown.inside() for _, _, shown in images])
        # Empty arrays first, so that a batch without any region is one of none.
        overlaps, none = np.zeros((0, *inside.shape[1:]), np.float32), np.zeros(0, np.float32)
        columns = [[overlaps], [none.astype(np.int64)], *([none] for _ in range(4))]
        for number, (source, row, shown) in enumerate(images):
            regions = self._at(source, row)
            if regions is None:
                continue
            overlap = (self._whole if shown.whole() else self._pooled)(source, row, shown)
            weight = regions.confidence * np.float32(self._scale) * _visible(regions, shown)
            # Fractions of the weights add up to 1: equal importances, such as 0 of all regions of a clean image, say
            # nothing about how the weights are distributed.
            known = np.isfinite(regions.importance)
            says = shown.whole() and known.any() and np.ptp(regions.importance[known]) > _NO_SPREAD
            made = (
                overlap, np.full(len(overlap), number), regions.quality, np.where(known, regions.importance, 0), weight,
                np.where(known & says, weight, 0),
            )  # fmt: skip
            for column, values in zip(columns, made, strict=True):
                column.append(values)
        overlap, image, *rest = (np.concatenate(column) for column in columns)
        return RegionArrays(overlap, image, *(values.astype(np.float32) for values in rest), inside=inside)


_NO_SPREAD = 1e-6


def _visible(regions: ImageRegions, shown: Shown) -> np.ndarray:
    """Fraction of each region that lies in the crop, float32 [R]."""
    if shown.whole():
        return np.ones(len(regions.names), np.float32)
    left, top, width, height = shown.crop
    # One cell for each pixel of the resized image: what of it lies in the crop.
    pixels = Cells((regions.height, regions.width), shown.resized)
    fractions = []
    for mask in regions.masks():
        overlap = pixels.overlap(*inner_of(mask))
        fractions.append(overlap[top : top + height, left : left + width].sum() / overlap.sum())
    return np.array(fractions, np.float32)


def region_targets(table: RegionTable, pool: Pool, rows: Sequence[int]) -> RegionTargets:
    """Labels of the regions of some images of a pool, for ``evaluation.regions``.

    Raises:
        PocketiqaError: none of the images has labelled regions.
    """
    labelled = [(pool[row], regions) for row in rows if (regions := table.at(row)) is not None]
    if not labelled:
        raise PocketiqaError(f"none of the {len(rows)} images has labelled regions: there is nothing to evaluate on")
    return RegionTargets(
        [ref.id for ref, regions in labelled for _ in regions.names],
        [ref.group or ref.id for ref, regions in labelled for _ in regions.names],
        quality=np.concatenate([regions.quality for _, regions in labelled]).astype(np.float64),
        importance=np.concatenate([regions.importance for _, regions in labelled]).astype(np.float64),
        distorted=np.array([name == regions.distorted for _, regions in labelled for name in regions.names], np.bool_),
        # Of images that are distorted as a whole, nothing is known of one region that is not true of all.
        distortion=[
            distortion_in(ref, name)[0] if ref.region else "" for ref, regions in labelled for name in regions.names
        ],
    )


def distortion_in(ref: ImageRef, region: str) -> tuple[str, float]:
    """Name and level of what the pool says was done to a region of an image; an empty name and 0 for nothing."""
    if not ref.region:
        return ref.distortion, ref.level
    done = {one.region: (one.distortion, one.level) for one in ref.distorted_regions}
    return done.get(region, ("", 0.0))
