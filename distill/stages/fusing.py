"""Labels of several teachers to one store, and the teachers as one."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distill.evaluation.benchmarks.records import Benchmark
from distill.evaluation.benchmarks.registry import load_benchmark
from distill.recipe.stages import FuseSection, expanded
from distill.stages.context import Run, Stage
from distill.terminal.summaries import store_line
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import sha256_bytes
from pseudo_labels.fusion.fuse import fuse
from pseudo_labels.fusion.keep import KeepRule
from pseudo_labels.fusion.report import FusionReport, read_fusion_report
from pseudo_labels.images import ImageError, read_bytes
from pseudo_labels.parallel import Progress
from pseudo_labels.records import id_of
from pseudo_labels.store import LabelStore
from teachers.composite.fused import NAME as FUSED
from teachers.composite.fused import fused_options
from teachers.fitted_folder import write_teacher_folder


def fuse_labels(
    labels: Sequence[Path],
    out: Path,
    *,
    on: str | None = None,
    split: str | None = None,
    calibrate: str = "auto",
    rule: KeepRule | None = None,
    carry: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> LabelStore:
    """Fuse label stores of one pool; see ``pseudo_labels.fusion.fuse``.

    Args:
        labels: folders of the stores.
        out: folder of the fused store.
        on: benchmark with the ratings, as for ``load_benchmark``; its images must be in the pool.
        split: part of the benchmark, ``train`` or ``validation``; None is ``validation`` where there is one, else
            ``train``, else all of a benchmark without splits.
        calibrate: method, one of ``pseudo_labels.fusion.calibrate.METHODS``, or ``auto``.
        rule: decides which rows are kept; None keeps all that enough teachers have scored.
        carry: stored feature to carry over.
        seed: seed of cross-validation and intervals.
        overwrite: start over.
        progress: called with blocks of rows done and in all.

    Raises:
        PocketiqaError: the test part was asked for, or as ``pseudo_labels.fusion.fuse``.
    """
    ratings = groups = None
    if on is not None:
        ratings, groups = read_ratings(calibration_part(load_benchmark(on), split))
    elif split is not None:
        raise PocketiqaError(f"split {split!r} of no benchmark: name the benchmark with --on")
    return fuse(
        labels, out, ratings=ratings, groups=groups, calibrate=calibrate, rule=rule, carry=carry, seed=seed,
        overwrite=overwrite, progress=progress,
    )  # fmt: skip


def calibration_part(benchmark: Benchmark, split: str | None) -> Benchmark:
    """The rows that teachers are calibrated on; ``split`` as for ``fuse_labels``.

    Raises:
        PocketiqaError: the test part was asked for, or there is no such split.
    """
    if split == "test":
        raise PocketiqaError(
            f"nothing is calibrated on the test part of {benchmark.name}, which is for the last evaluation alone: "
            "name validation or train"
        )
    if split is None:
        known = {row.split for row in benchmark.rows}
        # Validation first: teachers may have learned from the train part, and look better there than they are.
        split = next((name for name in ("validation", "train") if name in known), None)
    return benchmark.select(split)


def read_ratings(benchmark: Benchmark) -> tuple[dict[str, float], dict[str, str]]:
    """Ratings and scenes of a benchmark by the ids that its images have in every pool; equal files are averaged.

    Raises:
        PocketiqaError: none of the images can be read.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    groups: dict[str, str] = {}
    failed = ""
    for row in benchmark.rows:
        try:
            # By content: a pool may have been made of copies elsewhere, whose paths are not those of the benchmark.
            image_id = id_of(sha256_bytes(read_bytes(row.path)))
        except ImageError as error:  # a benchmark that is not complete is still of use
            failed = f"{row.path}: {error}"
            continue
        scores[image_id].append(row.score)
        groups[image_id] = row.group
    if not scores:
        raise PocketiqaError(f"benchmark {benchmark.name}: none of {len(benchmark.rows)} images can be read ({failed})")
    return {image_id: float(np.mean(own)) for image_id, own in scores.items()}, groups


def fusion_summary(store: LabelStore) -> str:
    """The result of a fusion in words, one line a teacher."""
    report = read_fusion_report(store.folder)
    dropped = ", ".join(f"{count} for {reason}" for reason, count in report.dropped.items())
    lines = [f"{store.folder}: {report.kept} of {report.rows} rows kept" + (f"; dropped: {dropped}" if dropped else "")]
    lines += [
        f"  {name}: weight {weight:.2f}, {how}"
        for name, weight, how in zip(
            report.ensemble["names"], [own["weight"] for own in report.teachers], _calibrations(report), strict=True
        )
    ]
    lines += [
        f"  {pair['first']} and {pair['second']}: SRCC {pair['srcc']:.3f} (n={pair['n']})"
        for pair in report.pairs
        if pair["srcc"] is not None
    ]
    if report.labelled and report.labelled["fused"]["srcc"] is not None:
        fused = report.labelled["fused"]
        interval = "" if fused["low"] is None else f" [{fused['low']:.3f}, {fused['high']:.3f}]"
        lines.append(f"  fused, on held-out ratings: SRCC {fused['srcc']:.3f}{interval} (n={fused['n']})")
    return "\n".join(lines)


def _calibrations(report: FusionReport) -> list[str]:
    words = []
    for own in report.ensemble["calibrations"]:
        agreement = own["agreement"]
        if agreement is None:
            words.append("scores as they are" if own["method"] == "none" else "aligned by quantiles, without ratings")
        else:
            rmse = own["held_out_rmse"][own["method"]]
            words.append(f"{own['method']}, off by {rmse:.3f}, SRCC {agreement['srcc']:.3f} (n={own['n']})")
    return words


def fusing_stages(run: Run) -> list[Stage]:
    """One stage, if the recipe fuses, and one for each store of random crops."""
    section, label = run.recipe.fuse, run.recipe.label
    if section is None:
        return []
    crops = range(1, 1 + len(label.crops if label is not None else ()))
    return [
        Stage("fuse", run.labels, partial(_fuse, run, section, None)),
        *(Stage(f"fuse-crop{at}", run.crop_labels(at), partial(_fuse, run, section, at)) for at in crops),
    ]


def _fuse(run: Run, section: FuseSection, crops: int | None, overwrite: bool, report: Progress) -> str:
    """Fuse the labels of whole images, or of the random crops of a number."""
    names = run.recipe.labellers
    if crops is None:
        labels, out = [run.labels_of(name) for name in names], run.labels
    else:
        labels, out = [run.crop_labels_of(name, crops) for name in names], run.crop_labels(crops)
    # Nobody rated the crops: what the section says of ratings is of no use to them.
    unrated = crops is not None and section.ratings is not None
    on = None if unrated or section.ratings is None else expanded(section.ratings)
    store = fuse_labels(
        labels,
        out,
        on=on,
        split=None if unrated else section.split,
        # Teachers of one recipe are mostly fitted to the same ratings, so their scores are on one scale already.
        calibrate=(None if unrated else section.calibrate) or ("none" if on is None else "auto"),
        rule=section.rule,
        carry=section.features,
        seed=run.recipe.seed,
        overwrite=overwrite,
        progress=report,
    )
    if crops is None and len(run.recipe.fits) > 1:
        # Also when the store was there before: a process that was killed right after fusing has not written it.
        write_teacher_folder(run.fitted_teacher, FUSED, fused_options(store.folder, _members(run)))
    return store_line(store)


def _members(run: Run) -> dict[Path, dict[str, Any]]:
    """Label store to the teacher that made it: its folder and options."""
    options = {} if run.recipe.label is None else run.recipe.label.options
    return {
        # An absolute path: the folder is read from any current folder.
        run.labels_of(name): {"teacher": str(run.teacher_of(name).resolve()), "options": options}
        for name in run.recipe.labellers
    }
