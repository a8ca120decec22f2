"""``pocketiqa run``: all stages of a recipe in order; unchanged stages are skipped."""

from collections.abc import Sequence
from pathlib import Path

from distill.stages.check import check_run
from distill.stages.context import Run, open_run, walk
from distill.stages.data import data_stages
from distill.stages.demonstration import demonstration_stages, read_demonstration
from distill.stages.evaluation import evaluation_stages, read_all_results
from distill.stages.fitting import averaging_stages, fitting_stages
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
    # Fitting comes before the data, for the fitted teachers and their average label the pool.
    stages = [*fitting_stages(run), *averaging_stages(run), *data_stages(run)]
    if run.recipe.distill is not None:
        stages += student_stages(run)
    # The report is last: it gathers what all others wrote.
    for stage in [*stages, *evaluation_stages(run), *demonstration_stages(run), *reporting_stages(run)]:
        walk(stage, overwrite=overwrite)
    _show_results(run)


def _show_results(run: Run) -> None:
    recipe = run.recipe
    for result in read_all_results(run):
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
    console.out.print(f"report: {(run.report / PAGE).resolve()}", markup=False)
