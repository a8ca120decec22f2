"""Which images of a benchmark show what the run learned from, by the features of its own model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distill.console import Report
from distill.data import Source
from distill.opinions import targets_of
from distill.overlap.find import find_near
from distill.overlap.opening import open_describer
from distill.overlap.sides import Side, joined, pool_side, side_of_testing
from distill.stage_config import BenchmarkSection, expanded


def near_folders(
    sources: Sequence[Source],
    sections: Sequence[BenchmarkSection],
    model: str,
    folder: Path,
    *,
    seed: int,
    report: Report | None = None,
) -> list[Path | None]:
    """What ``pocketiqa overlap`` would write, for every benchmark that asks for it.

    Args:
        sources: what the run learned from; their scores are what copying copies.
        sections: of the recipe.
        model: exported student or folder of a fitted teacher.
        folder: each benchmark gets a subfolder ``near-NUMBER``, with a page of its own.
        seed: of intervals and splits.
        report: called with images described and in total.

    Returns:
        Folder by section; None for one that asks for nothing.

    Raises:
        PocketiqaError: the model has no features, or too few images can be compared.
    """
    found: list[Path | None] = [None] * len(sections)
    if all(section.near is None for section in sections):
        return found
    trained, describer = joined([_side(source) for source in sources]), open_describer(model)
    for number, section in enumerate(sections):
        if section.near is not None:
            found[number] = folder / f"near-{number}"
            tested = side_of_testing(expanded(section.opinions), section.split)
            find_near(
                trained, tested, describer, folder / f"near-{number}", above=section.near, seed=seed, progress=report
            )
    return found


def _side(source: Source) -> Side:
    targets = targets_of(source, [ref.id for ref in source.pool.ok()])
    known = zip(targets.ids, targets.scores.tolist(), strict=True)
    return pool_side(source.pool, {id: score for id, score in known if np.isfinite(score)})
