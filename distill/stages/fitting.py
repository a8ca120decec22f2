"""Ratings or labelled regions to teacher: fitting, its further forms, and the weight average of several fittings."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from distill.data.examples import Source
from distill.data.ratings import left_out, open_sources
from distill.recipe.stages import WeightAverageSection
from distill.stages.check import check_fits
from distill.stages.context import Run, Stage, is_complete, make_once, open_run, walk
from distill.stages.data import region_sources
from distill.terminal import console
from distill.training.solved_teacher import fit_solved, is_solved
from distill.training.teacher import FitResult, fit_teacher
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.outputs import read_manifest
from pseudo_labels.parallel import Progress
from teachers.qfm_iqm.weight_average import average_fitted

# The name that these folders had in the first version: runs made by it are found and not made again.
RATINGS = "opinions"
AVERAGE_KIND = "merged"


def fitting_stages(run: Run) -> list[Stage]:
    """One for each teacher that the recipe fits, and one for the further forms of it that are wanted."""
    stages = []
    for name, section in run.recipe.fits.items():
        stages.append(Stage(f"fit-{name}" if name else "fit", run.fitting_of(name), partial(_fit, run, name)))
        if section.exports:
            folder = run.exports_of(name)
            stages.append(Stage(folder.name, folder, partial(_export, run, name)))
    return stages


def fit_sources(run: Run, name: str, *, overwrite: bool = False, progress: Progress | None = None) -> list[Source]:
    """The sources that a teacher is fitted to.

    Args:
        run: the run; its pools of rated images are made if they are not there yet.
        name: key of ``recipe.fits``.
        overwrite: make pools of rated images anew whose images or settings changed.
        progress: called with images measured and in total, for each new pool.
    """
    fitting, section = run.fitting_of(name), run.recipe.fits[name]
    # Beside the fitting, not inside: its folder must be empty when the training claims it.
    folder = fitting.with_name(f"{fitting.name}-{RATINGS}")
    sections = section.sources or region_sources(run)
    return open_sources(sections, folder, run.recipe.seed, progress, overwrite=overwrite)


def all_fit_sources(run: Run) -> list[Source]:
    """The sources of all teachers of the recipe, one teacher after another; empty if it fits none."""
    return [source for name in run.recipe.fits for source in fit_sources(run, name)]


def _fit(run: Run, name: str, overwrite: bool, report: Progress) -> str:
    section, sources = run.recipe.fits[name], fit_sources(run, name, overwrite=overwrite, progress=report)
    for note in left_out(sources):
        console.warn(note)
    fit: Callable[..., FitResult] = fit_teacher
    if section.of_regions:
        # Late, because it needs packages that only teachers of regions need.
        from distill.stages.region_fitting import fit_sources_regions as fit
    elif is_solved(section):
        fit = fit_solved

    result = fit(section, sources, run.fitting_of(name), overwrite=overwrite, progress=report, warn=console.warn)
    for note in result.notes:
        console.warn(note)
    srcc, what = result.validation["score"], " of region quality" if section.of_regions else ""
    if is_solved(section):
        return f"{section.teacher}, solved, SRCC {srcc:.3f} on scenes held out"
    return f"{section.teacher}, weights of step {result.step}, SRCC{what} {srcc:.3f} on validation"


def _export(run: Run, name: str, overwrite: bool, report: Progress) -> str:
    from distill.stages.region_fitting import export_teacher

    return export_teacher(run, name, overwrite=overwrite, report=report)


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
    _check_own_regions(run)
    for stage in fitting_stages(run):
        walk(stage, overwrite=overwrite)
    if console.is_main_process():
        for name, section in run.recipe.fits.items():
            teacher = run.teacher_of(name)
            use = "label-regions POOL --regions REGIONS" if section.of_regions else "label POOL"
            console.out.print(
                f"teacher: {teacher}\nlabel a pool with it: pocketiqa {use} --teacher {teacher} --out DIR", markup=False
            )


def _check_own_regions(run: Run) -> None:
    """Name the command to run where the recipe's own regions are not made yet.

    Raises:
        PocketiqaError: a stage before the fitting has not run, or was interrupted.
    """
    if not run.recipe.fits_own_regions:
        return
    folders = [folder for one in region_sources(run) for folder in (one.pool, one.regions, one.region_labels) if folder]
    missing = [str(folder) for folder in dict.fromkeys(folders) if not is_complete(folder)]
    if missing:
        raise PocketiqaError(
            f"the teacher of {run.recipe.name!r} learns from regions that are not made yet ({', '.join(missing)}): run "
            f"`{run.command.replace('fit-teacher', 'run', 1)}`, which makes them and fits the teacher"
        )
