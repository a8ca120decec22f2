"""How good a student or teacher is: on held-out scenes against its targets, on benchmarks against people."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill.data.examples import Source
from distill.data.ratings import targets_of
from distill.data.regions import ImageRegions, RegionTable, region_targets
from distill.data.split import Part, Split, read_split
from distill.evaluation.evaluate import evaluate
from distill.evaluation.hash_overlap import find_overlap, pool_prints
from distill.evaluation.predictions import Predictions, predict
from distill.evaluation.regions import evaluate_regions
from distill.evaluation.samples import pool_samples
from distill.evaluation.targets import Targets
from distill.leakage.record import facts, read_overlap
from distill.recipe.stages import MoreRegionsSection, expanded
from distill.stages.benchmark import evaluate_on
from distill.stages.context import REGION_RESULTS, Run, Stage, make_once
from distill.stages.fitting import all_fit_sources, fit_sources
from distill.stages.leakage import (
    Comparison,
    ImageSets,
    held_out_image_sets,
    near_duplicate_ids,
    near_duplicates_held_out,
    near_duplicates_in_benchmarks,
)
from distill.stages.student import label_sources, student_settings
from distill.terminal.summaries import evaluation_line, region_line
from distill.training.student import STUDENT, configured_student
from pseudo_labels.distort.catalogue import MIN_SIDE_PX
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import checksummed_json, read_record, sha256_file, write_atomic
from pseudo_labels.images import ImageError
from pseudo_labels.outputs import read_manifest
from pseudo_labels.parallel import Progress
from pseudo_labels.pool import Pool
from pseudo_labels.records import Status
from pseudo_labels.regions.masks import box_of, grown
from students.base import Student, score_images
from students.regions import cells_of
from students.regions import score_regions as pool_maps
from students.registry import build_student
from students.storage import load_student

KIND, REGION_KIND = "evaluation", "region-evaluation"
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
        # None is listed as trained on: each of them was learned from by some teachers, and is scored by the others.
        return HeldOut(pool, list(targets.ids), {}, targets)
    # The split is read as the training wrote it: drawn again, it would follow today's pool and settings.
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
    # NaN first, so that images that were seen without a score still count as seen when overlap is looked for.
    return HeldOut(pool, list(targets.ids), dict.fromkeys(seen, float("nan")) | scores, targets)


def image_sets_of(out: HeldOut) -> ImageSets:
    """The images of the pool that the model learned from, and those that it never saw."""
    return held_out_image_sets(out.pool, out.trained, out.targets)


def labels_are_unseen(run: Run) -> bool:
    """Whether the recipe's labels of an image are those of teachers that never saw it."""
    label = run.recipe.label
    return len(run.recipe.fits) > 1 and label is not None and label.unseen


def evaluation_stages(run: Run) -> list[Stage]:
    """The exported student, or the fitted teacher of a recipe without student; and the regions, if there are any."""
    if fits_regions_alone(run):
        # Its targets are regions: there is no whole image to score.
        return [Stage("evaluate-regions", run.region_evaluation, partial(_evaluate_teacher_regions, run))]
    stages = [Stage("evaluate", run.evaluation, partial(_evaluate, run))]
    if run.recipe.regions is not None and run.recipe.distill is not None:
        stages.append(Stage("evaluate-regions", run.region_evaluation, partial(_evaluate_regions, run)))
    return stages


def fits_regions_alone(run: Run) -> bool:
    """Whether all that the recipe makes is teachers of regions."""
    return run.recipe.distill is None and all(section.of_regions for section in run.recipe.fits.values())


def _evaluate_teacher_regions(run: Run, overwrite: bool, report: Progress) -> str:
    # Late, because it needs packages that only teachers of regions need.
    from distill.stages.region_fitting import evaluate_teacher

    sources = fit_sources(run, next(iter(run.recipe.fits)))
    return region_line(evaluate_teacher(run, sources, overwrite=overwrite, report=report))


def _evaluate_regions(run: Run, overwrite: bool, report: Progress) -> str:
    split = read_split(run.training)
    part = Part.TEST if split.count(Part.TEST) else Part.VALIDATION
    tests = [
        _RegionTest(source.name, source.pool, source.regions, rows_of(source, split, part))
        for source in label_sources(run)
        if source.regions is not None
    ]
    tests += [_other_test(run, section) for section in run.recipe.more_regions if section.test]
    spec = {
        "training": read_manifest(run.training).digest,
        "regions": [test.table.digest for test in tests],
        "seed": run.recipe.seed,
    }
    make = partial(_predict_regions, run, tests, part, report)
    make_once(run.region_evaluation, REGION_KIND, spec, make, overwrite=overwrite)
    return region_line(read_region_results(run))


class _RegionTest(NamedTuple):
    """Rows of a pool with labelled regions, on which a student is evaluated."""

    name: str
    pool: Pool
    table: RegionTable
    rows: list[int]


def _other_test(run: Run, section: MoreRegionsSection) -> _RegionTest:
    """All copies of photographs that nothing was learned from."""
    copies, regions, labels = (run.more_regions(section.name, part) for part in ("copies", "regions", "labels"))
    pool = Pool.open(copies)
    table = RegionTable.open(pool, regions, labels)
    return _RegionTest(section.name, pool, table, [row for row in table.rows if pool[row].ref_id])


def _predict_regions(
    run: Run, tests: Sequence[_RegionTest], held_out_part: Part, report: Progress, folder: Path
) -> dict[str, Any]:
    """Regions of held-out scenes, by the student, the student before it learned, crops and whole pictures."""
    config = student_settings(run)
    after = load_student(run.training / STUDENT)
    # Regions were read from the maps of the score then.
    before = build_student(
        replace(configured_student(config.student), regions=None),
        init=config.student.init, pretrained=config.student.pretrained, seed=config.seed,
    )  # fmt: skip
    total, done, results = sum(len(test.rows) for test in tests), 0, {}
    for name_of_test, pool, table, rows in tests:
        quality: dict[str, list[np.ndarray]] = {name: [] for name in ("student", "before", "crop", "whole")}
        importance: dict[str, list[np.ndarray]] = {name: [] for name in ("student", "before", "area")}
        read = []
        for row in rows:
            regions, ref = table.at(row), pool[row]
            try:
                image = None if regions is None else pool.load(ref)
            except ImageError:
                image = None  # as in training: an image that can no longer be read is left out
            done += 1
            report(done, total)
            if regions is None or image is None:
                continue
            read.append(row)
            for name, student in (("student", after), ("before", before)):
                scored = score_regions(student, image, regions)
                quality[name].append(scored.quality)
                importance[name].append(scored.importance)
                if name == "student":
                    quality["whole"].append(np.full(len(regions.names), scored.score))
            quality["crop"].append(_crop_scores(after, image, regions))
            importance["area"].append(np.array([mask.mean() for mask in regions.masks()]))
        joined = [{name: np.concatenate(values) for name, values in one.items()} for one in (quality, importance)]
        targets = region_targets(table, pool, read)
        results[name_of_test] = evaluate_regions(targets, *joined, seed=run.recipe.seed)
        for name, part_of in targets.selections().items():
            quality_of, importance_of = ({key: values[part_of] for key, values in one.items()} for one in joined)
            results[f"{name_of_test}, {name}"] = evaluate_regions(
                targets.take(part_of), quality_of, importance_of, seed=run.recipe.seed
            )
    record = {"part": held_out_part.value, "sources": results}
    write_atomic(folder / REGION_RESULTS, checksummed_json(record))
    return {REGION_RESULTS: sha256_file(folder / REGION_RESULTS)}


def rows_of(source: Source, split: Split, part: Part) -> list[int]:
    """Rows of one part, each image once: a duplicate has the id of the image that it repeats."""
    return [row for row, ref in enumerate(source.pool) if ref.status == Status.OK and split.parts.get(ref.id) == part]


class RegionScores(NamedTuple):
    """What a student says of an image: score of the whole, and float64 [R] quality and importance of its regions."""

    score: float
    quality: np.ndarray
    importance: np.ndarray


def score_regions(student: Student, image: np.ndarray, regions: ImageRegions) -> RegionScores:
    """Score the regions of an image from the maps of the whole image, as the student is used."""
    output = score_images(student, [image])[0]
    resized = student.config.preprocess.resize(image).shape
    maps = [one.numpy() for one in output.region_maps]
    cells = cells_of(image.shape, maps[0].shape, resized, student.config.region_stride)
    pooled = [(one.quality, one.importance) for one in pool_maps(maps[0], maps[1], cells, regions.masks())]
    quality, importance = np.array(pooled, np.float64).T
    return RegionScores(float(output.score), quality, importance)


def _crop_scores(student: Student, image: np.ndarray, regions: ImageRegions) -> np.ndarray:
    """Scores of the boxes around the regions, grown to what a student can score."""
    crops = []
    for counts in regions.counts:
        box = box_of(counts, regions.height, regions.width)
        left, top, width, height = grown(box, regions.height, regions.width, least=MIN_SIDE_PX)
        crops.append(np.ascontiguousarray(image[top : top + height, left : left + width]))
    return np.array([float(output.score) for output in score_images(student, crops)])


def read_region_results(run: Run) -> dict[str, Any]:
    """``part`` of the split, and by source what ``evaluation.regions.evaluate_regions`` gave."""
    return read_record(run.region_evaluation / REGION_RESULTS, what="evaluation of regions")


def _evaluate(run: Run, overwrite: bool, report: Progress) -> str:
    fits, student = run.recipe.fits, run.recipe.distill is not None
    fitted = [read_manifest(run.fitting_of(name)).digest for name in fits]
    spec = {
        # Digests of what the run made, not paths: a run folder that was moved is still up to date.
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
    # The fused teacher has seen every image through one of its members; the stored labels are of the others alone.
    model = str(run.labels) if run.recipe.distill is None and labels_are_unseen(run) else next(iter(models))
    predictions = predict(model, pool_samples(out.pool, out.ids), name=run.recipe.name, progress=report)
    overlap = find_overlap(pool_prints(out.pool, out.trained), pool_prints(out.pool, out.ids))
    learned = learned_from(run)
    comparisons = _leakage(run, learned, out, folder, report)
    near = comparisons[0].under(folder)
    # Hashes recognise equal files and almost equal pictures; another photograph of the same scene takes features.
    known = set(overlap.ids) | (set() if near is None else near_duplicate_ids(near, out.pool, out.ids))
    evaluation = evaluate([predictions], out.targets, overlapping=known, seed=run.recipe.seed)
    results = {
        "held_out": evaluation | ({} if near is None else {"near": facts(read_overlap(near))}),
        "overlap": overlap.as_dict(),
        "benchmarks": _benchmarks(run, models, learned, [one.under(folder) for one in comparisons[1:]], report),
        "near": [one.as_dict() for one in comparisons],
    }
    write_atomic(folder / PREDICTIONS, checksummed_json(predictions.as_dict()))
    write_atomic(folder / RESULTS, checksummed_json(results))
    return {name: sha256_file(folder / name) for name in (PREDICTIONS, RESULTS)}


def _models(run: Run) -> dict[str, str | None]:
    """The models that benchmarks evaluate, with names for tables: the recipe's own result first, then its teachers."""
    recipe = run.recipe
    # The order counts: tables compare all others with the first.
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
    return read_record(run.evaluation / RESULTS, what="evaluation")


def read_all_results(run: Run) -> list[dict[str, Any]]:
    """Every evaluation of the run, the held-out part first."""
    results = read_results(run)
    return [results["held_out"], *results["benchmarks"]]


def read_predictions(run: Run) -> Predictions:
    """Scores of the student, or of the teacher of a recipe without one, on the held-out images."""
    return Predictions.from_dict(read_record(run.evaluation / PREDICTIONS, what="predictions"))
