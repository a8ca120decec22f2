"""``pocketiqa run``: all stages of a recipe in order; what is unchanged is skipped, what changed is said."""

import time
from collections.abc import Sequence
from pathlib import Path

from distill.recipe.recipe import load_recipe, with_places
from distill.stages.context import Run, Stage, is_complete
from distill.stages.data import data_stages
from distill.stages.demonstration import demonstration_stages, read_demonstration
from distill.stages.evaluation import evaluation_stages, read_all_results
from distill.stages.fitting import fitting_stages, merging_stages
from distill.stages.reporting import PAGE, reporting_stages
from distill.stages.student import student_stages
from distill.terminal import console
from distill.terminal.summaries import demonstration_table, evaluation_tables
from pseudo_labels.errors import OutputConflictError, PocketiqaError


def run_recipe(name: str, *, out: Path | None = None, settings: Sequence[str] = (), overwrite: bool = False) -> None:
    """Walk all stages of a recipe and print the result.

    Args:
        name: of the recipe, or its path.
        out: replaces the recipe's ``out``.
        settings: ``KEY=VALUE`` words laid over the recipe.
        overwrite: redo stages whose settings or inputs changed; without it they are refused.

    Raises:
        PocketiqaError: the recipe or a stage failed; what was finished before stays.
    """
    run = _open_run(name, out, settings)
    stages = [*fitting_stages(run), *merging_stages(run), *data_stages(run)]
    if run.recipe.distill is not None:
        stages += student_stages(run)
    for stage in [*stages, *evaluation_stages(run), *demonstration_stages(run), *reporting_stages(run)]:
        walk(stage, overwrite=overwrite)
    _show_results(run)


def _show_results(run: Run) -> None:
    recipe = run.recipe
    for result in read_all_results(run):
        for table in evaluation_tables(result):
            console.out.print(table)
    if recipe.score is not None:
        console.out.print(demonstration_table([(found.name, found.scores) for found in read_demonstration(run)]))
    if recipe.fits:
        console.out.print(f"teacher: {run.fitted_teacher}", markup=False)
    if recipe.weight_average is not None:
        console.out.print(f"merged: {run.averaged_teacher}", markup=False)
    if recipe.distill is not None:
        console.out.print(f"model:  {run.model}", markup=False)
    console.out.print(f"report: {(run.report / PAGE).resolve()}", markup=False)


def fit_only(name: str, *, out: Path | None = None, settings: Sequence[str] = (), overwrite: bool = False) -> None:
    """Fit the teachers of a recipe to its opinions.

    Raises:
        PocketiqaError: the recipe fits no teacher, or the fitting failed; it can be resumed.
    """
    run = _open_run(name, out, settings)
    if not run.recipe.fits:
        raise PocketiqaError(
            f"recipe {name!r} has no section 'fit': choose one that fits a teacher, or add the section"
        )
    for stage in fitting_stages(run):
        walk(stage, overwrite=overwrite)
    if console.is_main_process():
        for teacher in map(run.teacher_of, run.recipe.fits):
            console.out.print(
                f"teacher: {teacher}\nlabel a pool with it: pocketiqa label POOL --teacher {teacher} --out DIR",
                markup=False,
            )


def distill_only(name: str, *, out: Path | None = None, settings: Sequence[str] = (), overwrite: bool = False) -> None:
    """Train the student of a recipe from labels that its earlier stages, or other commands, made.

    Raises:
        PocketiqaError: labels are missing, or the training failed; it can be resumed.
    """
    run = _open_run(name, out, settings)
    if run.recipe.distill is None:
        raise PocketiqaError(f"recipe {name!r} has no section 'distill': 'pocketiqa fit-teacher' fits its teacher")
    walk(student_stages(run)[0], overwrite=overwrite)
    if console.is_main_process():
        console.out.print(f"student: {run.training / 'student'}", markup=False)


def _open_run(name: str, out: Path | None, settings: Sequence[str]) -> Run:
    recipe = with_places(load_recipe(name, settings, out))
    words = ["pocketiqa run", name, *(f"--set '{word}'" for word in settings), *([f"--out {out}"] if out else [])]
    return Run(recipe, recipe.out, " ".join(words))


def walk(stage: Stage, *, overwrite: bool) -> None:
    """Do one stage under a progress bar, unless it was done before with the same settings and inputs."""
    done_before = is_complete(stage.folder)
    started = time.monotonic()
    with console.progress(f"{stage.name:<9}", visible=console.is_main_process()) as report:
        try:
            summary = stage.make(False, report)
        except OutputConflictError as conflict:
            if not overwrite:
                raise
            console.warn(f"{stage.name} is made anew: {conflict}")
            done_before = False
            summary = stage.make(True, report)
    if console.is_main_process():
        state = "unchanged, skipped" if done_before else f"{time.monotonic() - started:.0f} s"
        console.out.print(f"{stage.name:<9} {summary} ({state})", markup=False)
