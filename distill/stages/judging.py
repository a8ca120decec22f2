"""How good the student is: on held-out scenes against its teacher, and on benchmarks against people."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from distill.benchmarking import evaluate_on
from distill.console import Report
from distill.evaluation.evaluate import evaluate
from distill.evaluation.overlap import find_overlap, pool_prints
from distill.evaluation.predictions import Predictions, predict
from distill.evaluation.samples import pool_samples
from distill.evaluation.targets import Targets, targets_from_labels
from distill.split import Part, read_split
from distill.stages.context import Run, Stage, make_once
from distill.stages.student import label_sources
from distill.summaries import evaluation_line
from pseudo_labels.files import canonical_json, sha256_file
from pseudo_labels.outputs import read_manifest
from pseudo_labels.pool import Pool
from pseudo_labels.store import LabelStore

KIND = "evaluation"
RESULTS, PREDICTIONS = "evaluation.json", "predictions.json"


@dataclass(frozen=True)
class HeldOut:
    """What the student never saw.

    Attributes:
        pool: that the images are of.
        ids: of the images.
        trained: ids of the images of the same pool that it was trained on.
        targets: the teacher's labels of ``ids``.
    """

    pool: Pool
    ids: list[str]
    trained: list[str]
    targets: Targets


def held_out(run: Run) -> HeldOut:
    """The test part of the first labelled pool; the validation part where the recipe sets no test part aside."""
    source = label_sources(run)[0]
    split = read_split(run.training)
    part = Part.TEST if split.count(Part.TEST) else Part.VALIDATION
    pool = Pool.open(source.pool)
    ids, trained = ([ref.id for ref in pool.ok() if split.parts.get(ref.id) == own] for own in (part, Part.TRAIN))
    targets = targets_from_labels(LabelStore.open(source.labels), pool, ids)
    return HeldOut(pool, list(targets.ids), trained, targets)


def judging_stages(run: Run) -> list[Stage]:
    """One stage; it needs the training and the exported model."""
    return [Stage("evaluate", run.evaluation, partial(_evaluate, run))]


def _evaluate(run: Run, overwrite: bool, report: Report) -> str:
    benchmarks = [section.model_dump(mode="json") for section in run.recipe.evaluate]
    spec = {
        "model": sha256_file(run.model),
        "training": read_manifest(run.training).digest,
        "labels": [LabelStore.open(source.labels).digest for source in label_sources(run)],
        "benchmarks": benchmarks,
        "seed": run.recipe.seed,
    }
    make_once(run.evaluation, KIND, spec, partial(_judge, run, report), overwrite=overwrite)
    return evaluation_line(read_results(run)["held_out"])


def _judge(run: Run, report: Report, folder: Path) -> dict[str, Any]:
    out = held_out(run)
    student = predict(run.model, pool_samples(out.pool, out.ids), name=run.recipe.name, progress=report)
    overlap = find_overlap(pool_prints(out.pool, out.trained), pool_prints(out.pool, out.ids))
    results = {
        "held_out": evaluate([student], out.targets, overlapping=overlap.ids, seed=run.recipe.seed),
        "overlap": overlap.as_dict(),
        "benchmarks": [
            evaluate_on([str(run.model)], section.on, split=section.split, trained_on=_trained_on(run), progress=report)
            for section in run.recipe.evaluate
        ],
    }
    (folder / PREDICTIONS).write_bytes(canonical_json(student.as_dict()))
    (folder / RESULTS).write_bytes(canonical_json(results))
    return {name: sha256_file(folder / name) for name in (PREDICTIONS, RESULTS)}


def _trained_on(run: Run) -> list[Path]:
    return [source.pool for source in label_sources(run)]


def read_results(run: Run) -> dict[str, Any]:
    """``held_out`` and ``benchmarks``, as ``evaluation.evaluate`` gave them, and ``overlap``."""
    return json.loads((run.evaluation / RESULTS).read_text(encoding="utf-8"))


def read_predictions(run: Run) -> Predictions:
    """Scores of the student on the held-out images."""
    return Predictions.from_dict(json.loads((run.evaluation / PREDICTIONS).read_text(encoding="utf-8")))
