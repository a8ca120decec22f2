"""Which tested images show what the run learned from, by the features of the embedded teacher.

One model describes all: its deepest map knows what an image shows, it comes with the package, and its threshold means
the same in every report. Features of the run's own model need not: a student of few levels sees no content.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill.console import Report
from distill.data import Source
from distill.opinions import targets_of
from distill.overlap.describer import CONTENT
from distill.overlap.find import find_near
from distill.overlap.opening import open_describer
from distill.overlap.record import read_overlap
from distill.overlap.sides import Side, joined, pool_side, side_of_testing
from distill.stage_config import NEAR, BenchmarkSection, expanded
from pseudo_labels.pool import Pool

HELD_OUT = "near-held-out"
_FEWEST = 2


@dataclass(frozen=True)
class Sides:
    """What is compared.

    Attributes:
        trained: what was learned from.
        tested: what is judged by.
    """

    trained: Side
    tested: Side

    @property
    def comparable(self) -> bool:
        """Whether there are images enough on both sides."""
        return min(len(self.trained.images), len(self.tested.images)) >= _FEWEST


def folder_of(evaluation: Path, number: int) -> Path:
    """Where is written what was found for a benchmark."""
    return evaluation / f"near-{number}"


def benchmark_sides(sources: Sequence[Source], section: BenchmarkSection) -> Sides:
    """All that was learned from, and a benchmark."""
    tested = side_of_testing(expanded(section.opinions), section.split)
    return Sides(joined([_side(source) for source in sources]), tested)


def held_out_sides(pool: Pool, trained: Mapping[str, float], tested: Mapping[str, float]) -> Sides:
    """The parts of one pool; of damaged copies the originals stand for all.

    Args:
        pool: of both.
        trained: ids with their scores, NaN where there is none.
        tested: likewise.
    """
    return Sides(
        pool_side(pool, trained, ids=trained.keys(), name="training part"),
        pool_side(pool, tested, ids=tested.keys(), name="held-out part"),
    )


def near_folders(
    sources: Sequence[Source],
    sections: Sequence[BenchmarkSection],
    evaluation: Path,
    *,
    seed: int,
    report: Report | None = None,
) -> list[Path | None]:
    """What ``pocketiqa overlap`` would write, for every benchmark that asks for it and has images enough.

    Args:
        sources: what the run learned from; their scores are what copying copies.
        sections: of the recipe.
        evaluation: folder; see ``folder_of``.
        seed: of intervals and splits.
        report: called with images described and in total.

    Returns:
        Folder by section; None for one that asks for nothing.
    """
    return [
        None if section.near is None
        else _found(benchmark_sides(sources, section), folder_of(evaluation, number), section.near, seed, report)
        for number, section in enumerate(sections)
    ]  # fmt: skip


def near_held_out(sides: Sides, evaluation: Path, *, seed: int, report: Report | None = None) -> Path | None:
    """The same for the held-out part of a pool; None with too few images."""
    return _found(sides, evaluation / HELD_OUT, NEAR, seed, report)


def near_ids(folder: Path, pool: Pool, ids: Collection[str]) -> set[str]:
    """Those of ``ids`` that are near, and the damaged copies of such images."""
    near = {image["id"] for image in read_overlap(folder)["images"] if image["near"]}
    return {id for id in ids if id in near or pool.by_id(id).ref_id in near}


def _found(sides: Sides, folder: Path, above: float, seed: int, report: Report | None) -> Path | None:
    if not sides.comparable:
        return None
    find_near(sides.trained, sides.tested, open_describer(CONTENT), folder, above=above, seed=seed, progress=report)
    return folder


def _side(source: Source) -> Side:
    targets = targets_of(source, [ref.id for ref in source.pool.ok()])
    known = zip(targets.ids, targets.scores.tolist(), strict=True)
    return pool_side(source.pool, {id: score for id, score in known if np.isfinite(score)})
