"""How well the model of one run agrees with people: its scores of the study's benchmark, image by image."""

from functools import partial
from pathlib import Path
from typing import Any

from distill.evaluation.benchmarks import load_benchmark
from distill.evaluation.evaluate import evaluate
from distill.evaluation.predictions import Predictions, predict
from distill.evaluation.samples import benchmark_samples
from distill.evaluation.targets import Targets, targets_from_benchmark
from distill.recipe.recipe import Recipe
from distill.recipe.stages import expanded
from distill.stages.context import Stage, is_complete, make_once
from distill.study.sensitivity import measure
from distill.study.sharing import CellRun
from pseudo_labels.files import canonical_json, digest_of, read_json, sha256_file
from pseudo_labels.outputs import read_manifest
from pseudo_labels.parallel import Progress
from teachers.fitted_folder import read_fitted_folder
from teachers.qfm_iqm import QfmIqmTeacher
from teachers.registry import TEACHERS, build_teacher

KIND = "judgement"
PREDICTIONS, RESULTS, SENSITIVITY = "predictions.json", "evaluation.json", "sensitivity.json"
_DECODERS = 2


def evaluation_stage(run: CellRun) -> Stage:
    """The student, or the teacher of a run without one, against the ratings of the recipe's benchmark."""
    return Stage("evaluate", run.evaluation, partial(_evaluate, run))


def _evaluate(run: CellRun, overwrite: bool, report: Progress) -> str:
    # No near duplicates are looked for (``section.near_duplicate_cosine``): a study compares arms on the same images,
    # near duplicates among them, and each cell would pay for the features of its training images.
    section = run.recipe.evaluate[0]
    benchmark = load_benchmark(expanded(section.ratings)).select(section.split)
    targets = targets_from_benchmark(benchmark)
    student = run.recipe.distill is not None
    model = sha256_file(run.model) if student else _teacher_digest(run)
    spec = {"model": model, **basis_of(run.recipe, targets)}

    def make(folder: Path) -> dict[str, Any]:
        model = run.model if student else run.fitted_teacher
        samples = benchmark_samples(benchmark)
        predictions = predict(model, samples, name=run.recipe.name, workers=_DECODERS, progress=report)
        result = evaluate([predictions], targets, seed=run.recipe.seed)
        (folder / PREDICTIONS).write_bytes(canonical_json(predictions.as_dict()))
        (folder / RESULTS).write_bytes(canonical_json(result))
        written = [PREDICTIONS, RESULTS]
        teacher = None if student else _qfm_iqm(model)
        if teacher is not None:
            (folder / SENSITIVITY).write_bytes(canonical_json(measure(teacher, samples, targets)))
            written.append(SENSITIVITY)
        return {name: sha256_file(folder / name) for name in written}

    make_once(run.evaluation, KIND, spec, make, overwrite=overwrite)
    scored = sum(score is not None for score in _record(run.evaluation)["scores"])
    return f"{scored} of {len(targets.ids)} images of {targets.name} have a score"


def _qfm_iqm(folder: Path) -> QfmIqmTeacher | None:
    """A fitted teacher whose sensitivity can be measured; others of the registry, large ones too, are not built."""
    name, _ = read_fitted_folder(str(folder))
    if name in TEACHERS and name != "qfm_iqm":
        return None
    teacher = build_teacher(str(folder))
    return teacher if isinstance(teacher, QfmIqmTeacher) else None


def _teacher_digest(run: CellRun) -> str:
    """Identity of the fitted teacher; of several, their fusion names them all."""
    return read_manifest(run.labels if len(run.recipe.fits) > 1 else run.fitting).digest


def read_evaluation(run: CellRun, targets: Targets) -> Predictions | None:
    """Scores of the model of a run, in the order of the targets.

    None if there are none yet, or if they are of other settings or ratings: results from before and after a change
    must not be mixed.
    """
    folder = run.evaluation
    if not is_complete(folder):
        return None
    spec = read_manifest(folder, KIND).spec
    if any(spec[name] != digest for name, digest in basis_of(run.recipe, targets).items()):
        return None
    return Predictions.from_dict(_record(folder)).aligned(targets.ids)


def read_sensitivity(run: CellRun) -> dict[str, Any] | None:
    """The record of ``sensitivity.measure``, of a run that ``read_evaluation`` accepts; None if not measured."""
    path = run.evaluation / SENSITIVITY
    return read_json(path, what="sensitivity") if path.is_file() else None


def basis_of(recipe: Recipe, targets: Targets) -> dict[str, str]:
    """Digests of the settings, and of images, ratings and groups."""
    return {
        "recipe": digest_of(recipe.stored(exclude={"name", "out"})),
        "targets": digest_of([targets.name, targets.ids, targets.scores.tolist(), targets.groups]),
    }


def _record(folder: Path) -> dict[str, Any]:
    return read_json(folder / PREDICTIONS, what="predictions")
