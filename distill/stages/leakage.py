"""Which tested images are near duplicates of what the run learned from, by the features of the embedded teacher.

One model gives the features of all: its deepest map shows the content of an image, it is part of the package, and its
threshold means the same in every report, also beside models that have no features at all. Features of the run's own
model may not show content: a student of few levels has none.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.examples import Source
from distill.data.ratings import targets_of
from distill.evaluation.targets import Targets
from distill.leakage.extractor import CONTENT
from distill.leakage.extractors import open_extractor
from distill.leakage.find import find_near_duplicates
from distill.leakage.image_sets import ImageSet, evaluation_image_set, joined, pool_image_set, shown_by
from distill.leakage.neighbours import NotComparableError
from distill.leakage.record import read_overlap
from distill.recipe.stages import BenchmarkSection, expanded
from pseudo_labels.defaults import NEAR_DUPLICATE_COSINE
from pseudo_labels.parallel import Progress
from pseudo_labels.pool import Pool

HELD_OUT = "Held-out part"
# Folder inside the evaluation's. It has a manifest of its own: an evaluation that was killed reads it again.
_FEATURES = "near-features"
_TURNED_OFF = "the recipe says near_duplicate_cosine: null"


@dataclass(frozen=True)
class ImageSets:
    """The two sets of images that are compared.

    Attributes:
        trained: images that the run learned from.
        tested: images that it is evaluated on.
    """

    trained: ImageSet
    tested: ImageSet


@dataclass(frozen=True)
class Comparison:
    """The comparison of the held-out part, or of a benchmark, with what was learned from.

    Attributes:
        name: name of the part or benchmark, for people.
        folder: folder that ``leakage.find`` wrote, relative to the evaluation, so that a run can be moved; empty if
            nothing was compared.
        reason: why nothing was compared; else empty.
    """

    name: str
    folder: str = ""
    reason: str = ""

    def under(self, evaluation: Path) -> Path | None:
        """Path of the folder; None if nothing was compared."""
        return evaluation / self.folder if self.folder else None

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def benchmark_image_sets(sources: Sequence[Source], section: BenchmarkSection) -> ImageSets:
    """All images that were learned from, and those of a benchmark."""
    tested = evaluation_image_set(expanded(section.ratings), section.split)
    # An image that is in several sources counts with the score of the first. Sources of crops have no scores of whole
    # images, so they come last; the others keep their order.
    return ImageSets(
        joined([_image_set(source) for source in sorted(sources, key=lambda source: source.of_crops)]), tested
    )


def held_out_image_sets(pool: Pool, trained: dict[str, float], tested: Targets) -> ImageSets:
    """Two parts of one pool; of a photograph and its distorted copies one stands for all.

    Args:
        pool: pool that holds both.
        trained: ids with their scores, NaN where there is none.
        tested: targets of the held-out part.
    """
    return ImageSets(
        pool_image_set(pool, trained, ids=trained.keys(), name="training part"),
        pool_image_set(pool, ids=set(tested.ids), name="held-out part", targets=tested),
    )


def near_duplicates_in_benchmarks(
    sources: Sequence[Source],
    sections: Sequence[BenchmarkSection],
    evaluation: Path,
    *,
    seed: int,
    report: Progress | None = None,
) -> list[Comparison]:
    """What ``pocketiqa overlap`` would write, for every benchmark that has enough images and does not turn it off.

    Args:
        sources: sources that the run learned from; a copying model would repeat their scores.
        sections: benchmarks of the recipe.
        evaluation: folder of the evaluation, in which each benchmark has ``near-N``.
        seed: seed of intervals and splits.
        report: called with images whose features are made, and in total.
    """
    comparisons = []
    for number, section in enumerate(sections):
        # The folder is named by position: two sections may name one benchmark with different splits.
        comparison = Comparison(section.ratings.partition(":")[0], f"near-{number}")
        if section.near_duplicate_cosine is None:
            comparisons.append(Comparison(comparison.name, reason=_TURNED_OFF))
        else:
            image_sets = benchmark_image_sets(sources, section)
            # All benchmarks are compared with the same images: their features are made once.
            cached = evaluation / _FEATURES
            above = section.near_duplicate_cosine
            comparisons.append(
                _compare(comparison, image_sets, evaluation, above=above, seed=seed, report=report, cached=cached)
            )
    return comparisons


def near_duplicates_held_out(
    image_sets: ImageSets, evaluation: Path, *, seed: int, report: Progress | None = None
) -> Comparison:
    """The comparison of the held-out part of a pool with its training part."""
    comparison = Comparison(HELD_OUT, "near-held-out")
    return _compare(comparison, image_sets, evaluation, above=NEAR_DUPLICATE_COSINE, seed=seed, report=report)


def near_duplicate_ids(folder: Path, pool: Pool, ids: Collection[str]) -> set[str]:
    """Those of ``ids`` that show a photograph with a near duplicate: the original or any distorted copy."""
    near = {shown_by(pool.by_id(image["id"])) for image in read_overlap(folder)["images"] if image["near"]}
    return {id for id in ids if shown_by(pool.by_id(id)) in near}


def _compare(
    comparison: Comparison,
    image_sets: ImageSets,
    evaluation: Path,
    *,
    above: float,
    seed: int,
    report: Progress | None,
    cached: Path | None = None,
) -> Comparison:
    out, by = evaluation / comparison.folder, open_extractor(CONTENT)
    try:
        find_near_duplicates(
            image_sets.trained,
            image_sets.tested,
            by,
            out,
            above=above,
            seed=seed,
            trained_features=cached,
            progress=report,
        )
    # Too few images for a comparison do not stop an evaluation: the report says why there is none.
    except NotComparableError as error:
        return Comparison(comparison.name, reason=str(error))
    return comparison


def _image_set(source: Source) -> ImageSet:
    if source.of_crops:  # the score of a crop is no score of the image that would be copied
        return pool_image_set(source.pool, ids=source.only)
    targets = targets_of(source, [ref.id for ref in source.pool.ok()])
    known = zip(targets.ids, targets.scores.tolist(), strict=True)
    return pool_image_set(source.pool, {id: score for id, score in known if np.isfinite(score)}, ids=source.only)
