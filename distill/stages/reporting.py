"""The report: gathers what the other stages wrote."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from distill.data.examples import Source, teachers_of
from distill.data.ratings import RatingTable
from distill.data.split import Part, Split, join_groups, read_split
from distill.leakage.record import read_overlap
from distill.report import DistortedCopy, Fitting, MapExample, Neighbours, ReportInputs, build_report
from distill.stages.context import Run, Stage, make_once
from distill.stages.data import BUNDLED
from distill.stages.demonstration import Photograph, read_demonstration
from distill.stages.evaluation import (
    HeldOut,
    held_out,
    image_sets_of,
    labels_are_unseen,
    learned_from,
    read_predictions,
    read_results,
)
from distill.stages.fitting import all_fit_sources, fit_sources
from distill.stages.leakage import Comparison, ImageSets, benchmark_image_sets
from distill.stages.measuring import student_cost, teacher_cost
from distill.stages.region_examples import region_figures
from distill.stages.student import label_sources
from distill.training.history import HISTORY, read_history
from pseudo_labels.files import sha256_file
from pseudo_labels.images import load
from pseudo_labels.outputs import MANIFEST, read_manifest
from pseudo_labels.parallel import Progress
from pseudo_labels.photos import photograph_licences
from pseudo_labels.pool import Pool
from pseudo_labels.records import Status
from pseudo_labels.store import LabelStore
from students.runtime import Scorer
from teachers.fitted_folder import FITTED, read_fitted_folder
from teachers.registry import build_teacher

KIND = "report"
PAGE = "report.html"
# Scenes below which a note calls the model a demonstration. The bundled photographs have 13.
_FEW_SCENES = 100


def reporting_stages(run: Run) -> list[Stage]:
    """One stage."""
    return [Stage("report", run.report, partial(_report, run))]


def _report(run: Run, overwrite: bool, report: Progress) -> str:
    spec = {
        # The digest of the evaluation covers model, labels and benchmarks. Costs are measured while the page is made
        # and are not part of it: another time on another day does not make the page anew. Nor is the command line: the
        # same recipe may be named by its path, and the page that is there tells a command that repeats it.
        "evaluation": read_manifest(run.evaluation).digest,
        "demonstration": read_manifest(run.demonstration).digest if run.recipe.score else None,
        # No key where there are no regions: reports of earlier versions stay as they are.
        **({"regions": read_manifest(run.region_evaluation).digest} if run.recipe.regions else {}),
        **_command_of_first_version(run.report),
    }

    def make(folder: Path) -> dict[str, Any]:
        return {"sha256": sha256_file(build_report(_inputs(run, report), folder).html)}

    make_once(run.report, KIND, spec, make, overwrite=overwrite)
    return str(run.report / PAGE)


def _command_of_first_version(folder: Path) -> dict[str, Any]:
    """What reports of the first version have in their spec beside today's: kept as it is, so that they stay."""
    spec = read_manifest(folder).spec if (folder / MANIFEST).is_file() else {}
    return {name: value for name, value in spec.items() if name == "command"}


def _inputs(run: Run, report: Progress) -> ReportInputs:
    out = held_out(run)
    if run.recipe.distill is None:
        return _of_teacher(run, out, all_fit_sources(run), report)
    return _of_student(run, out, label_sources(run), report)


def _of_any_model(run: Run, out: HeldOut, sources: list[Source]) -> ReportInputs:
    """The parts that the page of a student and that of a fitted teacher have in common."""
    folder = run.fitting if run.recipe.distill is None else run.training
    results, split = read_results(run), read_split(folder)
    counts = _split_counts(split, [source.pool for source in sources])
    return ReportInputs(
        title="",
        evaluation=results["held_out"],
        targets=out.targets,
        predictions=[read_predictions(run)],
        model=run.recipe.name,
        benchmarks=results["benchmarks"],
        history=read_history(folder / HISTORY),
        kept_step=read_manifest(folder).content["step"],
        load_image=lambda id: out.pool.load(out.pool.by_id(id)),
        split=counts,
        teachers=[stamp.as_dict() for stamp in teachers_of(sources)],
        overlap=results["overlap"],
        neighbours=_neighbours(run, out, results.get("near")),
        command=run.command,
        notes=[*_notes(run, out, counts), *_mixture(sources)],
    )


def _neighbours(run: Run, out: HeldOut, records: Sequence[dict[str, Any]] | None) -> list[Neighbours]:
    """Near duplicates in the held-out part and in each benchmark, or why none were looked for."""
    if records is None:
        return []  # evaluated by a version without this comparison
    # Functions, as opening a benchmark takes time and is not needed where nothing was compared. The order is that of
    # the records: the held-out part, then each benchmark.
    opening: list[Callable[[], ImageSets]] = [partial(image_sets_of, out)]
    learned = learned_from(run)
    opening += [partial(benchmark_image_sets, learned, section) for section in run.recipe.evaluate]
    return [_neighbour(run, Comparison(**record), sets) for record, sets in zip(records, opening, strict=True)]


def _neighbour(run: Run, comparison: Comparison, open_image_sets: Callable[[], ImageSets]) -> Neighbours:
    folder = comparison.under(run.evaluation)
    if folder is None:
        return Neighbours(comparison.name, reason=comparison.reason)
    image_sets, address = open_image_sets(), f"../{folder.relative_to(run.out)}"
    return Neighbours(
        comparison.name, read_overlap(folder), image_sets.trained.images, image_sets.tested.images, address
    )


def _of_student(run: Run, out: HeldOut, sources: list[Source], report: Progress) -> ReportInputs:
    scorer, first = Scorer(run.model), sources[0].labels
    teacher = first.spec.stamp.name if isinstance(first, LabelStore) else None
    demonstration = read_demonstration(run) if run.recipe.score else []
    cost, machine = student_cost(run.model, scorer.contract, out, report)
    costs = {run.recipe.name: cost}
    if teacher is not None and run.recipe.label is not None:
        name, options = run.recipe.label.teacher, run.recipe.label.options
        built = build_teacher(name or str(run.fitted_teacher), **options)
        fitted = [] if name else _fitted_files(run)
        costs[teacher], beside = teacher_cost(built, out, out.ids, fitted=fitted)
        machine = f"{run.recipe.name}: {machine}. {teacher}: {beside}"
    return replace(
        _of_any_model(run, out, sources),
        title=f"{run.recipe.name}: a pocket-size student of {teacher or f'people ({out.targets.name})'}",
        teacher=teacher,
        costs=costs,
        machine=f"{machine}.",
        fitting=[_fitting(run, name) for name in run.recipe.fits],
        quality_maps=_maps(run, scorer, demonstration),
        distorted=_distorted_copies(run, demonstration),
        regions=region_figures(run, scorer, sources, report),
        pools=[*_own_pools(run), *_rated_pools(_named_sources(run, sources))],
        contract={**scorer.contract.as_dict(), "digest": scorer.digest},
        licence="Apache-2.0 for the weights, as far as the licences of photographs and teachers allow",
    )


def _of_teacher(run: Run, out: HeldOut, sources: list[Source], report: Progress) -> ReportInputs:
    inputs, teacher = _of_any_model(run, out, sources), build_teacher(str(run.fitted_teacher))
    stamp, (predictions,) = teacher.stamp, inputs.predictions
    # Only images that it can score are timed; a refused one would end the report.
    scored = [id for id, status in zip(predictions.ids, predictions.statuses, strict=True) if status == Status.OK]
    cost, machine = teacher_cost(teacher, out, scored, fitted=_fitted_files(run), progress=report)
    facts = {**stamp.as_dict(), "digest": stamp.digest, "base": getattr(teacher, "base", None)}
    return replace(
        inputs,
        title=f"{run.recipe.name}: {stamp.name} fitted to {' and '.join(map(_labels_of, sources))}",
        kind="teacher",
        costs={run.recipe.name: cost},
        machine=f"{machine}.",
        pools=_rated_pools(sources),
        # The model itself comes first: the model card tells it from its teachers by this place.
        teachers=[facts, *inputs.teachers],
        licence=stamp.licence,
    )


def _labels_of(source: Source) -> str:
    if isinstance(source.labels, LabelStore):
        return f"labels of {source.labels.spec.stamp.name}"
    return f"ratings of {source.labels.name if isinstance(source.labels, RatingTable) else source.name}"


def _fitting(run: Run, name: str) -> Fitting:
    """How one of the recipe's own teachers was fitted."""
    folder = run.fitting_of(name)
    kind, _ = read_fitted_folder(str(run.teacher_of(name)))
    step = read_manifest(folder).content["step"]
    title = f"{name} ({kind})" if name else kind
    return Fitting(title, read_history(folder / HISTORY), step, _rated_pools(fit_sources(run, name)))


def _fitted_files(run: Run) -> list[Path]:
    """Files with the fitted tensors of the recipe's own teachers."""
    return [run.teacher_of(name) / FITTED for name in run.recipe.fits]


def _notes(run: Run, out: HeldOut, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Limits that a reader of the figures must know."""
    recipe, notes = run.recipe, []
    # Whose setting ``keep`` counts: the student's, or without a student that of the first fitting.
    learned = recipe.distill or next(iter(recipe.fits.values()))
    if out.targets.source == "teacher":
        notes.append(f"The targets are the scores of {out.targets.name}: agreement with a teacher, not with people.")
    if recipe.distill is None and labels_are_unseen(run):
        notes.append(
            "Each held-out image was scored by the teachers that never saw it; a new image is scored by all of them."
        )
    elif Part.TEST.value not in counts and learned is not None and learned.keep == "best":
        notes.append(
            "No test part was set aside: the held-out figures are of the validation part, on which the step was "
            "chosen, so they are slightly too good."
        )
    if recipe.distill is not None and recipe.distort is not None and not recipe.sources:
        known = ", ".join(recipe.distort.names).replace("_", " ")
        notes.append(f"It learned from synthetic distortions alone ({known}); it may not see other kinds.")
    groups = counts[Part.TRAIN.value]["groups"]
    if groups < _FEW_SCENES:
        notes.append(f"It was trained on {groups} scenes: a demonstration of the method, not a model to rely on.")
    return notes


def _mixture(sources: Sequence[Source]) -> list[str]:
    """The amounts of synthetic distortions and of ratings, of a model that learned from both."""
    distorted = {ref.group for source in sources for ref in source.pool if ref.distortion}
    rated = {id for source in sources if isinstance(source.labels, RatingTable) for id in source.labels.ids}
    if not distorted or not rated:
        return []
    return [f"Its synthetic distortions are of {len(distorted):,} scenes; people rated {len(rated):,} photographs."]


def _maps(run: Run, scorer: Scorer, photographs: list[Photograph]) -> list[MapExample]:
    examples = []
    # Two photographs, each as it is and with its first distortion: the pictures are stored inside the page.
    for photograph in photographs[:2]:
        for version, file in list(photograph.files.items())[:2]:
            path = run.demonstration / file
            result = scorer.score(path)
            name = f"{photograph.name}, {version.replace('_', ' ')}"
            examples.append(MapExample(name, load(path), result.quality_map, result.score))
    return examples


def _distorted_copies(run: Run, photographs: list[Photograph]) -> list[DistortedCopy]:
    copies = []
    for photograph in photographs:
        original = load(run.demonstration / photograph.files["original"])
        for version, file in photograph.files.items():
            if version != "original":
                scores = photograph.scores["original"], photograph.scores[version]
                distorted = load(run.demonstration / file)
                copies.append(DistortedCopy(photograph.name, version.replace("_", " "), *scores, original, distorted))
    return copies


def _named_sources(run: Run, sources: Sequence[Source]) -> Sequence[Source]:
    """Those that the recipe names: behind its own labels, before its own levels."""
    end = len(sources) - (run.recipe.levels is not None)
    return sources[end - len(run.recipe.sources) : end]


def _own_pools(run: Run) -> list[dict[str, Any]]:
    """The photographs of the recipe, and their distorted copies."""
    if run.recipe.pool is None:
        return []
    licence = "as stated by the owners of the photographs"
    if run.recipe.pool.sources == [BUNDLED]:
        licence = "; ".join(f"{name}: {words}" for name, words in photograph_licences().items())
    pools = {"photographs": run.pool} | ({"synthetic": run.synthetic} if run.recipe.distort else {})
    pools |= {"levels": run.levels} if run.recipe.levels else {}
    return [_pool_facts(name, Pool.open(folder), licence) for name, folder in pools.items()]


def _rated_pools(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Pools that were rated or labelled before."""
    return [
        _pool_facts(source.name + (" (crops)" if source.of_crops else ""), source.pool, _terms(source), source.only)
        for source in sources
    ]


def _terms(source: Source) -> str:
    """Citation and licence of ratings."""
    if not isinstance(source.labels, RatingTable):
        return "as stated by the owners of the photographs"
    return f"{source.labels.about['citation']}; {source.labels.about['licence']}"


def _pool_facts(name: str, pool: Pool, licence: str, only: Collection[str] | None = None) -> dict[str, Any]:
    """Counts of a pool; ``only`` are the ids of those of its images that are learned from, None for all."""
    refs = [ref for ref in pool if only is None or ref.id in only]
    return {
        "name": name,
        "images": len(refs),
        "statuses": dict(sorted(Counter(ref.status.value for ref in refs).items())),
        "groups": len({ref.group for ref in refs}),
        "digest": pool.digest,
        "distortions": dict(Counter(ref.distortion for ref in refs if ref.distortion)),
        "licence": licence,
    }


def _split_counts(split: Split, pools: Sequence[Pool]) -> dict[str, dict[str, int]]:
    # One scene may bear a name in each of several pools.
    scenes = join_groups(ref for pool in pools for ref in pool)
    groups = {part: {scenes[id] for id, own in split.parts.items() if own == part} for part in Part}
    return {
        part.value: {"images": split.count(part), "groups": len(groups[part])} for part in Part if split.count(part)
    }
