"""The two sets of images that are compared: those learned from, and those judged by."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.evaluation.benchmarks import BENCHMARKS, Benchmark, load_benchmark
from distill.evaluation.samples import Sample, benchmark_samples, pool_samples
from distill.evaluation.targets import Targets, display_name, targets_from_benchmark
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of
from pseudo_labels.outputs import MANIFEST
from pseudo_labels.pool import Pool
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
class Side:
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


def side_of_training(place: str) -> Side:
    """What was learned from.

    Args:
        place: folder of a pool, or a benchmark as for ``load_benchmark``, of which the train part is taken where it has
            splits.

    Raises:
        PocketiqaError: neither, or there is no train part.
    """
    if (Path(place) / MANIFEST).is_file():
        return pool_side(Pool.open(Path(place)))
    if place.partition(":")[0] not in BENCHMARKS:
        raise PocketiqaError(
            f"{place!r} is neither the folder of a pool (pocketiqa pool makes one) nor a benchmark NAME:FOLDER with "
            f"NAME one of {', '.join(BENCHMARKS)}"
        )
    return _benchmark_side(_part(load_benchmark(place), None, "train"))


def side_of_testing(place: str, split: str | None = None) -> Side:
    """What models are judged by.

    Args:
        place: a benchmark as for ``load_benchmark``.
        split: ``test``, ``validation``, ``train`` or ``all``; None is ``test`` where there are splits, else ``all``.

    Raises:
        PocketiqaError: no such benchmark, or no image in that part.
    """
    return _benchmark_side(_part(load_benchmark(place), split, "test"))


def _part(benchmark: Benchmark, split: str | None, usual: str) -> Benchmark:
    if split is None:
        split = usual if any(row.split for row in benchmark.rows) else "all"
    return benchmark.select(None if split == "all" else split)


def _benchmark_side(benchmark: Benchmark) -> Side:
    pairs = zip(benchmark_samples(benchmark), benchmark.rows, strict=True)
    images = tuple(Image(sample, row.id, row.group, row.score, row.subset, row.path) for sample, row in pairs)
    stated = [
        [row.id, row.group, row.subset, row.score, row.near_train, file_stamp(row.path)] for row in benchmark.rows
    ]
    digest = digest_of([benchmark.name, stated])
    return Side(benchmark.name, images, digest, targets_from_benchmark(benchmark))


def pool_side(
    pool: Pool, scores: Mapping[str, float] | None = None, *, ids: Collection[str] | None = None, name: str = ""
) -> Side:
    """The images of a pool that are ``ok``.

    Damaged copies are left out where there are originals: they show the same.

    Args:
        pool: that was learned from.
        scores: by image id, in [0, 1].
        ids: only these.
        name: for people; that of the pool's folder if empty.
    """
    scores = scores or {}
    usable = [ref for ref in pool.ok() if ids is None or ref.id in ids]
    refs = [ref for ref in usable if not ref.ref_id] or usable
    samples = pool_samples(pool, [ref.id for ref in refs])
    images = tuple(
        Image(sample, display_name(pool, ref), ref.group, scores.get(ref.id, NO_SCORE))
        for sample, ref in zip(samples, refs, strict=True)
    )
    digest = digest_of([[ref.id, ref.group, scores.get(ref.id)] for ref in refs])
    return Side(name or pool.folder.name, images, digest)


def joined(sides: Sequence[Side]) -> Side:
    """Several sets as one; an image that is in two of them counts once, as in the first.

    Args:
        sides: at least one.
    """
    found: dict[str, Image] = {}
    for side in sides:
        for image in side.images:
            found.setdefault(image.sample.id, image)
    name = " and ".join(dict.fromkeys(side.name for side in sides))
    return Side(name, tuple(found.values()), digest_of([side.digest for side in sides]))
