"""``pocketiqa evaluate``: any models on one benchmark, with the overlap of what they were trained on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from distill.evaluation.benchmarks.registry import load_benchmark
from distill.evaluation.evaluate import evaluate
from distill.evaluation.hash_overlap import benchmark_prints, find_overlap, pool_prints
from distill.evaluation.predictions import Predictions, predict
from distill.evaluation.samples import benchmark_samples
from distill.evaluation.targets import targets_from_benchmark
from distill.leakage.record import facts, read_overlap, with_near_duplicates
from pseudo_labels.parallel import Progress
from pseudo_labels.pool import Pool


def evaluate_on(
    models: Sequence[str],
    on: str,
    *,
    names: Sequence[str | None] = (),
    split: str | None = None,
    trained_on: Sequence[Path] = (),
    near: Path | None = None,
    device: str = "auto",
    workers: int = 2,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Judge models by the opinions of a benchmark.

    Args:
        models: .onnx files, student folders, label stores, fitted teachers or teacher names.
        on: as for ``load_benchmark``.
        names: of the models, for tables; their own where there is none.
        split: ``test``, ``validation``, ``train`` or ``all``; None is ``test`` where there is one, else ``all``.
        trained_on: pools that the models learned from; overlapping images are found and left out of the headline.
        near: what ``pocketiqa overlap`` wrote on the same images; those near are left out of the headline too.
        device: for teachers: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ...
        workers: images decoded ahead at a time.
        progress: called with (done, total) images of all models.

    Returns:
        As ``evaluation.evaluate``, with ``overlap`` if ``trained_on`` was given, and ``near`` (see
        ``overlap.record.facts``) if that was.

    Raises:
        PocketiqaError: an unknown benchmark, split or model, or ``near`` is of other images.
    """
    benchmark = load_benchmark(on)
    if split is None:
        split = "all" if benchmark.split_origin == "none" else "test"
    benchmark = benchmark.select(None if split == "all" else split)
    neighbours = None if near is None else read_overlap(near)
    benchmark = benchmark if neighbours is None else with_near_duplicates(benchmark, neighbours)
    samples = benchmark_samples(benchmark)
    predictions = []
    for index, (model, name) in enumerate(zip_longest(models, names[: len(models)])):
        report = shifted(progress, index * len(samples), len(models) * len(samples))
        predictions.append(predict(model, samples, name=name, device=device, workers=workers, progress=report))
    found = None
    if trained_on:
        trained = [print_ for folder in trained_on for print_ in pool_prints(Pool.open(folder))]
        found = find_overlap(trained, benchmark_prints(benchmark))
    result = evaluate(
        _told_apart(predictions, models), targets_from_benchmark(benchmark), overlapping=found.ids if found else ()
    )
    result |= {"overlap": found.as_dict()} if found else {}
    return result | ({"near": facts(neighbours)} if neighbours else {})


def _told_apart(predictions: Sequence[Predictions], models: Sequence[str]) -> list[Predictions]:
    """Models of one name, such as a student and its export, get their place added to it."""
    count = Counter(found.name for found in predictions)
    pairs = zip(predictions, models, strict=True)
    return [
        found if count[found.name] == 1 else replace(found, name=f"{found.name} ({model})") for found, model in pairs
    ]


def shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress of one part of a longer work.

    Args:
        progress: of the whole; None shows nothing.
        before: what was done when the part began.
        total: of the whole.
    """
    return None if progress is None else lambda done, _: progress(before + done, total)
