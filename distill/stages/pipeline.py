"""``pocketiqa run``: all stages of a recipe in order; unchanged stages are skipped."""

from collections.abc import Sequence
from pathlib import Path

from distill.stages.check import check_run
from distill.stages.context import REGION_RESULTS, Run, Stage, open_run, walk
from distill.stages.data import data_stages, label_stages, pool_stages, region_stages
from distill.stages.demonstration import demonstration_stages, read_demonstration
from distill.stages.evaluation import evaluation_stages, fits_regions_alone, read_all_results
from distill.stages.fitting import averaging_stages, fitting_stages
from distill.stages.fusing import fusing_stages
from distill.stages.reporting import PAGE, reporting_stages
from distill.stages.student import student_stages
from distill.terminal import console
from distill.terminal.summaries import demonstration_table, evaluation_tables


def run_recipe(name: str, *, out: Path | None = None, settings: Sequence[str] = (), overwrite: bool = False) -> None:
    """Walk all stages of a recipe and print the result.

    Args:
        name: name of the recipe, or its path.
        out: replaces the recipe's ``out``.
        settings: ``KEY=VALUE`` words laid over the recipe.
        overwrite: redo stages whose settings or inputs changed; without it they are refused.

    Raises:
        PocketiqaError: the recipe has a fault, which is found before the first stage; or a stage failed, and what was
            finished before stays.
    """
    run = open_run(name, out, settings)
    check_run(run)
    stages = _first_stages(run)
    if run.recipe.distill is not None:
        stages += student_stages(run)
    # The report is last: it gathers what all others wrote.
    stages += [*evaluation_stages(run), *demonstration_stages(run)]
    # The page is of models of whole images.
    stages += [] if fits_regions_alone(run) else reporting_stages(run)
    for stage in stages:
        walk(stage, overwrite=overwrite)
    _show_results(run)


def _first_stages(run: Run) -> list[Stage]:
    """Teachers, photographs and labels, in the order in which each finds what it needs."""
    # Fitting comes before the labels, for the fitted teachers and their average label the pool.
    fits = [*fitting_stages(run), *averaging_stages(run)]
    if run.recipe.fits_own_regions:
        return [*pool_stages(run), *region_stages(run), *fits, *label_stages(run), *fusing_stages(run)]
    return [*fits, *data_stages(run)]


def _show_results(run: Run) -> None:
    recipe, by_region = run.recipe, fits_regions_alone(run)
    for result in [] if by_region else read_all_results(run):
        for table in evaluation_tables(result):
            console.out.print(table)
    if recipe.score is not None:
        console.out.print(demonstration_table([(one.name, one.scores) for one in read_demonstration(run)]))
    if recipe.fits:
        console.out.print(f"teacher: {run.fitted_teacher}", markup=False)
    if recipe.weight_average is not None:
        console.out.print(f"weight average: {run.averaged_teacher}", markup=False)
    if recipe.distill is not None:
        console.out.print(f"model:  {run.model}", markup=False)
    page = run.region_evaluation / REGION_RESULTS if by_region else run.report / PAGE
    console.out.print(f"report: {page.resolve()}", markup=False)
