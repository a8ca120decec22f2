"""``pocketiqa compare``: predict, time, and write table and plots."""

from pathlib import Path
from typing import Any

from distill.comparison.config import Comparison, load_comparison
from distill.comparison.evaluate import check_models, keep, open_target, predict_rows, time_rows
from distill.comparison.plots import plot_accuracy, plot_predicted
from distill.comparison.table import (
    RESAMPLES,
    Predicted,
    console_table,
    footing,
    gain_sentence,
    gains_of,
    headline_words,
    lines_of,
    markdown,
)
from distill.evaluation.benchmarks.registry import Benchmark
from distill.terminal import console
from pseudo_labels.errors import OutputConflictError
from pseudo_labels.files import checksummed_json, digest_of, read_record, sha256_file, write_atomic
from pseudo_labels.outputs import exclusively
from students.latency import machine_name

RECORD, TABLE, ACCURACY, PREDICTED = "comparison.json", "comparison.md", "accuracy.png", "predicted.png"
TIMES = "times.json"


def compare(name: str, *, out: Path | None = None, settings: list[str] | None = None, overwrite: bool = False) -> None:
    """Walk a comparison and print its table.

    Args:
        name: name of the file, or its path.
        out: replaces the file's.
        settings: ``KEY=VALUE`` words laid over it.
        overwrite: predict again with models that have changed; without it they are refused.

    Raises:
        PocketiqaError: the file or a model is missing or unusable.
        OutputConflictError: another process works in the folder.
    """
    comparison = load_comparison(name, settings or [], out)
    # First: a missing model is named at once, not after the minutes that the others take.
    check_models(comparison)
    with exclusively(comparison.out):
        _refuse_others(comparison, overwrite)
        result = _result(comparison, overwrite)
    console.out.print(console_table(result))
    for gain in result["gains"]:
        console.out.print(gain_sentence(gain), markup=False, highlight=False)
    console.out.print(footing(result), markup=False, highlight=False)
    console.out.print(f"table and plots: {comparison.out}", markup=False)


def _refuse_others(comparison: Comparison, overwrite: bool) -> None:
    """Refuse to replace files that another comparison, or somebody else, wrote."""
    out = comparison.out
    if not (out / RECORD).exists():
        there = next((name for name in (TABLE, ACCURACY, PREDICTED) if (out / name).exists()), None)
        if there is not None and not overwrite:
            raise OutputConflictError(
                f"{out / there} exists already, and not from a comparison: choose another --out, or add --overwrite"
            )
        return
    if overwrite:
        return
    record = read_record(out / RECORD, what="comparison", remedy="add --overwrite to replace it")
    if not isinstance(record, dict) or record.get("name") != comparison.name:
        raise OutputConflictError(
            f"{out} holds another comparison than {comparison.name!r}: choose another --out, or add --overwrite to "
            "replace it"
        )


def _times(comparison: Comparison, benchmark: Benchmark, predicted: Predicted, overwrite: bool) -> dict[str, Any]:
    """Kept as the predictions are: the table does not change when only a plot is drawn anew."""
    folder = comparison.out / "times"
    spec = {
        # A model that has changed is timed again; ``about`` holds its digest or stamp.
        "models": {row.name: digest_of(predicted[row.name][0].about) for row in comparison.rows if row.time},
        "benchmark": [row.id for row in benchmark.rows[: comparison.timed_images]],
        # Times of another machine are no times of this one: there they are refused, or measured anew with --overwrite.
        "machine": machine_name(),
    }

    def make(to: Path) -> dict[str, Any]:
        with console.progress("time") as report:
            write_atomic(to / TIMES, checksummed_json(time_rows(comparison, benchmark, report)))
        return {TIMES: sha256_file(to / TIMES)}

    keep(folder, "times", spec, make, overwrite=overwrite)
    return read_record(folder / TIMES, what="times")


def _result(comparison: Comparison, overwrite: bool) -> dict[str, Any]:
    benchmark, targets = open_target(comparison)
    with console.progress("predict") as report:
        predicted = predict_rows(comparison, benchmark, overwrite=overwrite, report=report)
    # After the predictions, with nothing else at work: their decoding threads would be in the way of the clock.
    times = _times(comparison, benchmark, predicted, overwrite)
    result: dict[str, Any] = {
        "name": comparison.name,
        "target": {"name": targets.name, "about": targets.about, "n": len(targets.ids)},
        "headline": headline_words(targets),
        "resamples": RESAMPLES,
        "times": times,
        "lines": lines_of(comparison, predicted, targets, times),
        "gains": gains_of(comparison, predicted, targets),
    }
    write_atomic(comparison.out / RECORD, checksummed_json(result))
    write_atomic(comparison.out / TABLE, markdown(result).encode())
    plot_accuracy(result["lines"], comparison.out / ACCURACY, headline=result["headline"])
    if comparison.plotted:
        shown = {name: predicted[name][0] for name in comparison.plotted}
        plot_predicted(shown, targets, comparison.out / PREDICTED)
    return result
