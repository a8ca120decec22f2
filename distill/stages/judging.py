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
    """The test part of the first labelled pool; the validation part where the recipe sets no test part aside."""
    source = label_sources(run)[0]
    split = read_split(run.training)
    part = Part.TEST if split.count(Part.TEST) else Part.VALIDATION
    pool = source.pool
    ids, trained = ([ref.id for ref in pool.ok() if split.parts.get(ref.id) == own] for own in (part, Part.TRAIN))
    targets = targets_of(source, ids)
    return HeldOut(pool, list(targets.ids), trained, targets)


def judging_stages(run: Run) -> list[Stage]:
    """One stage; it needs the training and the exported model."""
    return [Stage("evaluate", run.evaluation, partial(_evaluate, run))]


def teacher_judging_stages(run: Run) -> list[Stage]:
    """One stage for a recipe that ends with a fitted teacher, if it names benchmarks."""
    return [Stage("evaluate", run.evaluation, partial(_evaluate_teacher, run))] if run.recipe.evaluate else []


def _evaluate(run: Run, overwrite: bool, report: Report) -> str:
    spec = {
        "model": sha256_file(run.model),
        "training": read_manifest(run.training).digest,
        "labels": [source.labels.digest for source in label_sources(run)],
        **_common_spec(run),
    }
    make_once(run.evaluation, KIND, spec, partial(_judge, run, report), overwrite=overwrite)
    return evaluation_line(read_results(run)["held_out"])


def _common_spec(run: Run) -> dict[str, Any]:
    fitted = {} if run.recipe.fit is None else {"fitted": read_manifest(run.fitting).digest}
    benchmarks = [section.model_dump(mode="json") for section in run.recipe.evaluate]
    return {"benchmarks": benchmarks, "seed": run.recipe.seed, **fitted}


def _evaluate_teacher(run: Run, overwrite: bool, report: Report) -> str:
    def judge(folder: Path) -> dict[str, Any]:
        results = {"benchmarks": _benchmarks(run, [str(run.fitted_teacher)], report)}
        (folder / RESULTS).write_bytes(canonical_json(results))
        return {RESULTS: sha256_file(folder / RESULTS)}

    make_once(run.evaluation, KIND, _common_spec(run), judge, overwrite=overwrite)
    return evaluation_line(read_results(run)["benchmarks"][0])


def _benchmarks(run: Run, models: list[str], report: Report) -> list[dict[str, Any]]:
    trained_on = _trained_on(run)
    return [
        evaluate_on(models, expanded(section.opinions), split=section.split, trained_on=trained_on, progress=report)
        for section in run.recipe.evaluate
    ]


def _judge(run: Run, report: Report, folder: Path) -> dict[str, Any]:
    out = held_out(run)
    student = predict(run.model, pool_samples(out.pool, out.ids), name=run.recipe.name, progress=report)
    overlap = find_overlap(pool_prints(out.pool, out.trained), pool_prints(out.pool, out.ids))
    # The recipe's own teacher beside its student, where people have judged.
    models = [str(run.model)] + ([] if run.recipe.fit is None else [str(run.fitted_teacher)])
    results = {
        "held_out": evaluate([student], out.targets, overlapping=overlap.ids, seed=run.recipe.seed),
        "overlap": overlap.as_dict(),
        "benchmarks": _benchmarks(run, models, report),
    }
    (folder / PREDICTIONS).write_bytes(canonical_json(student.as_dict()))
    (folder / RESULTS).write_bytes(canonical_json(results))
    return {name: sha256_file(folder / name) for name in (PREDICTIONS, RESULTS)}


def _trained_on(run: Run) -> list[Path]:
    learned = [] if run.recipe.distill is None else label_sources(run)
    return [source.pool.folder for source in [*fit_sources(run), *learned]]


def read_results(run: Run) -> dict[str, Any]:
    """``held_out`` and ``benchmarks``, as ``evaluation.evaluate`` gave them, and ``overlap``."""
    return json.loads((run.evaluation / RESULTS).read_text(encoding="utf-8"))


def read_all_results(run: Run) -> list[dict[str, Any]]:
    """Every evaluation of the run, the held-out part first; none if nothing was evaluated."""
    if not (run.evaluation / RESULTS).is_file():
        return []
    results = read_results(run)
    return [*([results["held_out"]] if "held_out" in results else []), *results["benchmarks"]]


def read_predictions(run: Run) -> Predictions:
    """Scores of the student on the held-out images."""
    return Predictions.from_dict(json.loads((run.evaluation / PREDICTIONS).read_text(encoding="utf-8")))
