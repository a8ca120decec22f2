"""What the report shows of regions: the worst and the best of held-out scenes, and the types that a teacher names."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from distill.data.examples import Source
from distill.data.regions import ImageRegions, distortion_in
from distill.data.split import Part, read_split
from distill.html.figures import OutlinedRegion, region_panels
from distill.report import RegionExample, Regions
from distill.stages.context import Run
from distill.stages.evaluation import read_region_results, rows_of
from pseudo_labels.images import ImageError
from pseudo_labels.parallel import Progress
from pseudo_labels.records import ImageRef, Status
from pseudo_labels.regions.masks import decode_inner
from students.regions import RegionResult
from students.runtime import Result, Scorer

# Pictures that are scored for examples, spread evenly over the held-out ones: some ten seconds of a core.
_MOST_PICTURES = 200
_EXAMPLES = 4
# Longer side of a drawing: twice what the page shows.
_PANEL_PX = 480
CLEAN = "none"
"""What is known of a region that nothing was done to."""


@dataclass(frozen=True)
class _Scored:
    """A region with what the student says of it."""

    source: Source
    row: int
    number: int
    regions: ImageRegions
    result: RegionResult

    @property
    def ref(self) -> ImageRef:
        return self.source.pool[self.row]

    @property
    def label(self) -> float:
        return float(self.regions.quality[self.number])


def region_figures(run: Run, scorer: Scorer, sources: Sequence[Source], report: Progress) -> Regions | None:
    """The evaluation of a run's regions with examples; None where the recipe has no regions.

    Args:
        run: finished up to the evaluation of regions.
        scorer: the exported student, as users score with it.
        sources: of the student.
        report: called with pictures done and in all.
    """
    if run.recipe.regions is None:
        return None
    results = read_region_results(run)
    split, part = read_split(run.training), Part(results["part"])
    held = [
        (source, row)
        for source in sources
        if source.regions is not None
        for row in rows_of(source, split, part)
        if source.regions.at(row) is not None
    ]
    chosen = [held[at] for at in np.unique(np.linspace(0, len(held) - 1, min(len(held), _MOST_PICTURES)).astype(int))]
    scored: list[_Scored] = []
    for done, (source, row) in enumerate(chosen, start=1):
        scored += _scored(scorer, source, row)
        report(done, len(chosen))
    by_quality = sorted(scored, key=lambda one: one.result.quality)
    by_distance = sorted(scored, key=lambda one: -abs(one.result.quality - one.label))
    worst, best, farthest = (
        [example for one in _of_other_scenes(order) if (example := _example(scorer, one)) is not None]
        for order in (by_quality, by_quality[::-1], by_distance)
    )
    pictures = len({(one.source.name, one.row) for one in scored})
    return Regions(results, len(scored), pictures, worst=worst, best=best, farthest=farthest, types=_types(held))


def _scored(scorer: Scorer, source: Source, row: int) -> Iterator[_Scored]:
    made = _score(scorer, source, row)
    if made is None:
        return
    _, regions, result = made
    for number, one in enumerate(result.regions):
        if one.status == Status.OK:
            yield _Scored(source, row, number, regions, one)


def _score(scorer: Scorer, source: Source, row: int) -> tuple[np.ndarray, ImageRegions, Result] | None:
    """Pixels, regions and scores of a picture; None if it can no longer be read, as in the evaluation."""
    regions = None if source.regions is None else source.regions.at(row)
    if regions is None:
        return None
    try:
        rgb = source.pool.load(source.pool[row])
    except ImageError:
        return None
    masks = [{"size": [regions.height, regions.width], "counts": text} for text in regions.counts]
    return rgb, regions, scorer.score(rgb, regions=masks)


def _of_other_scenes(order: Sequence[_Scored]) -> list[_Scored]:
    """The first regions of an order, each of another scene: copies of one picture look alike."""
    firsts = {one.ref.group or one.ref.id: one for one in reversed(order)}
    kept = {id(one) for one in firsts.values()}
    return list(islice((one for one in order if id(one) in kept), _EXAMPLES))


def _example(scorer: Scorer, one: _Scored) -> RegionExample | None:
    made = _score(scorer, one.source, one.row)
    if made is None:
        return None
    rgb, regions, result = made
    box, inner = decode_inner(regions.counts[one.number], regions.height, regions.width)
    quality, importance = one.result.quality, one.result.importance
    known = float(regions.importance[one.number])
    done, level = _known(one.ref, regions, one.number), distortion_in(one.ref, regions.names[one.number])[1]
    panels = region_panels(
        rgb,
        result.shown_map,
        [OutlinedRegion(None, box, inner, quality)],
        across=scorer.map_extent(rgb.shape, result.shown_map.shape),
        most_px=_PANEL_PX,
    )
    original = one.source.pool.by_id(one.ref.ref_id) if one.ref.ref_id else one.ref
    return RegionExample(
        original.uri.rpartition("/")[2],
        one.source.name,
        "" if done is None else "not distorted" if done == CLEAN else f"{done.replace('_', ' ')}, {level:g}",
        quality=quality,
        importance=importance,
        quality_label=one.label,
        importance_label=known if np.isfinite(known) else None,
        panels=panels,
    )


def _known(ref: ImageRef, regions: ImageRegions, number: int) -> str | None:
    """The distortion that the pool says was done to a region; None where the pool does not say."""
    if not ref.distortion:
        return None
    return distortion_in(ref, regions.names[number])[0] or CLEAN


def _types(held: Sequence[tuple[Source, int]]) -> dict[str, dict[str, dict[str, int]]]:
    """By teacher that names types: known distortion, named distortion, and number of regions."""
    counts: dict[str, dict[str, Counter[str]]] = {}
    for source, row in held:
        table, ref = source.regions, source.pool[row]
        regions = None if table is None or not table.names_types else table.at(row)
        if table is None or regions is None:
            continue
        for number, named in enumerate(regions.types):
            known = _known(ref, regions, number)
            if known is not None and named:
                of_teacher = counts.setdefault(table.teacher.name, {})
                of_teacher.setdefault(known, Counter())[named] += 1
    return {teacher: {known: dict(own) for known, own in rows.items()} for teacher, rows in counts.items()}
