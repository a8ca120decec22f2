"""How good a student or teacher is: on held-out scenes against what it learned, on benchmarks against people."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from distill.benchmarking import evaluate_on
from distill.console import Report
from distill.data import Source
from distill.evaluation.evaluate import evaluate
from distill.evaluation.overlap import find_overlap, pool_prints
from distill.evaluation.predictions import Predictions, predict
from distill.evaluation.samples import pool_samples
from distill.evaluation.targets import Targets
from distill.opinions import targets_of
from distill.split import Part, read_split
from distill.stage_config import expanded
from distill.stages.context import Run, Stage, make_once
from distill.stages.fitting import fit_sources
from distill.stages.student import label_sources
from distill.summaries import evaluation_line
from pseudo_labels.files import canonical_json, sha256_file
from pseudo_labels.outputs import read_manifest
from pseudo_labels.pool import Pool

KIND = "evaluation"
RESULTS, PREDICTIONS = "evaluation.json", "predictions.json"


@dataclass(frozen=True)
class HeldOut:
    """What the student never saw.

    Attributes:
        pool: that the images are of.
        ids: of the images.
        trained: ids of the images of the same pool that it was trained on.
        targets: the teacher's labels of ``ids``, or the opinions of people.
    """

    pool: Pool
    ids: list[str]
    trained: list[str]
    targets: Targets


def held_out(run: Run) -> HeldOut:
    """The test part of what the recipe's model learned from first; validation where no test part was set aside."""
    of_teacher = run.recipe.distill is None
    source = (fit_sources(run) if of_teacher else label_sources(run))[0]
    split = read_split(run.fitting if of_teacher else run.training)
    part = Part.TEST if split.count(Part.TEST) else Part.VALIDATION
    pool = source.pool
    ids, seen = ([ref.id for ref in pool.ok() if split.parts.get(ref.id) == own] for own in (part, Part.TRAIN))
    targets = targets_of(source, ids)
    return HeldOut(pool, list(targets.ids), seen, targets)


def judging_stages(run: Run) -> list[Stage]:
    """One stage, for the exported student, or for the fitted teacher of a recipe without student."""
    return [Stage("evaluate", run.evaluation, partial(_evaluate, run))]


def _evaluate(run: Run, overwrite: bool, report: Report) -> str:
    fitted, student = run.recipe.fit is not None, run.recipe.distill is not None
    spec = {
        "model": sha256_file(run.model) if student else None,
        "training": read_manifest(run.training).digest if student else None,
        "fitting": read_manifest(run.fitting).digest if fitted else None,
        "labels": [source.labels.digest for source in _learned_from(run)],
        "benchmarks": [section.model_dump(mode="json") for section in run.recipe.evaluate],
        "seed": run.recipe.seed,
    }
    make_once(run.evaluation, KIND, spec, partial(_judge, run, report), overwrite=overwrite)
    return evaluation_line(read_results(run)["held_out"])


def _judge(run: Run, report: Report, folder: Path) -> dict[str, Any]:
    out = held_out(run)
    # The recipe's own teacher stands beside its student where people have judged.
    models = ([str(run.model)] if run.recipe.distill else []) + ([str(run.fitted_teacher)] if run.recipe.fit else [])
    found = predict(models[0], pool_samples(out.pool, out.ids), name=run.recipe.name, progress=report)
    overlap = find_overlap(pool_prints(out.pool, out.trained), pool_prints(out.pool, out.ids))
    results = {
        "held_out": evaluate([found], out.targets, overlapping=overlap.ids, seed=run.recipe.seed),
        "overlap": overlap.as_dict(),
        "benchmarks": _benchmarks(run, models, report),
    }
    (folder / PREDICTIONS).write_bytes(canonical_json(found.as_dict()))
    (folder / RESULTS).write_bytes(canonical_json(results))
    return {name: sha256_file(folder / name) for name in (PREDICTIONS, RESULTS)}


def _benchmarks(run: Run, models: list[str], report: Report) -> list[dict[str, Any]]:
    trained_on = [source.pool.folder for source in _learned_from(run)]
    return [
        evaluate_on(
            models,
            expanded(section.opinions),
            names=[run.recipe.name],  # of the model that the recipe ends with
            split=section.split,
            trained_on=trained_on,
            progress=report,
        )
        for section in run.recipe.evaluate
    ]


def _learned_from(run: Run) -> list[Source]:
    return [*fit_sources(run), *([] if run.recipe.distill is None else label_sources(run))]


def read_results(run: Run) -> dict[str, Any]:
    """``held_out`` and ``benchmarks``, as ``evaluation.evaluate`` gave them, and ``overlap``."""
    return json.loads((run.evaluation / RESULTS).read_text(encoding="utf-8"))


def read_all_results(run: Run) -> list[dict[str, Any]]:
    """Every evaluation of the run, the held-out part first."""
    results = read_results(run)
    return [results["held_out"], *results["benchmarks"]]


def read_predictions(run: Run) -> Predictions:
    """Scores of the student, or of the teacher of a recipe without one, on the held-out images."""
    return Predictions.from_dict(json.loads((run.evaluation / PREDICTIONS).read_text(encoding="utf-8")))
