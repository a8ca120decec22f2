"""A teacher of regions in a recipe: fitted to labelled regions, exported, evaluated on held-out scenes.

Apart from the other stages, because it imports what teachers of regions need: transformers and peft.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.examples import Source
from distill.data.labelled_regions import region_examples
from distill.data.regions import region_targets
from distill.data.split import Part, read_split
from distill.evaluation.regions import evaluate_regions
from distill.recipe.training import FitConfig
from distill.stages.context import REGION_RESULTS, Run, make_once
from distill.training.region_teacher import fit_regions
from distill.training.teacher import FitResult
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import checksummed_json, read_record, sha256_file, write_atomic
from pseudo_labels.outputs import read_manifest
from pseudo_labels.parallel import Progress
from pseudo_labels.records import Status
from teachers.registry import build_teacher
from teachers.seagull.teacher import RegionScore, SeagullTeacher
from teachers.seagull.tuning import export_merged, save_adapters

EXPORT_KIND, EVALUATION_KIND = "teacher-export", "teacher-region-evaluation"
_UNKNOWN = 0.5
"""What an answer without a level word counts as: the middle of the scale."""


def fit_sources_regions(
    config: FitConfig, sources: Sequence[Source], out: Path, *, progress: Progress | None = None, **options: Any
) -> FitResult:
    """Fit to the labelled regions of sources; arguments and exceptions are those of ``fit_regions``."""
    return fit_regions(config, region_examples(sources), out, progress=progress, cache_progress=progress, **options)


def export_teacher(run: Run, name: str, *, overwrite: bool, report: Progress) -> str:
    """Write a fitted teacher of regions in the forms that other programs read; returns one line on them."""
    kinds = sorted(set(run.recipe.fits[name].exports))
    spec = {"fitting": read_manifest(run.fitting_of(name)).digest, "exports": kinds}

    def make(folder: Path) -> dict[str, Any]:
        teacher = _teacher(run.teacher_of(name))
        for number, kind in enumerate(kinds, start=1):
            if kind == "adapters":
                save_adapters(teacher.model, teacher.adapters, folder / kind)
            else:
                export_merged(teacher.model, teacher.tokens, folder / kind)
            report(number, len(kinds))
        files = sorted(path for kind in kinds for path in (folder / kind).rglob("*") if path.is_file())
        return {"files": {str(path.relative_to(folder)): sha256_file(path) for path in files}}

    made = make_once(run.exports_of(name), EXPORT_KIND, spec, make, overwrite=overwrite)
    size = sum((run.exports_of(name) / file).stat().st_size for file in made.content["files"])
    return f"{' and '.join(kinds)} in {run.exports_of(name)} ({size / 1e6:.1f} MB)"


def _teacher(folder: Path) -> SeagullTeacher:
    teacher = build_teacher(str(folder))
    if not isinstance(teacher, SeagullTeacher):
        raise PocketiqaError(f"{folder} is no teacher of regions: fit seagull")
    return teacher


def evaluate_teacher(run: Run, sources: Sequence[Source], *, overwrite: bool, report: Progress) -> dict[str, Any]:
    """How well the fitted teacher of a recipe without student knows the regions of held-out scenes.

    Scenes of the test part, or of the validation part where none was set aside; of each source. Beside the teacher
    stands the region's area, as a judge that looks at no picture.

    Args:
        run: the run; its first teacher is evaluated.
        sources: what it was fitted to.
        overwrite: evaluate again if the teacher changed.
        report: called with pictures done and in all.

    Returns:
        ``part``, ``sources`` (by name, as ``evaluation.regions.evaluate_regions`` gives it) and ``answers``: regions
        asked, and how many answers had no level word.
    """
    name = next(iter(run.recipe.fits))
    spec = {
        "fitting": read_manifest(run.fitting_of(name)).digest,
        "regions": [source.regions.digest for source in sources if source.regions is not None],
        "seed": run.recipe.seed,
    }
    make = partial(_evaluate, run, name, sources, report)
    make_once(run.region_evaluation, EVALUATION_KIND, spec, make, overwrite=overwrite)
    return read_record(run.region_evaluation / REGION_RESULTS, what="evaluation of regions")


def _evaluate(run: Run, name: str, sources: Sequence[Source], report: Progress, folder: Path) -> dict[str, Any]:
    split, teacher = read_split(run.fitting_of(name)), _teacher(run.teacher_of(name))
    part = Part.TEST if split.count(Part.TEST) else Part.VALIDATION
    rows_of = [[row for row in _rows(source) if split.parts.get(source.pool[row].id) == part] for source in sources]
    total, done, results = sum(map(len, rows_of)), 0, {}
    answers = {"regions": 0, "without_level": 0}
    for source, rows in zip(sources, rows_of, strict=True):
        table = source.regions
        assert table is not None, "a source of regions"
        scores: list[RegionScore] = []
        areas: list[float] = []
        for row in rows:
            regions = table.at(row)
            assert regions is not None, "rows with regions alone"
            scores += teacher.score_regions(source.pool.load(source.pool[row]), regions.masks())
            areas += [float(mask.mean()) for mask in regions.masks()]
            done += 1
            report(done, total)
        answers["regions"] += len(scores)
        answers["without_level"] += sum(score.status != Status.OK for score in scores)
        quality, importance = (np.nan_to_num(np.array([getattr(one, key) for one in scores]), nan=_UNKNOWN)
                               for key in ("quality", "importance"))  # fmt: skip
        results[source.name] = evaluate_regions(
            region_targets(table, source.pool, rows),
            {"teacher": quality, "area": np.array(areas)},
            {"teacher": importance, "area": np.array(areas)},
            seed=run.recipe.seed,
        )
    write_atomic(
        folder / REGION_RESULTS, checksummed_json({"part": part.value, "sources": results, "answers": answers})
    )  # fmt: skip
    return {REGION_RESULTS: sha256_file(folder / REGION_RESULTS)}


def _rows(source: Source) -> list[int]:
    return [] if source.regions is None else source.regions.rows
