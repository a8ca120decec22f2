"""Settings of the stages around training; each section of a recipe is one of these models."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from distill.recipe.settings import Settings
from pseudo_labels.crops import RandomCrops
from pseudo_labels.defaults import (
    CROP_LARGEST,
    CROP_SMALLEST,
    DISTORTED_PER_IMAGE,
    DISTORTION_NAMES,
    LABEL_BATCH_SIZE,
    LABEL_THREADS,
    MAX_BAD_FRACTION,
    MAX_NEAR_DUPLICATE_DISTANCE,
    MAX_OUTLIER,
    MAX_REGION_AREA,
    MAX_REGION_OVERLAP,
    MAX_REGIONS,
    MIN_CONFIDENCE,
    MIN_REGION_AREA,
    NEAR_DUPLICATE_COSINE,
    NEAR_DUPLICATE_DISTANCE,
    SEED,
)
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.fusion.keep import KeepRule

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]

SplitName = Literal["test", "validation", "train", "all"]

_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})", re.ASCII)
_TWO_FORMS = (
    "a source is either 'pool' and 'labels', or 'ratings: NAME:FOLDER' with 'features' if wanted; 'split', 'subsets', "
    "'images' and 'without_fold' choose among the ratings, or with all three, labels of only the rated images"
)


def expanded(path: str) -> str:
    """A path, or ``NAME:PATH``, with ``~`` and ``$VARIABLE`` replaced; what exists as it is written stays as it is.

    Recipes are expanded when they are used, not when they are read: a recipe with a variable can be read where the
    variable is not set.

    Raises:
        PocketiqaError: a variable is not set.
    """
    if os.path.lexists(path):
        return path
    unset = [name for pair in _VARIABLE.findall(path) if (name := "".join(pair)) not in os.environ]
    if unset:
        raise PocketiqaError(f"the variable ${unset[0]} in {path!r} is not set: set it, or write the path out")
    # "~" is replaced only at the beginning of a text: NAME and PATH are expanded one by one.
    return ":".join(map(os.path.expanduser, os.path.expandvars(path).split(":", 1)))


class PoolSection(Settings):
    """The photographs, and what counts as one scene.

    Attributes:
        sources: folders and files as for ``pocketiqa pool``; ``bundled:photographs`` are those that scikit-image,
            scikit-learn and matplotlib install, and a benchmark, as for ``pocketiqa evaluate --on``, gives the
            photographs of its train part.
        near_duplicate_distance: dHash bits, of 64, up to which two images are one scene.
        max_bad_fraction: fraction of bad files above which the run fails.
    """

    RENAMED = {"near_distance": "near_duplicate_distance", "max_bad_share": "max_bad_fraction"}

    sources: Annotated[list[str], Field(min_length=1)]
    near_duplicate_distance: Annotated[int, Field(ge=0, le=MAX_NEAR_DUPLICATE_DISTANCE)] = NEAR_DUPLICATE_DISTANCE
    max_bad_fraction: Fraction = MAX_BAD_FRACTION


class DistortSection(Settings):
    """Synthetic distortions of the pool.

    Attributes:
        names: groups ``kadid``, ``camera``, ``all`` (those two) or ``waterloo`` (four, far stronger), or single
            distortions.
        per_image: number of distorted versions of each clean image.
        max_side: longer side in pixels to which the clean images are shrunk first; null keeps their size.
    """

    names: Annotated[list[str], Field(min_length=1)] = list(DISTORTION_NAMES)
    per_image: Annotated[int, Field(ge=1)] = DISTORTED_PER_IMAGE
    max_side: Annotated[int, Field(ge=64)] | None = None


class CropSection(Settings):
    """Random crops, one of each image, in place of whole images (``pseudo_labels.crops.RandomCrops``).

    Attributes:
        smallest: smallest fraction of height and width.
        largest: largest fraction of height and width.
        seed: seed of the positions and sizes.
    """

    smallest: Annotated[float, Field(gt=0, le=1)] = CROP_SMALLEST
    largest: Annotated[float, Field(gt=0, le=1)] = CROP_LARGEST
    seed: int = SEED

    @property
    def crops(self) -> RandomCrops:
        """The crops.

        Raises:
            PocketiqaError: ``smallest`` is above ``largest``.
        """
        return RandomCrops(self.smallest, self.largest, self.seed)


class LabelSection(Settings):
    """The teacher that labels the pool.

    Attributes:
        teacher: registry name, folder of a fitted teacher, or ``package.module:function``; null is the one that the
            recipe fits.
        options: options of the teacher; for a fitted one, laid over those that it was fitted with.
        shards: number of shards of the store; null chooses by size.
        features: whether the teacher's features are stored too.
        unseen: leave out the images that a fitted teacher has learned from. With teachers that were each fitted without
            one fold of the ratings, and ``fuse: {min_teachers: 1}``, every image is labelled by those that never saw
            it.
        batch_size: images in one forward pass.
        threads: CPU threads of the teacher; part of what determines the bytes of the labels.
        crops: random crops of the pool's images that are labelled too: each entry makes a store of its own,
            ``labels-crop1`` and so on, for students that learn from more images than people rated. Labels of several
            teachers are fused by ``fuse`` without ratings: nobody rated the crops.
    """

    STORED_IF_SET = frozenset({"crops"})

    teacher: str | None = None
    options: dict[str, Any] = {}
    shards: Annotated[int, Field(ge=1)] | None = None
    features: bool = False
    unseen: bool = False
    crops: tuple[CropSection, ...] = ()
    batch_size: Annotated[int, Field(ge=1)] = LABEL_BATCH_SIZE
    threads: Annotated[int, Field(ge=1)] = LABEL_THREADS


class RegionSection(Settings):
    """Regions of the pool, copies of it that are distorted in one region only, and labels of the regions of all copies.

    Attributes:
        by: source of the regions as for ``pocketiqa regions --by``, with its file, such as ``slic:50`` or
            ``bsds:FOLDER``.
        options: options of the source.
        min_area: least fraction of the image.
        max_area: greatest fraction of the image.
        max_overlap: greatest intersection over union with an earlier region of the image.
        max_regions: most regions of an image.
        names: distortions of the copies, as ``distort.names``.
        per_image: copies of each clean image that are distorted in regions; 0 for none.
        regions_per_copy: number of regions of a copy that are distorted, each by a distortion of its own; several
            numbers take turns from copy to copy.
        feather_px: pixels inside the edge of the region along which the distortion grows.
        teacher: teacher of regions, as for ``pocketiqa label-regions --teacher``.
        teacher_options: options of the teacher.
        patch: ``auto``, ``box`` or ``masked``, see there.
        weight: how often each copy is drawn in a pass through the data.
    """

    by: Annotated[str, Field(min_length=1)]
    options: dict[str, Any] = {}
    min_area: Fraction = MIN_REGION_AREA
    max_area: Fraction = MAX_REGION_AREA
    max_overlap: Fraction = MAX_REGION_OVERLAP
    max_regions: Annotated[int, Field(ge=1)] = MAX_REGIONS
    names: Annotated[list[str], Field(min_length=1)] = list(DISTORTION_NAMES)
    per_image: Annotated[int, Field(ge=0)] = 5
    regions_per_copy: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1,)
    feather_px: Annotated[float, Field(ge=0)] = 0.0
    teacher: str = "reference"
    teacher_options: dict[str, Any] = {}
    patch: Literal["auto", "box", "masked"] = "auto"
    weight: Annotated[float, Field(gt=0)] = 1.0


class DropSettings(Settings):
    """How far the score must fall with the level of some distortions, where the order of levels alone is known.

    Attributes:
        distortions: names of distortions, or groups as ``distort.names``.
        least: smallest fall for each level, in units of the score.
        most: largest fall for each level, for distortions that would be punished too much; null for no limit.
    """

    distortions: Annotated[tuple[str, ...], Field(min_length=1)]
    least: Annotated[float, Field(gt=0, le=0.2)] = 0.01
    most: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _some_room(self) -> Self:
        if self.most is not None and self.most < self.least:
            raise ValueError(f"most {self.most} is below least {self.least}: the score cannot fall by both")
        return self


class LevelSection(Settings):
    """Copies of the pool of which the order alone is learned (``losses.level_ranking``): no teacher labels them.

    Attributes:
        names: as ``distort.names``.
        per_image: copies of each clean image; of each distortion that many over the number of distortions, in rising
            levels (155 are five of each of 31).
        max_side: as ``distort.max_side``.
        drops: what is asked, by distortion; a later entry replaces an earlier one.
        weight: how often the copies of a clean image under one distortion are drawn in a pass through the data.
    """

    names: Annotated[list[str], Field(min_length=1)] = ["all"]
    per_image: Annotated[int, Field(ge=2)] = 155
    max_side: Annotated[int, Field(ge=64)] | None = None
    drops: Annotated[tuple[DropSettings, ...], Field(min_length=1)] = (DropSettings(distortions=("all",)),)
    weight: Annotated[float, Field(gt=0)] = 1.0


class MoreRegionsSection(RegionSection):
    """Regions of other photographs than those of ``pool``, with copies and labels of their own.

    Attributes:
        name: for tables and folders.
        sources: photographs, as ``pool.sources``.
        images: number of photographs to take, drawn by the recipe's seed; a smaller number is always part of a larger
            one. Null takes all.
        test: whether the student is evaluated on them and never learns from them; else it learns, and a part of their
            scenes validates and tests as that of ``pool`` does.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    sources: Annotated[list[str], Field(min_length=1)]
    images: Annotated[int, Field(ge=1)] | None = None
    per_image: Annotated[int, Field(ge=1)] = 5
    test: bool = False


class WeightAverageSection(Settings):
    """One teacher out of several fittings: the mean of their weights (``teachers.qfm_iqm.weight_average``).

    Attributes:
        names: names of the recipe's ``teachers`` to be averaged; they may differ in data and order alone.
        half: whether the backbone is stored in float16.
        label: whether it labels the pool too, with its features, also the images that it has learned from: for students
            that learn ratings and its features together (``SourceSection.features``).
        crops: random crops of the pool's images that it labels too, with its features: each entry makes a store of its
            own, ``merged-crop1`` and so on, for students that learn from more images than people rated.
    """

    names: Annotated[list[str], Field(min_length=1)]
    half: bool = False
    label: bool = False
    crops: tuple[CropSection, ...] = ()


class ExportSection(Settings):
    """The file of the trained student.

    Attributes:
        half: whether its weights are stored in float16, at half the size; it still computes in float32.
    """

    half: bool = False


class FuseSection(Settings):
    """How the labels of several teachers become one (``pseudo_labels.fusion``), or those of one are filtered.

    Attributes:
        ratings: benchmark that the teachers are calibrated on, as for ``pocketiqa fuse --on``: images of the pool that
            they did not learn from. Null for none.
        split: part of the benchmark; null is ``validation`` where there is one, else ``train``.
        calibrate: ``auto``, ``logistic`` or ``isotonic`` with ratings; ``quantile`` or ``none`` without. Null is
            ``auto`` with ratings; without, it takes scores as they are.
        min_teachers: smallest number of teachers that must have scored a row (``KeepRule``, as the four below).
        min_confidence: confidence below which a row is dropped.
        max_disagreement: deviation between the teachers above which a row is dropped.
        outlier_feature: stored feature by which rows far from all others are dropped.
        max_outlier: robust deviations of that feature above which a row is far.
        features: stored feature to carry over, as ``NAME`` or ``TEACHER/NAME``.
    """

    RENAMED = {"opinions": "ratings"}

    ratings: str | None = None
    split: SplitName | None = None
    calibrate: Literal["auto", "logistic", "isotonic", "quantile", "none"] | None = None
    min_teachers: int | None = None
    min_confidence: float = MIN_CONFIDENCE
    max_disagreement: float | None = None
    outlier_feature: str | None = None
    max_outlier: float = MAX_OUTLIER
    features: str | None = None

    @property
    def rule(self) -> KeepRule:
        """The rule by which rows are kept.

        Raises:
            PocketiqaError: a number out of range.
        """
        return KeepRule(
            self.min_teachers, self.min_confidence, self.max_disagreement, self.outlier_feature, self.max_outlier
        )


class BenchmarkSection(Settings):
    """A rated benchmark for the evaluation, beside the held-out scenes of the pool.

    Attributes:
        ratings: benchmark, as for ``pocketiqa evaluate --on``.
        split: part of the benchmark; null is ``test`` where it has one, else ``all``.
        near_duplicate_cosine: cosine above which an image is a near duplicate of one that was learned from, by the
            features of the embedded teacher (see ``stages.leakage``); each figure is given without the near duplicates
            too. Costs a look at every image learned from. Null looks for none.
    """

    RENAMED = {"opinions": "ratings", "near": "near_duplicate_cosine"}

    ratings: str
    split: SplitName | None = None
    near_duplicate_cosine: Annotated[float, Field(gt=-1, le=1)] | None = NEAR_DUPLICATE_COSINE


class ScoreSection(Settings):
    """The demonstration at the end: held-out originals against visibly distorted copies.

    Attributes:
        images: number of held-out originals.
        distortions: names of the distortions of the copies.
        level: severity of the distortions, above 0, up to 5.
    """

    RENAMED = {"damages": "distortions"}

    images: Annotated[int, Field(ge=1, le=24)] = 4
    distortions: Annotated[list[str], Field(min_length=1)] = ["gaussian_blur", "white_noise", "jpeg"]
    # The catalogue of distortions ends at severity 5.
    level: Annotated[float, Field(gt=0, le=5)] = 4.0


class SourceSection(Settings):
    """Labels that exist already: a pool with a label store, or the ratings of a benchmark.

    With ``pool``, ``labels`` and ``ratings`` it is the labels of only those images that are rated.

    Attributes:
        pool: folder of the pool.
        labels: folder of its label store.
        ratings: benchmark, as for ``pocketiqa evaluate --on``.
        split: part of the benchmark; null is ``train`` where it has one, else ``all``. Its test images are learned from
            only if this says ``test``.
        subsets: subsets of the benchmark to take, such as one that should count more: named as a further source, its
            images come more often. Null takes all.
        images: number of rated images to take, whole scenes first, drawn by the recipe's seed; a smaller number is
            always part of a larger one. Null takes all.
        without_fold: fold of the scenes to leave out, as ``2/5``: the second of five.
        features: folder of a label store of the same images, whose features the student is compared with beside the
            ratings (``losses.feature``): what ``weight_average.label`` makes, or ``pocketiqa label --features``.
        regions: folder of regions of the pool's images (or of their clean originals), beside ``pool``; without
            ``labels``, the images are learned from by their regions alone.
        region_labels: folder of labels of these regions, made by ``pocketiqa label-regions``.
        drops: beside ``pool`` alone, a pool that ``pocketiqa distort`` made: of its copies the order of levels is
            learned, by distortion (``losses.level_ranking``); a later entry replaces an earlier one.
        weight: how often each of its images is drawn in a pass through the data: 1 once, 2.5 two or three times, 0.5 in
            every other pass. With ``drops``: each photograph with its copies under one distortion.
    """

    RENAMED = {"opinions": "ratings"}

    pool: Path | None = None
    labels: Path | None = None
    ratings: Annotated[str, Field(min_length=1)] | None = None
    split: SplitName | None = None
    subsets: tuple[str, ...] | None = None
    images: Annotated[int, Field(ge=1)] | None = None
    without_fold: Annotated[str, Field(pattern=r"^[1-9]\d*/[1-9]\d*$")] | None = None
    features: Path | None = None
    regions: Path | None = None
    region_labels: Path | None = None
    drops: Annotated[tuple[DropSettings, ...], Field(min_length=1)] | None = None
    weight: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if self.drops is not None:
            if self.pool is None or self.model_fields_set - {"pool", "drops", "weight"}:
                raise ValueError(
                    "the order of levels needs no labels: give 'pool' and 'drops', with 'weight' if wanted"
                )
            return self
        by_region = {self.regions is not None, self.region_labels is not None}
        if len(by_region) > 1 or (True in by_region and self.pool is None):
            raise ValueError("labels of regions are 'pool', 'regions' and 'region_labels': give all three")
        # {True} with both, {False} with neither; two elements where one is missing.
        stored = {self.pool is not None, self.labels is not None or True in by_region}
        chosen = any(value is not None for value in (self.split, self.subsets, self.images, self.without_fold))
        nameless = self.ratings is None and (chosen or True not in stored)
        if len(stored) > 1 or nameless or (True in stored and self.features is not None):
            raise ValueError(_TWO_FORMS)
        return self

    @property
    def store_folders(self) -> tuple[Path, Path]:
        """Folders of the pool and of its labels, expanded; only of a source with both."""
        return Path(expanded(str(self.pool))), Path(expanded(str(self.labels)))
