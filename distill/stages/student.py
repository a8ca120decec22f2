"""Labels to model file: training the student and exporting it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from distill.data.examples import Source
from distill.data.ratings import left_out, open_sources
from distill.recipe.recipe import first_weights
from distill.recipe.stages import SourceSection
from distill.recipe.training import LiveSettings, TrainConfig
from distill.stages.check import check_student
from distill.stages.context import Run, Stage, is_complete, make_once, open_run, walk
from distill.stages.data import region_sources
from distill.stages.export import export_checkpoint
from distill.terminal import console
from distill.training.student import train
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import sha256_file
from pseudo_labels.outputs import read_manifest
from pseudo_labels.parallel import Progress

EXPORT_KIND = "export"
# The name that this folder had in the first version: runs made by it are found and not made again.
RATINGS = "opinions"


def label_sources(run: Run, *, overwrite: bool = False, progress: Progress | None = None) -> list[Source]:
    """The sources of the student: the recipe's own labels first, then those that existed before, then its own levels.

    Args:
        run: the run; its pools of rated images are made if they are not there yet.
        overwrite: make pools of rated images anew whose images or settings changed.
        progress: called with images measured and in total, for each new pool.

    Raises:
        PocketiqaError: the first source, on which the student is evaluated, holds labels of crops, or none.
    """
    # Own labels first: the student is evaluated on its first source, and ``reporting`` counts on this order.
    sections = [*_own_sections(run), *run.recipe.sources, *_own_levels(run)]
    sources = open_sources(sections, run.out / RATINGS, run.recipe.seed, progress, overwrite=overwrite)
    if sources and sources[0].of_crops:
        raise PocketiqaError(
            f"the student is evaluated on its first source, but {sources[0].name!r} holds labels of crops, not "
            "of whole images: name another source first, or add 'label'"
        )
    if sources and sources[0].levels is not None:
        raise PocketiqaError(
            f"the student is evaluated on its first source, but {sources[0].name!r} has an order of levels and no "
            "scores: name a source with labels or ratings first"
        )
    return sources


def _own_levels(run: Run) -> list[SourceSection]:
    """The copies of the recipe's own pool of which the order alone is learned."""
    section = run.recipe.levels
    return [] if section is None else [SourceSection(pool=run.levels, drops=section.drops, weight=section.weight)]


def _own_sections(run: Run) -> list[SourceSection]:
    """What the recipe itself labels: its pool, with regions if it has any, and the copies distorted in one region."""
    recipe = run.recipe
    if recipe.label is None:
        return []
    own = SourceSection(pool=run.labelled_pool, labels=run.labels)
    by_region = region_sources(run)
    if recipe.regions is None or recipe.distort is None:
        return [own, *by_region]
    # The distorted pool has labels of whole images and of regions: one source.
    return [by_region[0].model_copy(update={"labels": run.labels}), *by_region[1:]]


def student_stages(run: Run) -> list[Stage]:
    """Training and export."""
    return [
        Stage("distill", run.training, partial(_distill, run)),
        Stage("export", run.model.parent, partial(_export, run)),
    ]


def _distill(run: Run, overwrite: bool, report: Progress) -> str:
    sources = label_sources(run, overwrite=overwrite, progress=report)
    for note in left_out(sources):
        console.warn(note)
    result = train(
        student_settings(run), sources, run.training, overwrite=overwrite, progress=report, warn=console.warn
    )
    for note in result.notes:
        console.warn(note)
    return f"weights of step {result.step} of {student_settings(run).steps}"


def student_settings(run: Run) -> TrainConfig:
    """The training part of the recipe, with files and teachers in place of what the recipe calls them."""
    config = run.recipe.distill
    if config is None:
        raise PocketiqaError("the recipe has no section 'distill': add one, or fit its teacher only")
    changes: dict[str, Any] = {}
    if config.student.init is not None:
        # Only now: a weight average that another recipe or command makes may not exist when the recipe is read.
        weights = first_weights(str(config.student.init))
        changes["student"] = config.student.model_copy(update={"init": weights})
    if config.live is not None and config.live.teacher is None:
        changes["live"] = _live(run, config.live)
    return config.model_copy(update=changes)


def _live(run: Run, settings: LiveSettings) -> LiveSettings:
    """The teacher of the section ``label`` as the live one."""
    label = run.recipe.label
    if label is None:
        raise PocketiqaError("distill.live names no teacher, and there is no section 'label' to take it from: add one")
    # Options of ``live`` are laid over those of ``label``: a live teacher may have a smaller input than the one that
    # labels.
    return LiveSettings(teacher=label.teacher or str(run.fitted_teacher), options=label.options | settings.options)


def _export(run: Run, overwrite: bool, report: Progress) -> str:
    half = run.recipe.export.half
    spec = {"training": read_manifest(run.training).digest, "name": run.recipe.name} | ({"half": True} if half else {})

    def make(folder: Path) -> dict[str, Any]:
        # An export that was killed before its manifest was finished has left this file, which would be refused.
        run.model.unlink(missing_ok=True)
        export_checkpoint(run.training, folder / run.model.name, name=run.recipe.name, half=half)
        report(1, 1)
        return {"sha256": sha256_file(run.model)}

    make_once(run.model.parent, EXPORT_KIND, spec, make, overwrite=overwrite)
    return f"{run.model} ({run.model.stat().st_size / 1e6:.1f} MB)"


def _check_earlier_stages(run: Run) -> None:
    """Name the command to run where the student would learn from what is not made yet.

    Raises:
        PocketiqaError: a stage before the training has not run, or was interrupted.
    """
    recipe, needed = run.recipe, dict[str, Path]()
    if recipe.label is not None:
        needed |= {"pool": run.pool, "distort": run.labelled_pool, "label": run.labels}
    for section in _own_sections(run):
        if section.regions is not None and section.region_labels is not None:
            needed |= {"regions": section.regions, f"labels of {section.region_labels.name}": section.region_labels}
    if recipe.levels is not None:
        needed |= {"pool": run.pool, "levels": run.levels}
    if recipe.weight_average is not None:
        needed["weight_average"] = run.averaged_teacher
    missing = {stage: folder for stage, folder in needed.items() if not is_complete(folder)}
    if missing:
        folders = ", ".join(dict.fromkeys(map(str, missing.values())))
        raise PocketiqaError(
            f"the student of {recipe.name!r} learns from earlier stages that have not run to their end "
            f"({', '.join(missing)}: {folders}): run `{run.command}`, which makes what they make, trains the student "
            "and goes on to the report"
        )


def distill_recipe(
    name: str, *, out: Path | None = None, settings: Sequence[str] = (), overwrite: bool = False
) -> None:
    """Train the student of a recipe from labels that its earlier stages, or other commands, made.

    Raises:
        PocketiqaError: labels are missing, or the training failed; it can be resumed.
    """
    run = open_run(name, out, settings)
    if run.recipe.distill is None:
        raise PocketiqaError(f"recipe {name!r} has no section 'distill': 'pocketiqa fit-teacher' fits its teacher")
    _check_earlier_stages(run)
    check_student(run)
    # Training alone: every process of a distributed run comes here, and the export is for one process.
    walk(student_stages(run)[0], overwrite=overwrite)
    if console.is_main_process():
        console.out.print(f"student: {run.training / 'student'}", markup=False)
