"""``pocketiqa coverage``: how often a shipped record of intervals holds what people said of a test part."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.evaluation.benchmarks import load_benchmark
from distill.evaluation.predictions import predict_samples
from distill.evaluation.samples import benchmark_samples
from distill.evaluation.targets import targets_from_benchmark
from distill.scoring.meaning_columns import intervals_of
from distill.trust.models import open_models
from distill.trust.rated import coverage
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.parallel import Progress
from students.meaning.model_record import ModelName
from students.shipped import DEFAULT


def measure_coverage(
    ratings: str,
    *,
    model: str | None = None,
    split: str = "test",
    record: Path | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Coverage of all photographs, of those without a scene of the training part, and by subset of these.

    Args:
        ratings: ``NAME:FOLDER``, as for ``evaluate``.
        model: exported file or name.
        split: part of the ratings, or all of those without parts.
        record: file of ``pocketiqa intervals``; None is the one beside the model.
        progress: called with (done, total).

    Returns:
        Records of ``rated.coverage``, the parts called ``all`` and ``clean``, and ``clean: NAME`` by subset.

    Raises:
        PocketiqaError: no such record, or one of another model; or no such part.
    """
    (student,) = open_models([model or DEFAULT])
    digest = student.predictor.about.get("digest")
    if student.kind != "onnx" or not isinstance(digest, str):
        raise PocketiqaError(f"{student.name} is no exported student: intervals belong to the file of one")
    intervals = intervals_of(ModelName(student.name, digest), model, record)
    benchmark = load_benchmark(ratings).usual(split)
    targets = targets_from_benchmark(benchmark)
    made = predict_samples(student.predictor, student.kind, benchmark_samples(benchmark), progress=progress)
    scored = [id for id, score in zip(made.ids, made.scores.tolist(), strict=True) if score == score]
    known = set(scored)
    clean = [id for id, near in zip(targets.ids, targets.near_training, strict=True) if not near and id in known]
    rows = [row for row in coverage(intervals, made.aligned(scored), targets.part(scored)) if row["part"] == "all"]
    if len(clean) < len(scored) or len(set(targets.subsets)) > 1:
        of_clean = coverage(intervals, made.aligned(clean), targets.part(clean))
        rows += [{**row, "part": "clean" if row["part"] == "all" else f"clean: {row['part']}"} for row in of_clean]
    return sorted(rows, key=lambda row: row["level"])


def coverage_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The same for people."""
    for row in rows:
        value, low, high = (row["coverage"][name] for name in ("value", "low", "high"))
        ends = "" if low is None else f" [{low:.3f}, {high:.3f}]"
        yield f"{row['level']} %, {row['part']}: holds {value:.3f}{ends} of {row['n']}, mean width {row['width']:.3f}"
