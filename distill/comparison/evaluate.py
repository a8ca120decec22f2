"""Every model of a comparison against people's ratings: once, for predictions are stored and read again."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from distill.comparison.config import Comparison, Row
from distill.evaluation.benchmarks import load_benchmark
from distill.evaluation.benchmarks.registry import Benchmark
from distill.evaluation.predictions import Predictions, Predictor, check_model, kind_of, open_predictor, predict_samples
from distill.evaluation.samples import Sample, benchmark_samples
from distill.evaluation.targets import Targets, targets_from_benchmark
from distill.recipe.recipe import with_variables
from distill.recipe.stages import expanded
from distill.stages.benchmark import shifted
from distill.stages.context import make_once
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.files import checksummed_json, digest_of, read_record, sha256_file, write_atomic
from pseudo_labels.images import decode
from pseudo_labels.parallel import Progress
from students.latency import machine_name, pinned_cores
from students.runtime import keep_freed_memory
from teachers.launch import torch_threads

_WARM_UP = 3  # the first calls fill caches and memory
# Models above this median are timed on fewer images, as one image may take them seconds.
_SLOW_IMAGES = 10
_SLOW_S = 0.1
# On disk, as is the name of the file: with another word the folders of earlier calls would be refused.
KIND = "prediction"
PREDICTIONS = "predictions.json"
_DECODERS = 2


def time_rows(comparison: Comparison, benchmark: Benchmark, report: Progress | None = None) -> dict[str, Any]:
    """Time the rows that ask for it.

    Args:
        comparison: comparison whose rows are timed, each by its first model.
        benchmark: benchmark whose first images are decoded and scored one by one.
        report: called with images timed and in total.

    Returns:
        ``machine``, ``reading`` (whether the reading of the file, from the page cache, is timed: always) and ``rows``:
        of each the median in ``milliseconds``, and ``n`` images. Models above 100 ms are timed on 10 images.
    """
    rows = [row for row in comparison.rows if row.time]
    samples = list(benchmark_samples(benchmark))[: _WARM_UP + comparison.timed_images]
    keep_freed_memory()
    # Models are opened inside, as threads that they start inherit the pinning.
    with pinned_cores(1), torch_threads(1):
        predictors = {row.name: _opened(row) for row in rows}
        times: dict[str, list[float]] = {row.name: [] for row in rows}
        for done, sample in enumerate(samples, start=1):
            # Into the page cache: else the first model would pay for the disk, which says nothing of a model.
            sample.read()
            # All models on one image before the next: a busy spell of the machine slows all of them alike.
            for name, predictor in predictors.items():
                if len(times[name]) < _SLOW_IMAGES + _WARM_UP or median(times[name]) < _SLOW_S:
                    times[name].append(_seconds(predictor, sample))
            if report is not None:
                report(done, len(samples))
    summaries = {name: _summary(seconds[_WARM_UP:]) for name, seconds in times.items()}
    return {"machine": machine_name(), "reading": True, "rows": summaries}


def _opened(row: Row) -> Predictor:
    return open_predictor(expanded(row.models[0]), options=with_variables(row.options), device="cpu")


def _seconds(predictor: Predictor, sample: Sample) -> float:
    # From the file on, as ``students.latency`` counts, so that its figures and these are of the same work.
    started = time.perf_counter()
    predictor.score(decode(sample.read()), None)
    return time.perf_counter() - started


def _summary(seconds: Sequence[float]) -> dict[str, Any]:
    return {"milliseconds": 1000 * median(seconds), "n": len(seconds)}


def open_target(comparison: Comparison) -> tuple[Benchmark, Targets]:
    """The benchmark, and its ratings as what to evaluate on."""
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
                # For its error alone: it looks at the model and loads nothing.
                check_model(expanded(model), with_variables(row.options))
            except PocketiqaError as error:
                hint = f"; `{row.make}` makes it" if row.make else ""
                raise PocketiqaError(f"row {row.name!r}: {error}{hint}") from error


def predict_rows(
    comparison: Comparison, benchmark: Benchmark, *, overwrite: bool = False, report: Progress | None = None
) -> dict[str, list[Predictions]]:
    """Predictions of all models, by row.

    Args:
        comparison: comparison whose folder keeps them.
        benchmark: the benchmark of ``open_target``.
        overwrite: predict again where the model in a folder has changed; without it that is refused.
        report: called with images done and in total.
    """
    asked = [(row, model) for row in comparison.rows for model in row.models]
    predictions: dict[str, list[Predictions]] = {row.name: [] for row in comparison.rows if row.models}
    total = len(asked) * len(benchmark.rows)
    for number, (row, model) in enumerate(asked):
        # Named by row and position: the seeds of a row are told apart, and other rows keep theirs when one is added.
        folder = comparison.out / "rows" / f"{row.slug}-{len(predictions[row.name])}"
        part = shifted(report, number * len(benchmark.rows), total)
        predictions[row.name].append(
            _predicted(row, expanded(model), benchmark=benchmark, folder=folder, overwrite=overwrite, report=part)
        )
    return predictions


def _predicted(
    row: Row, model: str, benchmark: Benchmark, folder: Path, overwrite: bool, report: Progress | None
) -> Predictions:
    kind = kind_of(model)
    # On the CPU everywhere: the last digits of a GPU differ, and the table must not depend on who has one.
    predictor = open_predictor(model, options=with_variables(row.options), device="cpu")
    targets = digest_of([[one.id, one.score] for one in benchmark.rows])
    # What is in the file, not where it is: a model that moved keeps its predictions. A teacher has a stamp instead.
    spec = {"model": predictor.about.get("digest") or predictor.about, "benchmark": benchmark.name, "targets": targets}

    def make(to: Path) -> dict[str, Any]:
        samples = benchmark_samples(benchmark)
        predicted = predict_samples(predictor, kind, samples, name=row.name, workers=_DECODERS, progress=report)
        write_atomic(to / PREDICTIONS, checksummed_json(predicted.as_dict()))
        return {PREDICTIONS: sha256_file(to / PREDICTIONS)}

    keep(folder, KIND, spec, make, overwrite=overwrite)
    if report is not None:
        report(len(benchmark.rows), len(benchmark.rows))
    record: Mapping[str, Any] = read_record(folder / PREDICTIONS, what="predictions")
    return Predictions.from_dict(record)


def keep(
    folder: Path, kind: str, spec: dict[str, Any], make: Callable[[Path], dict[str, Any]], *, overwrite: bool
) -> None:
    """``make_once``, but ``overwrite`` makes only those folders anew whose ``spec`` has changed."""
    try:
        make_once(folder, kind, spec, make, overwrite=False)
    except OutputConflictError:
        if not overwrite:
            raise
        make_once(folder, kind, spec, make, overwrite=True)
