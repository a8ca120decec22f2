"""How good a student or teacher is: on held-out scenes against its targets, on benchmarks against people."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from distill.data.examples import Source
from distill.data.ratings import targets_of
from distill.data.split import Part, read_split
from distill.evaluation.evaluate import evaluate
from distill.evaluation.hash_overlap import find_overlap, pool_prints
from distill.evaluation.predictions import Predictions, predict
from distill.evaluation.samples import pool_samples
from distill.evaluation.targets import Targets
from distill.leakage.record import facts, read_overlap
from distill.recipe.stages import expanded
from distill.stages.benchmark import evaluate_on
from distill.stages.context import Run, Stage, make_once
from distill.stages.fitting import all_fit_sources, fit_sources
from distill.stages.leakage import (
    Comparison,
    ImageSets,
    held_out_image_sets,
    near_duplicate_ids,
    near_duplicates_held_out,
    near_duplicates_in_benchmarks,
)
from distill.stages.student import label_sources
from distill.terminal.summaries import evaluation_line
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import canonical_json, read_json, sha256_file
from pseudo_labels.outputs import read_manifest
from pseudo_labels.parallel import Progress
from pseudo_labels.pool import Pool

KIND = "evaluation"
RESULTS, PREDICTIONS = "evaluation.json", "predictions.json"


@dataclass(frozen=True)
class HeldOut:
    """Images that the model never saw, and what it should score them.

    Attributes:
        pool: pool that holds the images.
        ids: ids of the images.
        trained: ids of the images of the same pool that it was trained on, with the scores that it learned; NaN where
            there is none.
        targets: the teacher's labels of ``ids``, or the ratings of people.
    """

    pool: Pool
    ids: list[str]
    trained: dict[str, float]
    targets: Targets


def held_out(run: Run) -> HeldOut:
    """The test part of the first source of the recipe's model; the validation part where no test part was set aside.

    With teachers that each label only what they have not seen, it is all that the first of them learned from: those
    images are scored by the others.

    Raises:
        PocketiqaError: several teachers have together seen all images.
    """
    of_teacher = run.recipe.distill is None
    source = (fit_sources(run, next(iter(run.recipe.fits))) if of_teacher else label_sources(run))[0]
    pool = source.pool
    if of_teacher and labels_are_unseen(run):
        targets = targets_of(source, [ref.id for ref in pool.ok()])
        return HeldOut(pool, list(targets.ids), {}, targets)
    folders = [run.fitting_of(name) for name in run.recipe.fits] if of_teacher else [run.training]
    splits = [read_split(folder) for folder in folders]
    part = Part.TEST if splits[0].count(Part.TEST) else Part.VALIDATION
    # Of several teachers in one, an image counts as seen if any of them learned from it.
    seen = [ref.id for ref in pool.ok() if any(split.parts.get(ref.id) == Part.TRAIN for split in splits)]
    known = set(seen)
    ids = [ref.id for ref in pool.ok() if splits[0].parts.get(ref.id) == part and ref.id not in known]
    if not ids:
        raise PocketiqaError(
            f"each image of {source.name!r} was learned from by one of {', '.join(run.recipe.fits)}, so none is left "
            "to evaluate them together: set label.unseen: true, or add 'distill' for a student"
        )
    targets = targets_of(source, ids)
    learned = targets_of(source, seen)
    scores = dict(zip(learned.ids, learned.scores.tolist(), strict=True))
    return HeldOut(pool, list(targets.ids), dict.fromkeys(seen, float("nan")) | scores, targets)


def image_sets_of(out: HeldOut) -> ImageSets:
    """The images of the pool that the model learned from, and those that it never saw."""
    return held_out_image_sets(out.pool, out.trained, out.targets)


def labels_are_unseen(run: Run) -> bool:
    """Whether the recipe's labels of an image are those of teachers that never saw it."""
    label = run.recipe.label
    return len(run.recipe.fits) > 1 and label is not None and label.unseen


def evaluation_stages(run: Run) -> list[Stage]:
    """One stage, for the exported student, or for the fitted teacher of a recipe without student."""
    return [Stage("evaluate", run.evaluation, partial(_evaluate, run))]


def _evaluate(run: Run, overwrite: bool, report: Progress) -> str:
    fits, student = run.recipe.fits, run.recipe.distill is not None
    fitted = [read_manifest(run.fitting_of(name)).digest for name in fits]
    spec = {
        "model": sha256_file(run.model) if student else None,
        "training": read_manifest(run.training).digest if student else None,
        "fitting": fitted[0] if len(fits) == 1 else fitted or None,
        "labels": [source.labels.digest for source in learned_from(run)],
        "benchmarks": [section.stored() for section in run.recipe.evaluate],
        "seed": run.recipe.seed,
    }
    make_once(run.evaluation, KIND, spec, partial(_predict_and_evaluate, run, report), overwrite=overwrite)
    return evaluation_line(read_results(run)["held_out"])


def _predict_and_evaluate(run: Run, report: Progress, folder: Path) -> dict[str, Any]:
    out = held_out(run)
    models = _models(run)
    model = str(run.labels) if run.recipe.distill is None and labels_are_unseen(run) else next(iter(models))
    predictions = predict(model, pool_samples(out.pool, out.ids), name=run.recipe.name, progress=report)
    overlap = find_overlap(pool_prints(out.pool, out.trained), pool_prints(out.pool, out.ids))
    learned = learned_from(run)
    comparisons = _leakage(run, learned, out, folder, report)
    near = comparisons[0].under(folder)
    known = set(overlap.ids) | (set() if near is None else near_duplicate_ids(near, out.pool, out.ids))
    evaluation = evaluate([predictions], out.targets, overlapping=known, seed=run.recipe.seed)
    results = {
        "held_out": evaluation | ({} if near is None else {"near": facts(read_overlap(near))}),
        "overlap": overlap.as_dict(),
        "benchmarks": _benchmarks(run, models, learned, [one.under(folder) for one in comparisons[1:]], report),
        "near": [one.as_dict() for one in comparisons],
    }
    (folder / PREDICTIONS).write_bytes(canonical_json(predictions.as_dict()))
    (folder / RESULTS).write_bytes(canonical_json(results))
    return {name: sha256_file(folder / name) for name in (PREDICTIONS, RESULTS)}


def _models(run: Run) -> dict[str, str | None]:
    """The models that benchmarks evaluate, with names for tables: the recipe's own result first, then its teachers."""
    recipe = run.recipe
    models: dict[str, str | None] = {}
    if recipe.distill:
        models[str(run.model)] = recipe.name
    if recipe.fits:
        models[str(run.fitted_teacher)] = None if recipe.distill else recipe.name
    if len(recipe.fits) > 1:
        models |= {str(run.teacher_of(name)): name for name in recipe.fits}
    if recipe.weight_average is not None:
        models[str(run.averaged_teacher)] = "merged"
    return models


def _leakage(run: Run, learned: Sequence[Source], out: HeldOut, folder: Path, report: Progress) -> list[Comparison]:
    """Near duplicates of what was learned from: in the held-out part first, then in each benchmark."""
    recipe = run.recipe
    held = near_duplicates_held_out(image_sets_of(out), folder, seed=recipe.seed, report=report)
    return [held, *near_duplicates_in_benchmarks(learned, recipe.evaluate, folder, seed=recipe.seed, report=report)]


def _benchmarks(
    run: Run, models: dict[str, str | None], learned: Sequence[Source], near: Sequence[Path | None], report: Progress
) -> list[dict[str, Any]]:
    trained_on = [source.pool.folder for source in learned]
    return [
        evaluate_on(
            list(models),
            expanded(section.ratings),
            names=list(models.values()),
            split=section.split,
            trained_on=trained_on,
            near=near[number],
            progress=report,
        )
        for number, section in enumerate(run.recipe.evaluate)
    ]


def learned_from(run: Run) -> list[Source]:
    """All sources that any model of the run has learned from."""
    return [*all_fit_sources(run), *([] if run.recipe.distill is None else label_sources(run))]


def read_results(run: Run) -> dict[str, Any]:
    """``held_out`` and ``benchmarks``, as ``evaluation.evaluate`` gave them, and ``overlap``.

    And ``near``: a ``leakage.Comparison`` of the held-out part, then of each benchmark.
    """
    return read_json(run.evaluation / RESULTS, what="results of the evaluation")


def read_all_results(run: Run) -> list[dict[str, Any]]:
    """Every evaluation of the run, the held-out part first."""
    results = read_results(run)
    return [results["held_out"], *results["benchmarks"]]


def read_predictions(run: Run) -> Predictions:
    """Scores of the student, or of the teacher of a recipe without one, on the held-out images."""
    return Predictions.from_dict(read_json(run.evaluation / PREDICTIONS, what="predictions"))
