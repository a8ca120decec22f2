"""Milliseconds from file to score on one core, all models in turn, so that a slow moment of the machine hits all."""

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from distill.comparison.config import Comparison, Row
from distill.console import Report
from distill.evaluation.benchmarks.registry import Benchmark
from distill.evaluation.judges import Judge, open_judge
from distill.evaluation.samples import Sample, benchmark_samples
from distill.recipe_places import with_variables
from distill.stage_config import expanded
from pseudo_labels.images import decode
from students.latency import machine_name, pinned_cores
from students.runtime import keep_freed_memory
from teachers.launch import torch_threads

_WARM_UP = 3  # the first calls fill caches and memory
_SLOW_IMAGES = 10  # of models that take long
_SLOW_S = 0.1


def time_rows(comparison: Comparison, benchmark: Benchmark, report: Report | None = None) -> dict[str, Any]:
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
    return {"machine": machine_name(), "rows": {name: _summary(found[_WARM_UP:]) for name, found in times.items()}}


def _opened(row: Row) -> Judge:
    return open_judge(expanded(row.models[0]), options=with_variables(row.options), device="cpu")


def _seconds(judge: Judge, sample: Sample) -> float:
    data = sample.read()
    started = time.perf_counter()
    judge.score(decode(data), None)
    return time.perf_counter() - started


def _summary(seconds: Sequence[float]) -> dict[str, Any]:
    return {"milliseconds": 1000 * median(seconds), "n": len(seconds)}
