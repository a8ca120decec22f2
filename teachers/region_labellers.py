"""Who labels regions: by comparison with clean images, by crops, by a teacher of regions, or as annotated.

Four kinds of teacher are named on the command line:

* ``reference``, or any other teacher that compares an image with its clean original. Quality is the score of the
  region's patch against the clean patch. Importance is what the region alone costs the whole image: 1 minus the score
  of the clean image with only this region replaced by the labelled image's pixels. (Recipe of SEAGULL-100w: Chen et al.
  2024, arXiv 2411.10161.) The store scales importance to the range of the pool.
* ``crop:TEACHER``: any teacher of whole images, on the region's crop; no importance.
* a teacher with ``score_regions`` (``base.RegionTeacher``), such as ``seagull``.
* ``annotated``: what the source of the regions states, such as a benchmark with ratings of regions.

**Patches** are the box around a region, grown to 64 pixels where it is smaller. ``patch="box"`` compares all of it, as
SEAGULL-100w does. ``patch="masked"`` gives both images the clean pixels outside the region, so that a distorted
neighbour in the same box costs nothing: an untouched region has quality 1. ``auto`` takes masked patches for images
that are distorted in one region (``pocketiqa distort --regions``), and boxes for all others.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pseudo_labels.distort.catalogue import LEVELS, MIN_SIDE_PX
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import DecodeLimits, ImageError
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef, PseudoLabel, Status, TeacherStamp, confidence
from pseudo_labels.regions.masks import Box, covered, grown
from pseudo_labels.regions.store import NAN, Region, RegionLabel
from teachers.base import RegionTeacher
from teachers.batched import Predictor, Warn
from teachers.launch import is_out_of_memory, release_memory
from teachers.reading import Prepared, Preparer
from teachers.registry import build_teacher

ANNOTATED, CROP = "annotated", "crop:"
# A region of which at least this much is distorted has the type and the severity of the distortion.
_DISTORTED = 0.5


@dataclass(frozen=True)
class RegionWork:
    """A row of the pool with its regions.

    Attributes:
        ref: row of the pool.
        regions: the regions to be labelled.
        rows: labels that need no teacher: regions that cannot be used, or the image without any.
    """

    ref: ImageRef
    regions: list[Region]
    rows: list[RegionLabel]


def without_label(ref: ImageRef, region: str, status: Status, reason: str) -> RegionLabel:
    """Row of a region, or of an image, that has no label."""
    return RegionLabel(ref.id, region, Status(status), reason, confidence=0.0)


@dataclass(frozen=True)
class LoadedImage:
    """Regions of a row with its pixels, or why there are none."""

    work: RegionWork
    image: np.ndarray | None = None
    reference: np.ndarray | None = None
    fault: tuple[Status, str] | None = None


class Labeller(ABC):
    """What the four kinds have in common. Pixels are loaded in threads, and scored in the main thread."""

    mode = ""
    scale_importance = False
    batched = False
    """Whether several crops go into one call of the teacher, and rows say how many."""

    def __init__(self, stamp: TeacherStamp, teacher: Any, pool: Pool, limits: DecodeLimits):
        self.stamp, self.teacher = stamp, teacher
        self._pool, self._limits = pool, limits

    def to(self, device: torch.device) -> None:
        """Compute on this device from now on."""
        self.teacher.to(device)

    def options(self) -> dict[str, Any]:
        """What determines the labels besides the teacher, as JSON values."""
        return {}

    def begin(self, batch_size: int, warn: Warn) -> None:  # noqa: B027 - a hook that most kinds do not need
        """Called once, before the first shard."""

    def load(self, work: RegionWork) -> LoadedImage:
        """Decode an image, and its reference if the teacher compares."""
        if not work.regions:
            return LoadedImage(work)
        try:
            return LoadedImage(work, *self._pixels(work.ref))
        except ImageError as error:
            return LoadedImage(work, fault=(error.status, error.reason))
        except MemoryError:
            return LoadedImage(work, fault=(Status.FAILED, "out of memory while decoding"))

    def _pixels(self, ref: ImageRef) -> tuple[np.ndarray, np.ndarray | None]:
        return self._pool.load(ref, self._limits), None

    @abstractmethod
    def label(self, images: Iterator[LoadedImage], regions: int, step: Callable[[int], None]) -> list[RegionLabel]:
        """Rows of a shard.

        Args:
            images: its images with their pixels, in order.
            regions: number of regions of all of them.
            step: called with images done.
        """


class _Annotated(Labeller):
    """Labels that the source of the regions states; no pixels, no teacher."""

    mode = ANNOTATED

    def __init__(self):
        self.stamp = TeacherStamp(ANNOTATED, 1, "none", scale="0 worst, 1 best, as the source of the regions states it")

    def to(self, device: torch.device) -> None:
        """Nothing to move."""

    def load(self, work: RegionWork) -> LoadedImage:
        """No pixels."""
        return LoadedImage(work)

    def label(self, images: Iterator[LoadedImage], regions: int, step: Callable[[int], None]) -> list[RegionLabel]:
        """What is stated; a region without a quality is a row that says so."""
        rows: list[RegionLabel] = []
        for loaded in images:
            rows += loaded.work.rows
            for region in loaded.work.regions:
                if math.isnan(region.quality):
                    reason = f"the source of the regions ({region.source}) states no quality"
                    rows.append(without_label(loaded.work.ref, region.region, Status.FAILED, reason))
                else:
                    rows.append(
                        RegionLabel(
                            loaded.work.ref.id, region.region, quality=region.quality, importance=region.importance,
                            type=region.distortion, severity=region.severity,
                        )
                    )  # fmt: skip
            step(1)
        return rows


class _ByRegions(Labeller):
    """A teacher with ``score_regions``."""

    mode = "regions"

    def label(self, images: Iterator[LoadedImage], regions: int, step: Callable[[int], None]) -> list[RegionLabel]:
        """The teacher's answers, image by image."""
        rows: list[RegionLabel] = []
        for loaded in images:
            rows += loaded.work.rows
            if loaded.work.regions:
                rows += self._scored(loaded)
            step(1)
        return rows

    def _scored(self, loaded: LoadedImage) -> list[RegionLabel]:
        ref, own = loaded.work.ref, loaded.work.regions
        if loaded.fault or loaded.image is None:
            fault = loaded.fault or (Status.FAILED, "not loaded")
            return [without_label(ref, region.region, *fault) for region in own]
        try:
            answers = list(self.teacher.score_regions(loaded.image, (region.mask() for region in own)))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = f"out of memory with {len(own)} regions"
        except PocketiqaError as error:
            reason = str(error)
        else:
            if len(answers) != len(own):
                raise PocketiqaError(
                    f"teacher {self.stamp.name!r} gave {len(answers)} answers for {len(own)} regions: one for each is "
                    "needed"
                )
            return [self._row(ref, region, answer) for region, answer in zip(own, answers, strict=True)]
        release_memory()
        return [without_label(ref, region.region, Status.FAILED, reason) for region in own]

    def _row(self, ref: ImageRef, region: Region, answer: Any) -> RegionLabel:
        names = ("quality", "importance", "severity")
        values: dict[str, Any] = {name: _number(getattr(answer, name, NAN)) for name in names}
        spreads: dict[str, Any] = {f"{name}_std": _number(getattr(answer, f"{name}_std", NAN)) for name in names}
        status = Status(getattr(answer, "status", Status.OK))
        if status != Status.OK or math.isnan(values["quality"]):
            reason = getattr(answer, "reason", "") or "the teacher gave no finite quality"
            return without_label(ref, region.region, Status.FAILED if status == Status.OK else status, reason)
        outside = {name: value for name, value in values.items() if not (math.isnan(value) or 0 <= value <= 1)}
        if outside or any(spread < 0 for spread in spreads.values()):
            raise PocketiqaError(
                f"teacher {self.stamp.name!r} gave {outside or spreads}: values in [0, 1] and spreads of at least 0 "
                "are needed; map its scale in the teacher"
            )
        type_name = str(getattr(answer, "type", "") or "")
        weight = confidence(spreads["quality_std"])
        return RegionLabel(ref.id, region.region, type=type_name, confidence=weight, **values, **spreads)


def _number(value: Any) -> float:
    number = NAN if value is None else float(value)
    return number if math.isfinite(number) else NAN


class _ByCrops(Labeller):
    """A teacher of whole images on crops: several items a region go through ``Predictor``, as images do."""

    mode = "crop"
    batched = True
    items = 1
    """Items of the teacher for each region."""

    def __init__(self, stamp: TeacherStamp, teacher: Any, pool: Pool, limits: DecodeLimits):
        super().__init__(stamp, teacher, pool, limits)
        self._preparer = Preparer(pool, teacher, limits)

    def _pixels(self, ref: ImageRef) -> tuple[np.ndarray, np.ndarray | None]:
        return self._preparer.load(ref)

    def begin(self, batch_size: int, warn: Warn) -> None:
        """Make the one predictor of all shards, whose batch size shrinks for good."""
        self._predictor = Predictor(self.teacher, batch_size=batch_size, features=(), warn=warn)

    def label(self, images: Iterator[LoadedImage], regions: int, step: Callable[[int], None]) -> list[RegionLabel]:
        """Quality of each crop."""
        works: list[RegionWork] = []
        labels, _ = self._predictor.shard(
            self._prepared(images, works, step), self.items * regions, step=lambda _number: None
        )
        rows: list[RegionLabel] = []
        scored = iter(labels)
        for work in works:
            rows += work.rows
            for region in work.regions:
                rows.append(self._row(work, region, [next(scored) for _ in range(self.items)]))
        return rows

    def _prepared(
        self, images: Iterator[LoadedImage], works: list[RegionWork], step: Callable[[int], None]
    ) -> Iterator[Prepared]:
        for loaded in images:
            works.append(loaded.work)
            for region in loaded.work.regions:
                # One by one: composed images of all regions at once would be many times the image.
                yield from self._items(loaded, region)
            step(1)

    def _items(self, loaded: LoadedImage, region: Region) -> Iterator[Prepared]:
        image, reference = loaded.image, loaded.reference
        if loaded.fault or image is None:
            status, reason = loaded.fault or (Status.FAILED, "not loaded")
            yield from [Prepared(loaded.work.ref, None, status, reason)] * self.items
            return
        try:
            pairs = list(self._pairs(loaded.work.ref, region, image, reference))
        except PocketiqaError as error:
            yield from [Prepared(loaded.work.ref, None, Status.FAILED, str(error))] * self.items
            return
        for pair in pairs:
            yield self._item(loaded.work.ref, *pair)

    def _item(self, ref: ImageRef, image: np.ndarray, reference: np.ndarray | None) -> Prepared:
        try:
            return Prepared(ref, self.teacher.preprocess(np.ascontiguousarray(image), reference))
        except ImageError as error:
            return Prepared(ref, None, error.status, error.reason)
        except PocketiqaError as error:
            return Prepared(ref, None, Status.FAILED, str(error))

    def _pairs(
        self, ref: ImageRef, region: Region, image: np.ndarray, reference: np.ndarray | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Image and reference of each item of a region."""
        box = grown(region.box, region.height, region.width, least=MIN_SIDE_PX)
        yield _cut(image, box), None if reference is None else _cut(reference, box)

    def _row(self, work: RegionWork, region: Region, labels: Sequence[PseudoLabel]) -> RegionLabel:
        quality = labels[0]
        if quality.status != Status.OK:
            return without_label(work.ref, region.region, quality.status, quality.reason)
        row = RegionLabel(work.ref.id, region.region, quality=quality.score, quality_std=quality.score_std)
        return replace(row, confidence=quality.confidence, batch=min(label.batch for label in labels))


class _Comparing(_ByCrops):
    """A teacher that compares with the clean image: quality of the patch, and what the region costs the image."""

    mode = "reference"
    items = 2
    scale_importance = True

    def __init__(self, stamp: TeacherStamp, teacher: Any, pool: Pool, *, limits: DecodeLimits, patch: str):
        super().__init__(stamp, teacher, pool, limits)
        self._patch = patch

    def options(self) -> dict[str, Any]:
        """How patches are cut."""
        return {"patch": self._patch}

    def _pairs(
        self, ref: ImageRef, region: Region, image: np.ndarray, reference: np.ndarray | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        if reference is None or image.shape != reference.shape:
            shape = None if reference is None else reference.shape
            raise PocketiqaError(f"image {ref.id} is {image.shape}, its clean original {shape}: equal sizes are needed")
        # The clean image with the pixels of this region alone taken from the labelled one.
        composed = np.where(region.mask()[..., None], image, reference)
        masked = self._patch == "masked" or (self._patch == "auto" and bool(ref.region))
        box = grown(region.box, region.height, region.width, least=MIN_SIDE_PX)
        yield _cut(composed if masked else image, box), _cut(reference, box)
        yield composed, reference

    def _row(self, work: RegionWork, region: Region, labels: Sequence[PseudoLabel]) -> RegionLabel:
        row = super()._row(work, region, labels)
        if row.status != Status.OK:
            return row
        whole = labels[1]
        if whole.status != Status.OK:
            return without_label(work.ref, region.region, whole.status, f"importance: {whole.reason}")
        row = replace(row, importance=1 - whole.score, importance_std=whole.score_std)
        return replace(row, **_done_to(work, region))


def _done_to(work: RegionWork, region: Region) -> dict[str, Any]:
    """Type and severity of what the pool says was done to a region."""
    ref = work.ref
    if not ref.region:
        return _done(ref.distortion, ref.level)
    counts_of = {one.region: one.counts for one in work.regions}
    done = [one for one in ref.distorted_regions if one.region in counts_of]
    if not done:
        return {}
    # A region that was itself distorted first: others may overlap it.
    done.sort(key=lambda one: one.region != region.region)
    for one in done:
        if covered(region.counts, counts_of[one.region], region.height, region.width) >= _DISTORTED:
            return _done(one.distortion, one.level)
    return {"severity": 0.0}


def _done(distortion: str, level: float) -> dict[str, Any]:
    return {"type": distortion, "severity": min(1.0, level / LEVELS)}


def labeller_named(name: str, options: Mapping[str, Any], pool: Pool, *, limits: DecodeLimits, patch: str) -> Labeller:
    """The labeller that a name on the command line means.

    Args:
        name: see the module.
        options: options of the teacher.
        pool: pool to be labelled.
        limits: limits of decoding.
        patch: ``auto``, ``box`` or ``masked``.

    Raises:
        PocketiqaError: the teacher is not known, or cannot label regions of this pool.
    """
    if name == ANNOTATED:
        if options:
            raise PocketiqaError(f"--teacher {ANNOTATED} takes no options, but {sorted(options)} were given")
        return _Annotated()
    teacher = build_teacher(name.removeprefix(CROP), **options)
    if name.startswith(CROP):
        if not callable(teacher):
            raise PocketiqaError(f"{name!r}: this teacher labels regions, not images: leave {CROP!r} out")
        _need_references(teacher, pool)
        return _ByCrops(teacher.stamp, teacher, pool, limits)
    if isinstance(teacher, RegionTeacher):
        return _ByRegions(teacher.stamp, teacher, pool, limits)
    if teacher.needs_reference:
        _need_references(teacher, pool)
        return _Comparing(teacher.stamp, teacher, pool, limits=limits, patch=patch)
    raise PocketiqaError(
        f"teacher {name!r} scores whole images: give {CROP}{name} to score the crops of regions, or a teacher that "
        "compares (reference) or scores regions (seagull)"
    )


def _need_references(teacher: Any, pool: Pool) -> None:
    if teacher.needs_reference and not pool.reference_ids:
        raise PocketiqaError(
            f"teacher {teacher.stamp.name!r} compares images with their clean originals, but the pool {pool.folder} "
            "has no distorted images: make one with 'pocketiqa distort --regions' and label that"
        )


def _cut(image: np.ndarray, box: Box) -> np.ndarray:
    left, top, width, height = box
    return np.ascontiguousarray(image[top : top + height, left : left + width])
