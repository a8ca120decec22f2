"""Ratings to teacher: fitting, and the weight average of several fittings."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from distill.data.examples import Source
from distill.data.ratings import left_out, open_sources
from distill.recipe.stages import WeightAverageSection
from distill.stages.check import check_fits
from distill.stages.context import Run, Stage, make_once, open_run, walk
from distill.terminal import console
from distill.training.teacher import fit_teacher
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.outputs import read_manifest
from pseudo_labels.parallel import Progress
from teachers.qfm_iqm.weight_average import average_fitted

# The name that these folders had in the first version: runs made by it are found and not made again.
RATINGS = "opinions"
AVERAGE_KIND = "merged"


def fitting_stages(run: Run) -> list[Stage]:
    """One for each teacher that the recipe fits."""
    return [
        Stage(f"fit-{name}" if name else "fit", run.fitting_of(name), partial(_fit, run, name))
        for name in run.recipe.fits
    ]


def fit_sources(run: Run, name: str, *, overwrite: bool = False, progress: Progress | None = None) -> list[Source]:
    """The sources that a teacher is fitted to.

    Args:
        run: the run; its pools of rated images are made if they are not there yet.
        name: key of ``recipe.fits``.
        overwrite: make pools of rated images anew whose images or settings changed.
        progress: called with images measured and in total, for each new pool.
    """
    fitting = run.fitting_of(name)
    # Beside the fitting, not inside: its folder must be empty when the training claims it.
    folder = fitting.with_name(f"{fitting.name}-{RATINGS}")
    return open_sources(run.recipe.fits[name].sources, folder, run.recipe.seed, progress, overwrite=overwrite)


def all_fit_sources(run: Run) -> list[Source]:
    """The sources of all teachers of the recipe, one teacher after another; empty if it fits none."""
    return [source for name in run.recipe.fits for source in fit_sources(run, name)]


def _fit(run: Run, name: str, overwrite: bool, report: Progress) -> str:
    section, sources = run.recipe.fits[name], fit_sources(run, name, overwrite=overwrite, progress=report)
    for note in left_out(sources):
        console.warn(note)
    result = fit_teacher(
        section, sources, run.fitting_of(name), overwrite=overwrite, progress=report, warn=console.warn
    )
    for note in result.notes:
        console.warn(note)
    srcc = result.validation["score"]
    return f"{section.teacher}, weights of step {result.step}, SRCC {srcc:.3f} on validation"


def averaging_stages(run: Run) -> list[Stage]:
    """One stage, if the recipe averages weights."""
    section = run.recipe.weight_average
    return [] if section is None else [Stage("merge", run.averaged_teacher, partial(_average, run, section))]


def _average(run: Run, section: WeightAverageSection, overwrite: bool, report: Progress) -> str:
    # The digest of a fitting covers its weights: a teacher that was fitted anew makes a new average.
    fitted = [read_manifest(run.fitting_of(name)).digest for name in section.names]

    def make(folder: Path) -> dict[str, Any]:
        # Into a subfolder: a teacher's folder is replaced as a whole, and this one holds our manifest.
        digest = average_fitted(
            [str(run.teacher_of(name)) for name in section.names], folder / "teacher", half=section.half
        )
        report(1, 1)
        return {"fitted": digest}

    make_once(run.averaged_teacher, AVERAGE_KIND, {"fitted": fitted, "half": section.half}, make, overwrite=overwrite)
    return f"{run.averaged_teacher} from {', '.join(section.names)}"


def fit_recipe(name: str, *, out: Path | None = None, settings: Sequence[str] = (), overwrite: bool = False) -> None:
    """Fit the teachers of a recipe to its ratings.

    Raises:
        PocketiqaError: the recipe fits no teacher, or the fitting failed; it can be resumed.
    """
    run = open_run(name, out, settings)
    if not run.recipe.fits:
        raise PocketiqaError(
            f"recipe {name!r} has no section 'fit': choose one that fits a teacher, or add the section"
        )
    check_fits(run)
    for stage in fitting_stages(run):
        walk(stage, overwrite=overwrite)
    if console.is_main_process():
        for teacher in map(run.teacher_of, run.recipe.fits):
            console.out.print(
                f"teacher: {teacher}\nlabel a pool with it: pocketiqa label POOL --teacher {teacher} --out DIR",
                markup=False,
            )
