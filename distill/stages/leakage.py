"""Which tested images show what the run learned from, by the features of the embedded teacher.

One model describes all: its deepest map knows what an image shows, it comes with the package, and its threshold means
the same in every report, also beside models that offer no features at all. Features of the run's own model need not: a
student of few levels sees no content.
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
_FEATURES = "near-features"
_TURNED_OFF = "the recipe says near: null"


@dataclass(frozen=True)
class ImageSets:
    """What is compared.

    Attributes:
        trained: what was learned from.
        tested: what is judged by.
    """

    trained: ImageSet
    tested: ImageSet


@dataclass(frozen=True)
class Looked:
    """Where is what was found for the held-out part or a benchmark.

    Attributes:
        name: of it, for people.
        folder: inside the evaluation's, as ``overlap.find`` writes one; empty if nothing was compared.
        reason: why nothing was, else empty.
    """

    name: str
    folder: str = ""
    reason: str = ""

    def under(self, evaluation: Path) -> Path | None:
        """The folder itself."""
        return evaluation / self.folder if self.folder else None

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def benchmark_image_sets(sources: Sequence[Source], section: BenchmarkSection) -> ImageSets:
    """All that was learned from, and a benchmark."""
    tested = evaluation_image_set(expanded(section.ratings), section.split)
    # An image that is in several sources counts with the score of the first.
    return ImageSets(joined([_side(source) for source in sorted(sources, key=lambda source: source.of_crops)]), tested)


def held_out_image_sets(pool: Pool, trained: dict[str, float], tested: Targets) -> ImageSets:
    """The parts of one pool; of a photograph and its damaged copies one stands for all.

    Args:
        pool: of both.
        trained: ids with their scores, NaN where there is none.
        tested: what is judged by.
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
) -> list[Looked]:
    """What ``pocketiqa overlap`` would write, for every benchmark that does not turn it off and has images enough.

    Args:
        sources: what the run learned from; their scores are what copying copies.
        sections: of the recipe.
        evaluation: folder, in which each benchmark has ``near-N``.
        seed: of intervals and splits.
        report: called with images described and in total.
    """
    found = []
    for number, section in enumerate(sections):
        look = Looked(section.ratings.partition(":")[0], f"near-{number}")
        if section.near_duplicate_cosine is None:
            found.append(Looked(look.name, reason=_TURNED_OFF))
        else:
            sides = benchmark_image_sets(sources, section)
            # All benchmarks are compared with the same images: their features are made once.
            found.append(
                _look(look, sides, evaluation, section.near_duplicate_cosine, seed, report, evaluation / _FEATURES)
            )
    return found


def near_duplicates_held_out(
    sides: ImageSets, evaluation: Path, *, seed: int, report: Progress | None = None
) -> Looked:
    """The same for the held-out part of a pool."""
    return _look(Looked(HELD_OUT, "near-held-out"), sides, evaluation, NEAR_DUPLICATE_COSINE, seed, report)


def near_duplicate_ids(folder: Path, pool: Pool, ids: Collection[str]) -> set[str]:
    """Those of ``ids`` that show a near photograph, the original or any damaged copy."""
    near = {shown_by(pool.by_id(image["id"])) for image in read_overlap(folder)["images"] if image["near"]}
    return {id for id in ids if shown_by(pool.by_id(id)) in near}


def _look(
    look: Looked,
    sides: ImageSets,
    evaluation: Path,
    above: float,
    seed: int,
    report: Progress | None,
    kept: Path | None = None,
) -> Looked:
    out, by = evaluation / look.folder, open_extractor(CONTENT)
    try:
        find_near_duplicates(
            sides.trained, sides.tested, by, out, above=above, seed=seed, trained_features=kept, progress=report
        )
    except NotComparableError as error:
        return Looked(look.name, reason=str(error))
    return look


def _side(source: Source) -> ImageSet:
    if source.of_crops:  # a score of a window is no score of the image that would be copied
        return pool_image_set(source.pool, ids=source.only)
    targets = targets_of(source, [ref.id for ref in source.pool.ok()])
    known = zip(targets.ids, targets.scores.tolist(), strict=True)
    return pool_image_set(source.pool, {id: score for id, score in known if np.isfinite(score)}, ids=source.only)
