"""Photographs of a rated benchmark as the pool of a run: those that the run's own opinions say nothing of."""

from functools import partial

from distill.console import Report
from distill.evaluation.benchmarks import names_benchmark
from distill.opinions import OpinionTable, open_sources, opinion_source
from distill.stage_config import PoolSection, expanded
from distill.stages.context import Stage
from distill.stages.data import data_stages
from distill.study.sharing import CellRun
from distill.summaries import pool_line
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of
from pseudo_labels.pool import Pool, write_pool


def pool_stages(run: CellRun) -> list[Stage]:
    """Pool, distort and label; a source of the pool may be a benchmark, as for ``pocketiqa evaluate --on``.

    Of a benchmark it is the train part that is pooled (all of one without splits), without its scores, and without the
    images that the recipe's ``sources`` have opinions of: these need no teacher.
    """
    section, stages = run.recipe.pool, data_stages(run)
    rated = [] if section is None else [source for source in section.sources if names_benchmark(source)]
    if section is None or not rated:
        return stages
    if len(section.sources) > 1:
        raise PocketiqaError(
            f"the pool of {run.recipe.name!r} has {len(section.sources)} sources and one is the benchmark {rated[0]!r}:"
            " name the benchmark alone"
        )
    stage = Stage("pool", run.pool, partial(_make, run, section))
    return [stage if found.folder == run.pool else found for found in stages]


def _make(run: CellRun, section: PoolSection, overwrite: bool, report: Report) -> str:
    whole = _whole(run, section.sources[0], overwrite, report)
    rated = _rated(run, overwrite)
    left_out = sorted(ref.id for ref in whole if ref.id in rated)
    made = write_pool(
        run.pool,
        [ref for ref in whole if ref.id not in rated],
        spec={"benchmark": whole.manifest.spec, "without": digest_of(left_out), "left_out": len(left_out)},
        overwrite=overwrite,
    )
    if not made.ok():
        raise PocketiqaError(
            f"the opinions of {run.recipe.name!r} cover all of {section.sources[0]}: nothing is left to be labelled; "
            "take fewer images, or leave pool and label out"
        )
    return pool_line(made)


def _whole(run: CellRun, source: str, overwrite: bool, report: Report) -> Pool:
    """All of the part, measured once for all runs."""
    folder = run.shared / f"part-{digest_of(source)[:12]}"
    return opinion_source(expanded(source), None, folder, overwrite=overwrite, progress=report).pool


def _rated(run: CellRun, overwrite: bool) -> set[str]:
    sources = open_sources(run.recipe.sources, run.pool_home / "rated", run.recipe.seed, overwrite=overwrite)
    return {id for source in sources if isinstance(source.labels, OpinionTable) for id in source.labels.ids}
