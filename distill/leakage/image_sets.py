"""The two sets of images that are compared: training images, and images that models are evaluated on."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.evaluation.benchmarks import BENCHMARKS, Benchmark, load_benchmark
from distill.evaluation.samples import Sample, benchmark_samples, pool_samples
from distill.evaluation.targets import Targets, display_name, targets_from_benchmark
from pseudo_labels.addresses import local_path
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of
from pseudo_labels.outputs import MANIFEST
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef
from pseudo_labels.sources import file_stamp

NO_SCORE = float("nan")


@dataclass(frozen=True)
class Image:
    """One image of a set.

    Attributes:
        sample: id of the image, and a function that reads it.
        name: name of the image for people.
        group: known scene of the image; empty for none.
        score: rating or label in [0, 1], 1 best; NaN where there is none.
        subset: subset of the benchmark; empty for none.
        file: path of the image file; empty if the image is no file of its own.
    """

    sample: Sample
    name: str
    group: str
    score: float = NO_SCORE
    subset: str = ""
    file: str = ""


@dataclass(frozen=True)
class ImageSet:
    """A set of images.

    Attributes:
        name: name of the set for people.
        images: images with distinct ids.
        digest: checksum of everything that determines features, groups and scores.
        targets: scores that models are evaluated against; None for training images.
    """

    name: str
    images: tuple[Image, ...]
    digest: str
    targets: Targets | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """Image ids, in order."""
        return tuple(image.sample.id for image in self.images)

    @property
    def scores(self) -> NDArray[np.float64]:
        """Image scores, in order; NaN where there is none."""
        return np.array([image.score for image in self.images], np.float64)


def training_image_set(spec: str) -> ImageSet:
    """The images that a model was trained on.

    Args:
        spec: folder of a pool, or a benchmark as for ``load_benchmark``, of which the train part is taken where it has
            splits.

    Raises:
        PocketiqaError: ``spec`` is neither, or the benchmark has splits but no train part.
    """
    if (Path(spec) / MANIFEST).is_file():
        return pool_image_set(Pool.open(Path(spec)))
    if spec.partition(":")[0] not in BENCHMARKS:
        raise PocketiqaError(
            f"{spec!r} is neither the folder of a pool (pocketiqa pool makes one) nor a benchmark NAME:FOLDER with "
            f"NAME one of {', '.join(BENCHMARKS)}"
        )
    return _benchmark_image_set(load_benchmark(spec).usual("train"))


def evaluation_image_set(spec: str, split: str | None = None) -> ImageSet:
    """The images that models are evaluated on.

    Args:
        spec: a benchmark as for ``load_benchmark``.
        split: ``test``, ``validation``, ``train`` or ``all``; None is ``test`` where there are splits, else ``all``.

    Raises:
        PocketiqaError: no such benchmark, or no image in that part.
    """
    benchmark = load_benchmark(spec)
    if split is None:
        return _benchmark_image_set(benchmark.usual("test"))
    return _benchmark_image_set(benchmark.select(None if split == "all" else split))


def _benchmark_image_set(benchmark: Benchmark) -> ImageSet:
    pairs = zip(benchmark_samples(benchmark), benchmark.rows, strict=True)
    images = tuple(
        Image(sample, name=row.id, group=row.group, score=row.score, subset=row.subset, file=row.path)
        for sample, row in pairs
    )
    # The stamp of each file (size and time) stands for its content, which is read only where features are computed.
    stated = [
        [row.id, row.group, row.subset, row.score, row.near_training, file_stamp(row.path)] for row in benchmark.rows
    ]
    digest = digest_of([benchmark.name, stated])
    return ImageSet(benchmark.name, images, digest, targets_from_benchmark(benchmark))


def pool_image_set(
    pool: Pool,
    scores: Mapping[str, float] | None = None,
    *,
    ids: Collection[str] | None = None,
    name: str = "",
    targets: Targets | None = None,
) -> ImageSet:
    """The images of a pool that are ``ok``.

    A photograph and its distorted copies show one scene, so one of them stands for all (``shown_by``).

    Args:
        pool: pool of the images.
        scores: score in [0, 1] by image id.
        ids: ids of the images to include; all if None.
        name: name of the set for people; the name of the pool's folder if empty.
        targets: scores of ``ids``, if models are evaluated on them; replaces ``scores``.
    """
    if targets is not None:
        scores = dict(zip(targets.ids, targets.scores.tolist(), strict=True))
    scores = scores or {}
    refs = _shown_once([ref for ref in pool.ok() if ids is None or ref.id in ids])
    samples = pool_samples(pool, [ref.id for ref in refs])
    images = tuple(
        Image(sample, display_name(pool, ref), ref.group, scores.get(ref.id, NO_SCORE), file=_file_of(pool, ref))
        for sample, ref in zip(samples, refs, strict=True)
    )
    # An id is a digest of the content: no time or size of a file is needed.
    digest = digest_of([[ref.id, ref.group, scores.get(ref.id)] for ref in refs])
    # Targets follow the images that stand for a photograph, so that copies of one scene do not count several times.
    rated = [ref.id for ref in refs if ref.id in scores]
    part = targets.part(rated) if targets is not None and rated else None
    return ImageSet(name or pool.folder.name, images, digest, part)


def shown_by(ref: ImageRef) -> str:
    """Id of the photograph that an image shows: its own, or for a distorted copy that of the original."""
    return ref.ref_id or ref.id


def _shown_once(refs: Sequence[ImageRef]) -> list[ImageRef]:
    """One image of each photograph: the original, or the first copy where the original is not among them."""
    # A later original replaces an earlier copy; a later copy replaces nothing.
    ref_of: dict[str, ImageRef] = {}
    for ref in refs:
        if not ref.ref_id or shown_by(ref) not in ref_of:
            ref_of[shown_by(ref)] = ref
    return list(ref_of.values())


def _file_of(pool: Pool, ref: ImageRef) -> str:
    path = local_path(ref.uri, pool.folder)
    return "" if path is None else str(path)


def joined(image_sets: Sequence[ImageSet]) -> ImageSet:
    """Several sets as one; an image that is in two of them counts once, as in the first.

    Args:
        image_sets: one or more sets.
    """
    image_of: dict[str, Image] = {}
    for image_set in image_sets:
        for image in image_set.images:
            image_of.setdefault(image.sample.id, image)
    name = " and ".join(dict.fromkeys(image_set.name for image_set in image_sets))
    return ImageSet(name, tuple(image_of.values()), digest_of([image_set.digest for image_set in image_sets]))
