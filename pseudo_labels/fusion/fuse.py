"""Labels of several teachers as one store: calibrated, weighted by expected error, and only the good ones kept.

The result is a label store like any other. A row that is not kept stays in it with a status and a reason. Rows and
features are read a shard at a time; of the whole pool only scores and spreads are held.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.fusion.calibrate import check_constant
from pseudo_labels.fusion.ensemble import MIN_COMMON, check_method, fit_ensemble
from pseudo_labels.fusion.fused_rows import FusedRows, find_examples, fuse_rows, mean_weights, measure_outliers
from pseudo_labels.fusion.keep import KeepRule
from pseudo_labels.fusion.parts import (
    Columns,
    Part,
    Ratings,
    find_feature,
    find_ratings,
    open_parts,
    read_columns,
)
from pseudo_labels.fusion.report import NAME, FusionReport, write_fusion_report
from pseudo_labels.metrics.correlation import srcc
from pseudo_labels.outputs import exclusively
from pseudo_labels.parallel import Progress
from pseudo_labels.records import TeacherStamp
from pseudo_labels.remote import location
from pseudo_labels.shards import shard_rows
from pseudo_labels.store import LabelStore, StoreSpec

VERSION = 1  # raised whenever equal parts and settings give other labels
# Of a scatter plot: enough to see a shape, and the report stays small with many teachers.
_POINTS = 400


def check_teachers(names: Sequence[str], columns: Columns) -> None:
    """Refuse teachers without scores, or with the same for all images.

    Raises:
        PocketiqaError: see above; the teacher is named.
    """
    for name, scores, scored in zip(names, columns.scores, columns.scored, strict=True):
        if not scored.any():
            raise PocketiqaError(f"teacher {name!r} has no score for any of {len(scores)} images: leave it out")
        check_constant(scores[scored].astype(np.float64), name, "of the pool")


def compare_teachers(names: Sequence[str], columns: Columns) -> list[dict[str, Any]]:
    """Each two teachers: ``first``, ``second``, ``n`` images in common, and ``srcc`` (None where there is none)."""
    pairs = []
    for first in range(len(names)):
        for second in range(first + 1, len(names)):
            common = columns.scored[first] & columns.scored[second]
            value = srcc(columns.scores[first, common], columns.scores[second, common])
            rounded = None if np.isnan(value) else round(value, 9)
            pairs.append({"first": names[first], "second": names[second], "n": int(common.sum()), "srcc": rounded})
    return pairs


def check_consensus(names: Sequence[str], pairs: Sequence[dict[str, Any]], *, calibrated: bool) -> None:
    """Refuse a teacher that shares too few images with every other, or contradicts the others on the whole.

    The consensus on a teacher is its mean SRCC with the others, over those it shares enough images with.

    Args:
        names: names of the teachers; one alone is not checked.
        pairs: the pairs of ``compare_teachers``.
        calibrated: whether the direction of each teacher was seen on ratings, for the advice.

    Raises:
        PocketiqaError: the teacher with the least mean SRCC has one below 0, or one has no partner.
    """
    if len(names) < 2:
        return
    means = {}
    for name in names:
        own = [pair for pair in pairs if name in (pair["first"], pair["second"])]
        most = max(pair["n"] for pair in own)
        if most < MIN_COMMON:
            raise PocketiqaError(
                f"teacher {name!r} has at most {most} scored images in common with another: at least {MIN_COMMON} are "
                "needed; label the same pool with it, or leave it out"
            )
        known = [pair["srcc"] for pair in own if pair["n"] >= MIN_COMMON and pair["srcc"] is not None]
        means[name] = float(np.mean(known)) if known else 0.0
    worst = min(means, key=lambda name: means[name])
    if means[worst] >= 0:
        return
    if len(names) == 2:
        advice = "look at the pool: it may be unlike the labelled images" if calibrated else "ratings can tell which"
        raise PocketiqaError(
            f"teachers {names[0]!r} and {names[1]!r} contradict each other: SRCC {means[worst]:.2f} "
            f"(n={pairs[0]['n']}), so one is reversed here; {advice}, leave that one out"
        )
    raise PocketiqaError(
        f"teacher {worst!r} is reversed: its mean SRCC with the {len(names) - 1} others is {means[worst]:.2f}; turn "
        "its scale so that 1 is best, or leave it out"
    )


def fuse(
    folders: Sequence[Path | str],
    out: Path | str,
    *,
    ratings: Mapping[str, float] | None = None,
    groups: Mapping[str, str] | None = None,
    calibrate: str = "auto",
    rule: KeepRule | None = None,
    carry: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> LabelStore:
    """Fuse finished label stores of one pool, or finish what an earlier call began.

    The order of ``folders`` does not matter. ``fusion.report.read_fusion_report`` tells what was done.

    Args:
        folders: the folders of the stores; a single one is only calibrated and filtered, if ``rule.min_teachers`` is 1.
        out: folder of the fused store.
        ratings: ratings of people, in [0, 1] by image id, for images of the pool that the teachers did not learn from.
        groups: scene by image id, for the rated images; None takes those of the pool.
        calibrate: ``auto``, ``logistic`` or ``isotonic`` with ratings; ``quantile`` or ``none`` without.
        rule: which rows are kept; None keeps all with two teachers (or the only one).
        carry: stored feature to carry over, as ``NAME`` or ``TEACHER/NAME``.
        seed: seed of cross-validation and intervals.
        overwrite: start over, even if ``out`` holds a store that was made differently.
        progress: called with blocks of rows done and in all, reading and writing.

    Returns:
        The finished store.

    Raises:
        PocketiqaError: a store or teacher that cannot be fused (named), too few ratings, or nothing kept.
        IntegrityError: a shard of a part was altered.
        OutputConflictError: ``out`` holds something else, or is being written by another process.
    """
    rule = rule or KeepRule()
    check_method(calibrate, ratings)
    parts = _open(folders, rule)
    carried = None if carry is None else find_feature(parts, carry)
    outlying = None if rule.outlier_feature is None else find_feature(parts, rule.outlier_feature)
    shards = _shards(parts, carried or outlying)
    spans = [shard_rows(parts[0].store.spec.rows, shards, index) for index in range(shards)]
    # Each block is read once and written once; outliers need two more passes, one for the sample and one to measure.
    steps = _Steps(len(spans) * (4 if outlying else 2), progress)
    columns = read_columns(parts, spans, steps.within(0))
    rated = None
    if ratings is not None:
        rated = find_ratings(parts, spans, columns.scored_by.astype(bool), ratings, groups)
    plan = _Plan(parts, columns, calibrate, rule=rule, carried=carried, rated=rated, seed=seed)
    outlier = None
    if outlying:
        at, name = outlying
        outlier = measure_outliers(parts[at], name, columns.scored[at], spans, steps.within(len(spans)))
    # Nothing is written before this: the spec holds digests of what was fitted, and most errors come while fitting.
    fused = plan.fuse(outlier)
    out = location(out)
    with exclusively(out):
        store = LabelStore.create(
            out, plan.spec(fused, shards), pool_path=parts[0].store.pool_path, overwrite=overwrite
        )
        _write(store, parts, fused, carried, steps.within(steps.total - len(spans)))
        # Before the store is finished: a finished one always has its report.
        write_fusion_report(plan.report(fused), store.folder)
        store.finish()
    return store


def _open(folders: Sequence[Path | str], rule: KeepRule) -> list[Part]:
    if not folders:
        raise PocketiqaError("no labels to fuse: name at least two label stores")
    if len(folders) == 1 and rule.min_teachers != 1:
        raise PocketiqaError(
            f"only {folders[0]} to fuse: name at least two label stores, or say --min-teachers 1 to calibrate this one"
        )
    if rule.min_teachers is not None and rule.min_teachers > len(folders):
        raise PocketiqaError(f"min_teachers is {rule.min_teachers}, but {len(folders)} label stores are fused")
    return open_parts(folders)


def _shards(parts: Sequence[Part], featured: tuple[int, str] | None) -> int:
    """As many as the part whose features are read has, for a shard of features is read whole; else the finest."""
    if featured is not None:
        return parts[featured[0]].store.spec.shards
    return max(part.store.spec.shards for part in parts)


class _Plan:
    """Everything that follows from the parts and settings, before a byte is written."""

    def __init__(
        self,
        parts: Sequence[Part],
        columns: Columns,
        method: str,
        *,
        rule: KeepRule,
        carried: tuple[int, str] | None,
        rated: Ratings | None,
        seed: int,
    ):
        self._parts, self._columns, self._method, self._rule = parts, columns, method, rule
        self._carried, self._rated, self._seed = carried, rated, seed
        names = [part.name for part in parts]
        check_teachers(names, columns)
        self._ensemble, self._labelled = fit_ensemble(names, columns, rated, method=method, seed=seed)
        self._pairs = compare_teachers(names, columns)
        # After the fit, where ratings show a reversed teacher more reliably than the other teachers can.
        check_consensus(names, self._pairs, calibrated=rated is not None)

    def fuse(self, outlier: np.ndarray | None) -> FusedRows:
        featured = None if self._carried is None else self._columns.scored[self._carried[0]]
        return fuse_rows(self._ensemble, self._columns, self._rule, featured=featured, outlier=outlier)

    def spec(self, fused: FusedRows, shards: int) -> StoreSpec:
        specs = [part.store.spec for part in self._parts]
        options = {
            "calibrate": self._method,
            # This key and the words of the scale are part of the digests of existing stores: they must not change.
            "opinions": self._rated.digest if self._rated else None,
            "parts": [
                {"name": part.name, "teacher": part.store.spec.stamp.digest, "labels": part.store.digest}
                for part in self._parts
            ],
            "calibrations": [own.digest for own in self._ensemble.calibrations],
            "keep": _resolved(fused),
            "carry": None if self._carried is None else [self._parts[self._carried[0]].name, self._carried[1]],
            "seed": self._seed,
        }
        scale = "human opinions, 0 worst, 1 best" if self._rated else _joined(spec.stamp.scale for spec in specs)
        licence = _joined(spec.stamp.licence for spec in specs)
        # The ensemble is what weights are to other teachers.
        stamp = TeacherStamp(NAME, VERSION, self._ensemble.digest, options, scale=scale, licence=licence)
        preprocessing = {part.name: part.store.spec.preprocessing for part in self._parts}
        if specs[0].of_crops:
            # All parts show the same crops: their rows were compared. Fused, they still are no labels of whole images.
            preprocessing["crops"] = specs[0].preprocessing["crops"]
        features = () if self._carried is None else (self._carried[1],)
        return StoreSpec(
            stamp, specs[0].pool_digest, specs[0].rows, shards, preprocessing=preprocessing, features=features
        )

    def report(self, fused: FusedRows) -> FusionReport:
        ensemble, columns, kept = self._ensemble, self._columns, fused.kept
        weights = mean_weights(ensemble, columns, kept)
        return FusionReport(
            rows=len(kept),
            kept=int(kept.sum()),
            dropped=fused.counts(),
            method=self._method,
            rule=_resolved(fused),
            ensemble=ensemble.as_dict(),
            teachers=[
                {
                    "name": part.name,
                    "teacher": part.store.spec.stamp.as_dict(),
                    "labels": part.store.digest,
                    "scored": int(scored.sum()),
                    "weight": weight,
                }
                for part, scored, weight in zip(self._parts, columns.scored, weights, strict=True)
            ],
            pairs=[pair | {"points": self._points(pair["first"], pair["second"])} for pair in self._pairs],
            labelled=self._labelled,
            examples=find_examples(fused, ensemble, columns),
            features={} if self._carried is None else {self._carried[1]: self._parts[self._carried[0]].name},
        )

    def _points(self, first: str, second: str) -> list[list[float]]:
        positions = [self._ensemble.names.index(name) for name in (first, second)]
        common = np.flatnonzero(self._columns.scored[positions].all(axis=0))
        # Evenly over the pool and not at random: the same report comes from the same labels.
        chosen = common[np.unique(np.linspace(0, len(common) - 1, min(len(common), _POINTS)).astype(np.int64))]
        scores = [self._ensemble.calibrations[at].map(self._columns.scores[at, chosen]) for at in positions]
        return np.round(np.stack(scores, axis=1), 4).tolist()


def _resolved(fused: FusedRows) -> dict[str, Any]:
    return fused.rule.as_dict() | {"min_teachers": fused.min_teachers}


def _joined(texts: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(texts))


def _write(
    store: LabelStore, parts: Sequence[Part], fused: FusedRows, carried: tuple[int, str] | None, progress: Progress
) -> None:
    """Write the shards that are missing or corrupt."""
    names, missing = [part.name for part in parts], set(store.missing())
    for index in range(store.spec.shards):
        with store.writing(index):
            # Under the lock, because a corrupt shard is removed, and another process may just be writing it again.
            if index not in missing and store.fault(index):
                store.discard(index)
                missing.add(index)
            if index in missing:
                span = store.shard_rows(index)
                tables = [part.rows(span).to_pylist() for part in parts]
                records = zip(span, zip(*tables, strict=True), strict=True)
                labels = [fused.label(row, record, names) for row, record in records]
                features = {} if carried is None else {carried[1]: parts[carried[0]].features(span, carried[1])}
                store.write_shard(index, labels, features)
        progress(index + 1, store.spec.shards)


class _Steps:
    """One count for reading, measuring and writing."""

    def __init__(self, total: int, progress: Progress | None):
        self.total, self._progress = total, progress

    def within(self, before: int) -> Progress:
        """A callback for a part of the work that begins after ``before`` steps."""

        def report(done: int, _: int) -> None:
            if self._progress:
                self._progress(before + done, self.total)

        return report
