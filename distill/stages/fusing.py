"""Labels of several teachers to one store, and the teachers as one."""

from functools import partial
from pathlib import Path
from typing import Any

from distill.console import Report
from distill.fusing import fuse_labels
from distill.stage_config import FuseSection, expanded
from distill.stages.context import Run, Stage
from distill.summaries import store_line
from teachers.composite.fused import NAME as FUSED
from teachers.composite.fused import fused_options
from teachers.fitted_folder import write_teacher_folder


def fusing_stages(run: Run) -> list[Stage]:
    """One stage, if the recipe fuses."""
    section = run.recipe.fuse
    return [] if section is None else [Stage("fuse", run.labels, partial(_fuse, run, section))]


def _fuse(run: Run, section: FuseSection, overwrite: bool, report: Report) -> str:
    store = fuse_labels(
        [run.labels_of(name) for name in run.recipe.labellers],
        run.labels,
        on=None if section.opinions is None else expanded(section.opinions),
        split=section.split,
        calibrate=section.calibrate or ("none" if section.opinions is None else "auto"),
        rule=section.rule,
        carry=section.features,
        seed=run.recipe.seed,
        overwrite=overwrite,
        progress=report,
    )
    if len(run.recipe.fits) > 1:
        write_teacher_folder(run.fitted_teacher, FUSED, fused_options(store.folder, _members(run)))
    return store_line(store)


def _members(run: Run) -> dict[Path, dict[str, Any]]:
    """How each teacher is built that made a label store."""
    options = {} if run.recipe.label is None else run.recipe.label.options
    return {
        run.labels_of(name): {"teacher": str(run.teacher_of(name).resolve()), "options": options}
        for name in run.recipe.labellers
    }
