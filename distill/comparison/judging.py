"""Every model of a comparison against the opinions of people: once, for predictions are kept and found again."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distill.benchmarking import shifted
from distill.comparison.config import Comparison, Row
from distill.console import Report
from distill.evaluation.benchmarks import load_benchmark
from distill.evaluation.benchmarks.registry import Benchmark
from distill.evaluation.judges import kind_of, open_judge
from distill.evaluation.predictions import Predictions, judge_samples
from distill.evaluation.samples import benchmark_samples
from distill.evaluation.targets import Targets, targets_from_benchmark
from distill.recipe_places import with_variables
from distill.stage_config import expanded
from distill.stages.context import make_once
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.files import canonical_json, digest_of, sha256_file

KIND = "prediction"
PREDICTIONS = "predictions.json"
_DECODERS = 2


def open_target(comparison: Comparison) -> tuple[Benchmark, Targets]:
    """The benchmark, and its opinions as what to judge by."""
    split = comparison.benchmark.split
    benchmark = load_benchmark(expanded(comparison.benchmark.opinions)).select(None if split == "all" else split)
    return benchmark, targets_from_benchmark(benchmark)


def check_models(comparison: Comparison) -> None:
    """Refuse a comparison that lacks a model, before any work.

    Raises:
        PocketiqaError: names the row, and the command that makes its models.
    """
    for row in comparison.rows:
        for model in row.models:
            try:
                kind_of(expanded(model))
            except PocketiqaError as error:
                hint = f"; `{row.make}` makes it" if row.make else ""
                raise PocketiqaError(f"row {row.name!r}: {error}{hint}") from error


def judge_rows(
    comparison: Comparison, benchmark: Benchmark, *, overwrite: bool = False, report: Report | None = None
) -> dict[str, list[Predictions]]:
    """Predictions of all models, by row.

    Args:
        comparison: whose folder keeps them.
        benchmark: of ``open_target``.
        overwrite: judge again where the model in a folder has changed; without it that is refused.
        report: called with images judged and in total.
    """
    asked = [(row, model) for row in comparison.rows for model in row.models]
    found: dict[str, list[Predictions]] = {row.name: [] for row in comparison.rows if row.models}
    total = len(asked) * len(benchmark.rows)
    for number, (row, model) in enumerate(asked):
        folder = comparison.out / "rows" / f"{_slug(row.name)}-{len(found[row.name])}"
        part = shifted(report, number * len(benchmark.rows), total)
        found[row.name].append(_judged(row, expanded(model), benchmark, folder, overwrite, part))
    return found


def _judged(
    row: Row, model: str, benchmark: Benchmark, folder: Path, overwrite: bool, report: Report | None
) -> Predictions:
    kind = kind_of(model)
    judge = open_judge(model, options=with_variables(row.options), device="cpu")
    targets = digest_of([[one.id, one.score] for one in benchmark.rows])
    spec = {"model": judge.about.get("digest") or judge.about, "benchmark": benchmark.name, "targets": targets}

    def make(to: Path) -> dict[str, Any]:
        samples = benchmark_samples(benchmark)
        predicted = judge_samples(judge, kind, samples, name=row.name, workers=_DECODERS, progress=report)
        (to / PREDICTIONS).write_bytes(canonical_json(predicted.as_dict()))
        return {PREDICTIONS: sha256_file(to / PREDICTIONS)}

    keep(folder, KIND, spec, make, overwrite=overwrite)
    if report is not None:
        report(len(benchmark.rows), len(benchmark.rows))
    record: Mapping[str, Any] = json.loads((folder / PREDICTIONS).read_text(encoding="utf-8"))
    return Predictions.from_dict(record)


def keep(
    folder: Path, kind: str, spec: dict[str, Any], make: Callable[[Path], dict[str, Any]], *, overwrite: bool
) -> None:
    """As ``make_once``, but ``overwrite`` redoes only what has changed."""
    try:
        make_once(folder, kind, spec, make, overwrite=False)
    except OutputConflictError:
        if not overwrite:
            raise
        make_once(folder, kind, spec, make, overwrite=True)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "row"
