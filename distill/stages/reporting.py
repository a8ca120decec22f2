"""Everything the run wrote, gathered for the report page."""

import statistics
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from distill.console import Report
from distill.data import Source
from distill.evaluation.judges import open_judge
from distill.history import HISTORY, read_history
from distill.opinions import OpinionTable
from distill.report import Cost, DamagedCopy, MapExample, ReportInputs, build_report
from distill.split import Part, read_split
from distill.stages.context import Run, Stage, make_once
from distill.stages.data import BUNDLED
from distill.stages.demonstration import Photograph, read_demonstration
from distill.stages.judging import HeldOut, held_out, read_predictions, read_results
from distill.stages.student import label_sources
from pseudo_labels.files import sha256_file
from pseudo_labels.images import load
from pseudo_labels.outputs import read_manifest
from pseudo_labels.photos import photograph_licences
from pseudo_labels.pool import Pool
from pseudo_labels.store import LabelStore
from students.complexity import peak_memory_bytes
from students.contract import StudentContract
from students.latency import measure_latency
from students.runtime import Scorer

KIND = "report"
PAGE = "report.html"
_TIMED_IMAGES = 8
_FEW_SCENES = 100


def reporting_stages(run: Run) -> list[Stage]:
    """One stage."""
    return [Stage("report", run.report, partial(_report, run))]


def _report(run: Run, overwrite: bool, report: Report) -> str:
    spec = {
        "evaluation": read_manifest(run.evaluation).digest,
        "demonstration": read_manifest(run.demonstration).digest if run.recipe.score else None,
        "command": run.command,
    }

    def make(folder: Path) -> dict[str, Any]:
        return {"sha256": sha256_file(build_report(_inputs(run, report), folder).html)}

    make_once(run.report, KIND, spec, make, overwrite=overwrite)
    return str(run.report / PAGE)


def _inputs(run: Run, report: Report) -> ReportInputs:
    out, scorer, sources = held_out(run), Scorer(run.model), label_sources(run)
    first, stores = sources[0].labels, [source.labels for source in sources if isinstance(source.labels, LabelStore)]
    teacher = first.spec.stamp.name if isinstance(first, LabelStore) else None
    demonstration = read_demonstration(run) if run.recipe.score else []
    costs, machine = _costs(run, out, teacher, scorer.contract, report)
    results = read_results(run)
    return ReportInputs(
        title=f"{run.recipe.name}: a pocket-size student of {teacher or f'people ({out.targets.name})'}",
        evaluation=results["held_out"],
        targets=out.targets,
        predictions=[read_predictions(run)],
        student=run.recipe.name,
        teacher=teacher,
        costs=costs,
        machine=machine,
        history=read_history(run.training / HISTORY),
        load_image=lambda id: out.pool.load(out.pool.by_id(id)),
        quality_maps=_maps(run, scorer, demonstration),
        damaged=_damaged(run, demonstration),
        pools=_pools(run, sources),
        split=_split_counts(run, out.pool),
        teachers=[store.spec.stamp.as_dict() for store in stores],
        overlap=results["overlap"],
        contract=scorer.contract.as_dict(),
        command=run.command,
        notes=_notes(run, out),
        licence="Apache-2.0 for the weights, as far as the licences of photographs and teachers allow",
    )


def _notes(run: Run, out: HeldOut) -> list[str]:
    """Limits that a reader of the figures must know."""
    notes = []
    if out.targets.source == "teacher":
        notes.append(f"The target is the word of {out.targets.name}: agreement with a teacher, not with people.")
    if run.recipe.distort is not None:
        known = ", ".join(run.recipe.distort.names).replace("_", " ")
        notes.append(f"It learned from synthetic damage alone ({known}); damage of other kinds may go unseen.")
    groups = len({ref.group for ref in map(out.pool.by_id, out.trained)})
    if groups < _FEW_SCENES:
        notes.append(f"It was trained on {groups} scenes: a demonstration of the method, not a model to rely on.")
    return notes


def _costs(
    run: Run, out: HeldOut, teacher: str | None, contract: StudentContract, report: Report
) -> tuple[dict[str, Cost], str]:
    """Time and memory, on held-out images as JPEG files."""
    with tempfile.TemporaryDirectory() as name:
        timed = [out.pool.by_id(id) for id in out.ids[:_TIMED_IMAGES]]
        files = [Path(name) / f"{ref.id}.jpg" for ref in timed]
        for ref, file in zip(timed, files, strict=True):
            Image.fromarray(out.pool.load(ref)).save(file, quality=90)
        latency = measure_latency(run.model, files, progress=report)
        memory_mb = peak_memory_bytes(run.model, files) / 1e6
    student = Cost(
        parameters=contract.parameters,
        macs=contract.macs,
        file_bytes=run.model.stat().st_size,
        latency_ms_median=latency.steps["total"].median_ms,
        latency_ms_p95=latency.steps["total"].p95_ms,
        peak_memory_mb=memory_mb,
    )
    machine = (
        f"{latency.machine}, {latency.threads} thread; {len(files)} images of {timed[0].width}x{timed[0].height} "
        "pixels; the student from JPEG to score"
    )
    if teacher is None:
        return {run.recipe.name: student}, machine
    return {run.recipe.name: student, teacher: _teacher_cost(run, out)}, f"{machine}, the teacher without decoding"


def _teacher_cost(run: Run, out: HeldOut) -> Cost:
    section = run.recipe.label
    if section is None:
        return Cost()
    judge = open_judge(section.teacher or str(run.fitted_teacher), options=section.options)
    times_ms = []
    for id in out.ids[: _TIMED_IMAGES + 1]:
        ref = out.pool.by_id(id)
        rgb, reference = out.pool.load(ref), out.pool.load(out.pool.by_id(ref.ref_id or ref.id))
        started = time.perf_counter()
        judge.score(rgb, reference)
        times_ms.append(1000 * (time.perf_counter() - started))
    # The first image pays for caches and memory.
    rest = sorted(times_ms[1:] or times_ms)
    return Cost(latency_ms_median=statistics.median(rest), latency_ms_p95=rest[-1])


def _maps(run: Run, scorer: Scorer, photographs: list[Photograph]) -> list[MapExample]:
    examples = []
    for photograph in photographs[:2]:
        for version, file in list(photograph.files.items())[:2]:
            path = run.demonstration / file
            result = scorer.score(path)
            name = f"{photograph.name}, {version.replace('_', ' ')}"
            examples.append(MapExample(name, load(path), result.quality_map, result.score))
    return examples


def _damaged(run: Run, photographs: list[Photograph]) -> list[DamagedCopy]:
    copies = []
    for photograph in photographs:
        original = load(run.demonstration / photograph.files["original"])
        for version, file in photograph.files.items():
            if version != "original":
                scores = photograph.scores["original"], photograph.scores[version]
                damaged = load(run.demonstration / file)
                copies.append(DamagedCopy(photograph.name, version.replace("_", " "), *scores, original, damaged))
    return copies


def _pools(run: Run, sources: list[Source]) -> list[dict[str, Any]]:
    pools = {"photographs": Pool.open(run.pool)} if run.recipe.pool else {}
    if run.recipe.distort:
        pools["synthetic"] = Pool.open(run.synthetic)
    ready = sources[len(sources) - len(run.recipe.sources) :]
    pools |= {source.name: source.pool for source in ready}
    licence = "as stated by the owners of the photographs"
    if run.recipe.pool and run.recipe.pool.sources == [BUNDLED]:
        licence = "; ".join(f"{name}: {words}" for name, words in photograph_licences().items())
    licences = {
        source.name: f"{source.labels.about['citation']}; {source.labels.about['licence']}"
        for source in ready
        if isinstance(source.labels, OpinionTable)
    }
    return [_pool_facts(name, pool) | {"licence": licences.get(name, licence)} for name, pool in pools.items()]


def _pool_facts(name: str, pool: Pool) -> dict[str, Any]:
    return {
        "name": name,
        "images": len(pool),
        "statuses": pool.manifest.content["statuses"],
        "groups": pool.manifest.content["groups"],
        "digest": pool.digest,
        "distortions": dict(Counter(ref.distortion for ref in pool if ref.distortion)),
    }


def _split_counts(run: Run, pool: Pool) -> dict[str, dict[str, int]]:
    parts = read_split(run.training).parts
    groups = {part: {ref.group for ref in pool if parts.get(ref.id) == part} for part in Part}
    counts = Counter(parts.values())
    return {part.value: {"images": counts[part], "groups": len(groups[part])} for part in Part if counts[part]}
