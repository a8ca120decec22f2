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
    MAX_OUTLIER,
    MIN_CONFIDENCE,
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
    "a source is either 'pool' and 'labels', or 'opinions: NAME:FOLDER' with 'features' if wanted; 'split', 'subsets', "
    "'images' and 'without_fold' choose among opinions, or with all three, labels of the images that these are of"
)


def expanded(place: str) -> str:
    """A path, or ``NAME:PATH``, with ``~`` and ``$VARIABLE`` replaced; what exists as it is written stays as it is.

    Recipes are expanded where they are used, not where they are read: one that names a variable can be looked at where
    the variable is not set.

    Raises:
        PocketiqaError: a variable is not set.
    """
    if os.path.lexists(place):
        return place
    unset = [name for pair in _VARIABLE.findall(place) if (name := "".join(pair)) not in os.environ]
    if unset:
        raise PocketiqaError(f"the variable ${unset[0]} in {place!r} is not set: set it, or write the path out")
    return ":".join(map(os.path.expanduser, os.path.expandvars(place).split(":", 1)))


class PoolSection(Settings):
    """Which photographs, and what counts as one scene.

    Attributes:
        sources: as for ``pocketiqa pool``; ``bundled:photographs`` are those that scikit-image, scikit-learn and
            matplotlib install, and a benchmark, as for ``pocketiqa evaluate --on``, gives the photographs of its train
            part.
        near_duplicate_distance: dHash bits, of 64, up to which two images are one scene.
        max_bad_fraction: the run fails above this share of bad files.
    """

    RENAMED = {"near_distance": "near_duplicate_distance", "max_bad_share": "max_bad_fraction"}

    sources: Annotated[list[str], Field(min_length=1)]
    near_duplicate_distance: Annotated[int, Field(ge=0, le=32)] = NEAR_DUPLICATE_DISTANCE
    max_bad_fraction: Fraction = MAX_BAD_FRACTION


class DistortSection(Settings):
    """Synthetic damage of the pool.

    Attributes:
        names: ``kadid``, ``camera``, ``all`` or single distortions.
        per_image: distorted versions of each clean image.
        max_side: the clean images are shrunk to this longer side in pixels first; null keeps their size.
    """

    names: Annotated[list[str], Field(min_length=1)] = list(DISTORTION_NAMES)
    per_image: Annotated[int, Field(ge=1)] = DISTORTED_PER_IMAGE
    max_side: Annotated[int, Field(ge=64)] | None = None


class LabelSection(Settings):
    """Who labels the pool.

    Attributes:
        teacher: registry name, folder of a fitted teacher, or ``package.module:function``; null is the one that the
            recipe fits.
        options: of the teacher; for a fitted one, laid over those that it was fitted with.
        shards: parts of the store; null chooses by size.
        features: whether the teacher's features are stored too.
        unseen: leave out the images that a fitted teacher has learned from. With teachers that were each fitted without
            one fold of the opinions, and ``fuse: {min_teachers: 1}``, every image is labelled by those that never saw
            it.
        threads: CPU threads of the teacher; part of what determines the bytes of the labels.
    """

    teacher: str | None = None
    options: dict[str, Any] = {}
    shards: Annotated[int, Field(ge=1)] | None = None
    features: bool = False
    unseen: bool = False
    batch_size: Annotated[int, Field(ge=1)] = LABEL_BATCH_SIZE
    threads: Annotated[int, Field(ge=1)] = LABEL_THREADS


class CropSection(Settings):
    """Random windows of the images, one of each, in place of all of it (``pseudo_labels.crops.RandomCrops``).

    Attributes:
        smallest: least share of height and width.
        largest: largest share.
        seed: another seed, other windows.
    """

    smallest: Annotated[float, Field(gt=0, le=1)] = CROP_SMALLEST
    largest: Annotated[float, Field(gt=0, le=1)] = CROP_LARGEST
    seed: int = SEED

    @property
    def crops(self) -> RandomCrops:
        """The windows.

        Raises:
            PocketiqaError: the smaller share comes last.
        """
        return RandomCrops(self.smallest, self.largest, self.seed)


class WeightAverageSection(Settings):
    """One teacher out of several fittings: the mean of their weights (``teachers.qfm_iqm.weight_average``).

    Attributes:
        names: of the recipe's ``teachers``; they differ in data and order alone.
        half: keep the backbone in float16.
        label: it labels the pool too, with its features, whether it has learned from an image or not: for students that
            learn opinions and its features together (``SourceSection.features``).
        crops: random windows of the pool's images that it labels too, with its features: each of these makes a store of
            its own, ``merged-crop1`` and so on, for students that learn from more images than people rated.
    """

    names: Annotated[list[str], Field(min_length=1)]
    half: bool = False
    label: bool = False
    crops: tuple[CropSection, ...] = ()


class FuseSection(Settings):
    """How the labels of several teachers become one (``pseudo_labels.fusion``), or those of one are filtered.

    Attributes:
        ratings: benchmark that the teachers are calibrated on, as for ``pocketiqa fuse --on``: images of the pool that
            they did not learn from. Null for none.
        split: of the benchmark.
        calibrate: ``auto``, ``logistic`` or ``isotonic`` with opinions; ``quantile`` or ``none`` without. Null is
            ``auto`` with opinions, and takes scores as they are without.
        min_teachers: see ``KeepRule``, as those below.
        min_confidence: likewise.
        max_disagreement: likewise.
        outlier_feature: likewise; the teachers' features must be stored.
        max_outlier: likewise.
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
        """Which rows are kept.

        Raises:
            PocketiqaError: a number out of range.
        """
        return KeepRule(
            self.min_teachers, self.min_confidence, self.max_disagreement, self.outlier_feature, self.max_outlier
        )


class BenchmarkSection(Settings):
    """A labelled benchmark to judge by, beside the held-out scenes of the pool.

    Attributes:
        ratings: as for ``pocketiqa evaluate --on``.
        split: null is ``test`` where the benchmark has one, else ``all``.
        near_duplicate_cosine: cosine above which an image is a near duplicate of one that was learned from, by the
            features of the embedded teacher (see ``stages.leakage``); each figure is given without the near duplicates
            too. Costs a look at every image learned from. Null looks for none.
    """

    RENAMED = {"opinions": "ratings", "near": "near_duplicate_cosine"}

    ratings: str
    split: SplitName | None = None
    near_duplicate_cosine: Annotated[float, Field(gt=-1, le=1)] | None = NEAR_DUPLICATE_COSINE


class ScoreSection(Settings):
    """The demonstration at the end: held-out originals against visibly damaged copies.

    Attributes:
        images: how many held-out originals.
        distortions: distortions of the copies.
        level: their severity, above 0 to 5.
    """

    RENAMED = {"damages": "distortions"}

    images: Annotated[int, Field(ge=1, le=24)] = 4
    distortions: Annotated[list[str], Field(min_length=1)] = ["gaussian_blur", "white_noise", "jpeg"]
    level: Annotated[float, Field(gt=0, le=5)] = 4.0


class SourceSection(Settings):
    """Labels that exist already: a pool with a label store, or the opinions of people on a benchmark.

    With ``pool``, ``labels`` and ``ratings`` it is the labels of those images alone that the opinions are of.

    Attributes:
        pool: folder of the pool.
        labels: folder of its label store.
        ratings: a benchmark as for ``pocketiqa evaluate --on``.
        split: of the benchmark; null is ``train`` where it has one, else ``all``. Its test images are learned from only
            if this says ``test``.
        subsets: take only these parts of the benchmark, such as one that is to count more: named as a further source,
            its images come more often. Null takes all.
        images: take only this many rated images, whole scenes first, drawn by the recipe's seed; fewer are always among
            more. Null takes all.
        without_fold: leave out a fold of the scenes, as ``2/5``: the second of five.
        features: folder of a label store of the same images, whose features the student is compared with beside the
            opinions (``losses.feature``): what ``weight_average.label`` makes, or ``pocketiqa label --features``.
        weight: how much its rows count in the loss, relative to the others.
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
    weight: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        stored = {self.pool is not None, self.labels is not None}
        chosen = any(value is not None for value in (self.split, self.subsets, self.images, self.without_fold))
        nameless = self.ratings is None and (chosen or True not in stored)
        if len(stored) > 1 or nameless or (True in stored and self.features is not None):
            raise ValueError(_TWO_FORMS)
        return self

    @property
    def store_folders(self) -> tuple[Path, Path]:
        """Folders of the pool and of its labels, expanded; only of a source without ``ratings``."""
        return Path(expanded(str(self.pool))), Path(expanded(str(self.labels)))
