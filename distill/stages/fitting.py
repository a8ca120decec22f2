"""Opinions to teacher: fitting."""

from functools import partial

from distill.console import Report, warn
from distill.data import Source
from distill.opinions import left_out, open_sources
from distill.stages.context import Run, Stage
from distill.training.fit_config import FitSection
from distill.training.fit_teacher import fit_teacher

OPINIONS = "fit-opinions"


def fitting_stages(run: Run) -> list[Stage]:
    """One stage, if the recipe fits a teacher."""
    section = run.recipe.fit
    return [] if section is None else [Stage("fit", run.fitting, partial(_fit, run, section))]


def fit_sources(run: Run, *, overwrite: bool = False, progress: Report | None = None) -> list[Source]:
    """What the recipe's teacher is fitted to; none if it fits none.

    Args:
        run: whose pools of opinions are made if they are not there yet.
        overwrite: make pools of opinions anew whose images or settings changed.
        progress: called with images measured and in total, for each new pool.
    """
    sections = () if run.recipe.fit is None else run.recipe.fit.sources
    return open_sources(sections, run.out / OPINIONS, run.recipe.seed, progress, overwrite=overwrite)


def _fit(run: Run, section: FitSection, overwrite: bool, report: Report) -> str:
    sources = fit_sources(run, overwrite=overwrite, progress=report)
    for note in left_out(sources):
        warn(note)
    result = fit_teacher(section, sources, run.fitting, overwrite=overwrite, progress=report, warn=warn)
    for note in result.notes:
        warn(note)
    srcc = result.validation["score"]
    return f"{section.teacher}, weights of step {result.step}, SRCC {srcc:.3f} on validation"
