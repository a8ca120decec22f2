"""``pocketiqa evaluate``: any models on one benchmark, with the leakage from what they were trained on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from distill.evaluation.benchmarks.registry import load_benchmark
from distill.evaluation.evaluate import evaluate
from distill.evaluation.hash_overlap import benchmark_prints, find_overlap, pool_prints
from distill.evaluation.predictions import Predictions, check_model, predict
from distill.evaluation.samples import benchmark_samples
from distill.evaluation.targets import targets_from_benchmark
from distill.leakage.record import facts, read_overlap, with_near_duplicates
from pseudo_labels.images import DEFAULT_LIMITS, DecodeLimits
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
    limits: DecodeLimits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate models by the ratings of a benchmark.

    Args:
        models: .onnx files, student folders, label stores, fitted teachers or teacher names.
        on: the benchmark, as for ``load_benchmark``.
        names: names of the models in tables; None, or a missing one, is the model's own.
        split: ``test``, ``validation``, ``train`` or ``all``; None is ``test`` where there is one, else ``all``.
        trained_on: pools that the models learned from; test images that are in them are left out of the headline.
        near: folder that ``pocketiqa overlap`` wrote on the same images; its near duplicates are left out of the
            headline too.
        device: device of teachers: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ...
        workers: images decoded ahead at a time.
        limits: which image files are accepted.
        progress: called with (done, total) images of all models.

    Returns:
        The result of ``evaluation.evaluate``, with ``overlap`` if ``trained_on`` was given, and ``near`` (see
        ``leakage.record.facts``) if that was.

    Raises:
        PocketiqaError: an unknown benchmark, split or model, or ``near`` is of other images.
    """
    for model in models:  # all of them, before the first takes its time
        check_model(model)
    benchmark = load_benchmark(on)
    if split is None:
        # A benchmark without splits has no part that is kept for the last evaluation: all of it is evaluated.
        split = "all" if benchmark.split_origin == "none" else "test"
    benchmark = benchmark.select(None if split == "all" else split)
    # Before any model is run: a record of other images is refused at once, not after hours of predictions.
    overlap = None if near is None else read_overlap(near)
    benchmark = benchmark if overlap is None else with_near_duplicates(benchmark, overlap)
    samples = benchmark_samples(benchmark)
    predictions = []
    # Names beyond the models are cut off: zip_longest would pair them with the model None, the package's default.
    for index, (model, name) in enumerate(zip_longest(models, names[: len(models)])):
        report = shifted(progress, index * len(samples), len(models) * len(samples))
        predictions.append(
            predict(model, samples, name=name, device=device, workers=workers, limits=limits, progress=report)
        )
    equal = None
    if trained_on:
        trained = [print_ for folder in trained_on for print_ in pool_prints(Pool.open(folder))]
        equal = find_overlap(trained, benchmark_prints(benchmark, limits=limits))
    result = evaluate(
        # Renamed only now: a model's own name is known once it has been opened, and ``evaluate`` refuses equal names.
        _with_distinct_names(predictions, models),
        targets_from_benchmark(benchmark),
        overlapping=equal.ids if equal else (),
    )
    result |= {"overlap": equal.as_dict()} if equal else {}
    return result | ({"near": facts(overlap)} if overlap else {})


def _with_distinct_names(predictions: Sequence[Predictions], models: Sequence[str]) -> list[Predictions]:
    """Models of one name, such as a student and its export, get their path added to it."""
    count = Counter(one.name for one in predictions)
    return [
        one if count[one.name] == 1 else replace(one, name=f"{one.name} ({model})")
        for one, model in zip(predictions, models, strict=True)
    ]


def shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress of one part of a longer work.

    Args:
        progress: progress of the whole work; None shows nothing.
        before: units of work that were done when the part began.
        total: units of the whole work.
    """
    return None if progress is None else lambda done, _: progress(before + done, total)
