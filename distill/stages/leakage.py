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
from distill.leakage.extractors import open_describer
from distill.leakage.find import find_near
from distill.leakage.image_sets import Side, joined, pool_side, shown_by, side_of_testing
from distill.leakage.neighbours import NotComparableError
from distill.leakage.record import read_overlap
from distill.recipe.stages import NEAR, BenchmarkSection, expanded
from distill.terminal.console import Report
from pseudo_labels.pool import Pool

HELD_OUT = "Held-out part"
_FEATURES = "near-features"
_TURNED_OFF = "the recipe says near: null"


@dataclass(frozen=True)
class Sides:
    """What is compared.

    Attributes:
        trained: what was learned from.
        tested: what is judged by.
    """

    trained: Side
    tested: Side


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


def benchmark_sides(sources: Sequence[Source], section: BenchmarkSection) -> Sides:
    """All that was learned from, and a benchmark."""
    tested = side_of_testing(expanded(section.opinions), section.split)
    # An image that is in several sources counts with the score of the first.
    return Sides(joined([_side(source) for source in sorted(sources, key=lambda source: source.of_windows)]), tested)


def held_out_sides(pool: Pool, trained: dict[str, float], tested: Targets) -> Sides:
    """The parts of one pool; of a photograph and its damaged copies one stands for all.

    Args:
        pool: of both.
        trained: ids with their scores, NaN where there is none.
        tested: what is judged by.
    """
    return Sides(
        pool_side(pool, trained, ids=trained.keys(), name="training part"),
        pool_side(pool, ids=set(tested.ids), name="held-out part", targets=tested),
    )


def near_benchmarks(
    sources: Sequence[Source],
    sections: Sequence[BenchmarkSection],
    evaluation: Path,
    *,
    seed: int,
    report: Report | None = None,
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
        look = Looked(section.opinions.partition(":")[0], f"near-{number}")
        if section.near is None:
            found.append(Looked(look.name, reason=_TURNED_OFF))
        else:
            sides = benchmark_sides(sources, section)
            # All benchmarks are compared with the same images: their features are made once.
            found.append(_look(look, sides, evaluation, section.near, seed, report, evaluation / _FEATURES))
    return found


def near_held_out(sides: Sides, evaluation: Path, *, seed: int, report: Report | None = None) -> Looked:
    """The same for the held-out part of a pool."""
    return _look(Looked(HELD_OUT, "near-held-out"), sides, evaluation, NEAR, seed, report)


def near_ids(folder: Path, pool: Pool, ids: Collection[str]) -> set[str]:
    """Those of ``ids`` that show a near photograph, the original or any damaged copy."""
    near = {shown_by(pool.by_id(image["id"])) for image in read_overlap(folder)["images"] if image["near"]}
    return {id for id in ids if shown_by(pool.by_id(id)) in near}


def _look(
    look: Looked,
    sides: Sides,
    evaluation: Path,
    above: float,
    seed: int,
    report: Report | None,
    kept: Path | None = None,
) -> Looked:
    out, by = evaluation / look.folder, open_describer(CONTENT)
    try:
        find_near(sides.trained, sides.tested, by, out, above=above, seed=seed, kept=kept, progress=report)
    except NotComparableError as error:
        return Looked(look.name, reason=str(error))
    return look


def _side(source: Source) -> Side:
    if source.of_windows:  # a score of a window is no score of the image that would be copied
        return pool_side(source.pool, ids=source.only)
    targets = targets_of(source, [ref.id for ref in source.pool.ok()])
    known = zip(targets.ids, targets.scores.tolist(), strict=True)
    return pool_side(source.pool, {id: score for id, score in known if np.isfinite(score)}, ids=source.only)
