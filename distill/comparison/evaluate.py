"""Every model of a comparison against the opinions of people: once, for predictions are kept and found again."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from distill.comparison.config import Comparison, Row
from distill.evaluation.benchmarks import load_benchmark
from distill.evaluation.benchmarks.registry import Benchmark
from distill.evaluation.predictions import Predictions, Predictor, kind_of, open_predictor, predict_samples
from distill.evaluation.samples import Sample, benchmark_samples
from distill.evaluation.targets import Targets, targets_from_benchmark
from distill.recipe.recipe import with_variables
from distill.recipe.stages import expanded
from distill.stages.benchmark import shifted
from distill.stages.context import make_once
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.files import canonical_json, digest_of, read_json, sha256_file
from pseudo_labels.images import decode
from pseudo_labels.parallel import Progress
from students.latency import machine_name, pinned_cores
from students.runtime import keep_freed_memory
from teachers.launch import torch_threads

_WARM_UP = 3  # the first calls fill caches and memory
_SLOW_IMAGES = 10  # of models that take long
_SLOW_S = 0.1


def time_rows(comparison: Comparison, benchmark: Benchmark, report: Progress | None = None) -> dict[str, Any]:
    """Time the rows that ask for it.

    Args:
        comparison: its rows' first models are timed.
        benchmark: whose first images are read, decoded and judged one by one.
        report: called with images timed and in total.

    Returns:
        ``machine`` and ``rows``: of each the median in ``milliseconds``, and ``n`` images. Models above 100 ms are
        timed on 10 images.
    """
    rows = [row for row in comparison.rows if row.time]
    samples = list(benchmark_samples(benchmark))[: _WARM_UP + comparison.timed_images]
    keep_freed_memory()
    with pinned_cores(1), torch_threads(1):
        judges = {row.name: _opened(row) for row in rows}
        times: dict[str, list[float]] = {row.name: [] for row in rows}
        for done, sample in enumerate(samples, start=1):
            for name, judge in judges.items():
                if len(times[name]) < _SLOW_IMAGES + _WARM_UP or median(times[name]) < _SLOW_S:
                    times[name].append(_seconds(judge, sample))
            if report is not None:
                report(done, len(samples))
    return {"machine": machine_name(), "rows": {name: _summary(seconds[_WARM_UP:]) for name, seconds in times.items()}}


def _opened(row: Row) -> Predictor:
    return open_predictor(expanded(row.models[0]), options=with_variables(row.options), device="cpu")


def _seconds(judge: Predictor, sample: Sample) -> float:
    data = sample.read()
    started = time.perf_counter()
    judge.score(decode(data), None)
    return time.perf_counter() - started


def _summary(seconds: Sequence[float]) -> dict[str, Any]:
    return {"milliseconds": 1000 * median(seconds), "n": len(seconds)}


KIND = "prediction"
PREDICTIONS = "predictions.json"
_DECODERS = 2


def open_target(comparison: Comparison) -> tuple[Benchmark, Targets]:
    """The benchmark, and its opinions as what to judge by."""
    split = comparison.benchmark.split
    benchmark = load_benchmark(expanded(comparison.benchmark.ratings)).select(None if split == "all" else split)
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


def predict_rows(
    comparison: Comparison, benchmark: Benchmark, *, overwrite: bool = False, report: Progress | None = None
) -> dict[str, list[Predictions]]:
    """Predictions of all models, by row.

    Args:
        comparison: whose folder keeps them.
        benchmark: of ``open_target``.
        overwrite: judge again where the model in a folder has changed; without it that is refused.
        report: called with images judged and in total.
    """
    asked = [(row, model) for row in comparison.rows for model in row.models]
    predictions: dict[str, list[Predictions]] = {row.name: [] for row in comparison.rows if row.models}
    total = len(asked) * len(benchmark.rows)
    for number, (row, model) in enumerate(asked):
        folder = comparison.out / "rows" / f"{_slug(row.name)}-{len(predictions[row.name])}"
        part = shifted(report, number * len(benchmark.rows), total)
        predictions[row.name].append(
            _judged(row, expanded(model), benchmark=benchmark, folder=folder, overwrite=overwrite, report=part)
        )
    return predictions


def _judged(
    row: Row, model: str, benchmark: Benchmark, folder: Path, overwrite: bool, report: Progress | None
) -> Predictions:
    kind = kind_of(model)
    judge = open_predictor(model, options=with_variables(row.options), device="cpu")
    targets = digest_of([[one.id, one.score] for one in benchmark.rows])
    spec = {"model": judge.about.get("digest") or judge.about, "benchmark": benchmark.name, "targets": targets}

    def make(to: Path) -> dict[str, Any]:
        samples = benchmark_samples(benchmark)
        predicted = predict_samples(judge, kind, samples, name=row.name, workers=_DECODERS, progress=report)
        (to / PREDICTIONS).write_bytes(canonical_json(predicted.as_dict()))
        return {PREDICTIONS: sha256_file(to / PREDICTIONS)}

    keep(folder, KIND, spec, make, overwrite=overwrite)
    if report is not None:
        report(len(benchmark.rows), len(benchmark.rows))
    record: Mapping[str, Any] = read_json(folder / PREDICTIONS, what="predictions")
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
