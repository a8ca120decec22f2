"""Labels to model file: training the student and exporting it."""

from functools import partial
from pathlib import Path
from typing import Any

from distill.console import Report, warn
from distill.data import Source
from distill.exporting import export_checkpoint
from distill.stage_config import SourceSection
from distill.stages.context import Run, Stage, make_once
from distill.train import train
from pseudo_labels.files import sha256_file
from pseudo_labels.outputs import read_manifest
from pseudo_labels.pool import Pool
from pseudo_labels.store import LabelStore

EXPORT_KIND = "export"


def label_sources(run: Run) -> list[SourceSection]:
    """What the student learns from: the recipe's own labels first, then those that were there before."""
    own = [] if run.recipe.label is None else [SourceSection(pool=run.labelled_pool, labels=run.labels)]
    return [*own, *run.recipe.sources]


def student_stages(run: Run) -> list[Stage]:
    """Training and export."""
    return [
        Stage("distill", run.training, partial(_distill, run)),
        Stage("export", run.model.parent, partial(_export, run)),
    ]


def _distill(run: Run, overwrite: bool, report: Report) -> str:
    sources = [_source(number, section) for number, section in enumerate(label_sources(run))]
    result = train(run.recipe.distill, sources, run.training, overwrite=overwrite, progress=report)
    for note in result.notes:
        warn(note)
    return f"weights of step {result.step} of {run.recipe.distill.steps}"


def _source(number: int, section: SourceSection) -> Source:
    store = LabelStore.open(section.labels)
    return Source(f"{number}-{store.spec.stamp.name}", Pool.open(section.pool), store, section.weight)


def _export(run: Run, overwrite: bool, report: Report) -> str:
    spec = {"training": read_manifest(run.training).digest, "name": run.recipe.name}

    def make(folder: Path) -> dict[str, Any]:
        run.model.unlink(missing_ok=True)
        export_checkpoint(run.training, folder / run.model.name, name=run.recipe.name)
        report(1, 1)
        return {"sha256": sha256_file(run.model)}

    make_once(run.model.parent, EXPORT_KIND, spec, make, overwrite=overwrite)
    return f"{run.model} ({run.model.stat().st_size / 1e6:.1f} MB)"
