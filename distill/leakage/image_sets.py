"""The two sets of images that are compared: those learned from, and those judged by."""

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
        sample: its id, and how to read it.
        name: for people.
        group: scene that it is known to belong to; empty for none.
        score: in [0, 1], 1 best; NaN where nobody has scored it.
        subset: part of the set; empty for none.
        file: where it lies, if it is a file of its own; else empty.
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
        name: for people.
        images: with distinct ids.
        digest: of all that determines features, groups and scores.
        targets: what models are judged by; of tested images alone.
    """

    name: str
    images: tuple[Image, ...]
    digest: str
    targets: Targets | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the images, in order."""
        return tuple(image.sample.id for image in self.images)

    @property
    def scores(self) -> NDArray[np.float64]:
        """Of the images, in order; NaN where there is none."""
        return np.array([image.score for image in self.images], np.float64)


def training_image_set(place: str) -> ImageSet:
    """What was learned from.

    Args:
        place: folder of a pool, or a benchmark as for ``load_benchmark``, of which the train part is taken where it has
            splits.

    Raises:
        PocketiqaError: neither, or there is no train part.
    """
    if (Path(place) / MANIFEST).is_file():
        return pool_image_set(Pool.open(Path(place)))
    if place.partition(":")[0] not in BENCHMARKS:
        raise PocketiqaError(
            f"{place!r} is neither the folder of a pool (pocketiqa pool makes one) nor a benchmark NAME:FOLDER with "
            f"NAME one of {', '.join(BENCHMARKS)}"
        )
    return _benchmark_image_set(load_benchmark(place).usual("train"))


def evaluation_image_set(place: str, split: str | None = None) -> ImageSet:
    """What models are judged by.

    Args:
        place: a benchmark as for ``load_benchmark``.
        split: ``test``, ``validation``, ``train`` or ``all``; None is ``test`` where there are splits, else ``all``.

    Raises:
        PocketiqaError: no such benchmark, or no image in that part.
    """
    benchmark = load_benchmark(place)
    if split is None:
        return _benchmark_image_set(benchmark.usual("test"))
    return _benchmark_image_set(benchmark.select(None if split == "all" else split))


def _benchmark_image_set(benchmark: Benchmark) -> ImageSet:
    pairs = zip(benchmark_samples(benchmark), benchmark.rows, strict=True)
    images = tuple(Image(sample, row.id, row.group, row.score, row.subset, row.path) for sample, row in pairs)
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

    A photograph and its damaged copies show the same, so one of them stands for all (``shown_by``).

    Args:
        pool: that was learned from.
        scores: by image id, in [0, 1].
        ids: only these.
        name: for people; that of the pool's folder if empty.
        targets: of ``ids``, where models are judged by them; gives ``scores`` too.
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
    digest = digest_of([[ref.id, ref.group, scores.get(ref.id)] for ref in refs])
    rated = [ref.id for ref in refs if ref.id in scores]
    judged = targets.part(rated) if targets is not None and rated else None
    return ImageSet(name or pool.folder.name, images, digest, judged)


def shown_by(ref: ImageRef) -> str:
    """Id of the photograph that an image shows: its own, or of a damaged copy that of the original."""
    return ref.ref_id or ref.id


def _shown_once(refs: Sequence[ImageRef]) -> list[ImageRef]:
    """One image of each photograph: the original, or the first copy where the original is not among them."""
    found: dict[str, ImageRef] = {}
    for ref in refs:
        if not ref.ref_id or shown_by(ref) not in found:
            found[shown_by(ref)] = ref
    return list(found.values())


def _file_of(pool: Pool, ref: ImageRef) -> str:
    path = local_path(ref.uri, pool.folder)
    return "" if path is None else str(path)


def joined(sides: Sequence[ImageSet]) -> ImageSet:
    """Several sets as one; an image that is in two of them counts once, as in the first.

    Args:
        sides: at least one.
    """
    found: dict[str, Image] = {}
    for side in sides:
        for image in side.images:
            found.setdefault(image.sample.id, image)
    name = " and ".join(dict.fromkeys(side.name for side in sides))
    return ImageSet(name, tuple(found.values()), digest_of([side.digest for side in sides]))
