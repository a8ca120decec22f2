"""What is in a label store and what is wrong with it: corrupt shards, coverage, scores, levels, shards that differ.

Only shards whose bytes verify are looked at; ``audit.page.write_audit_page`` turns the report into one HTML file.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.fusion.report import is_fused, read_fusion
from pseudo_labels.metrics.correlation import srcc
from pseudo_labels.parallel import Progress
from pseudo_labels.pool import Pool
from pseudo_labels.records import Status
from pseudo_labels.remote import location
from pseudo_labels.shards import ShardFault, shard_of
from pseudo_labels.store import LabelStore

# Below these a teacher tells images apart hardly or not at all.
_CONSTANT_STD = 1e-3
_NARROW_STD = 0.02
_SAME_SCORE_FRACTION = 0.5
# A shard drifts if its mean is this far from the others' median, in robust deviations and on the scale.
_DRIFT_DEVIATIONS, _DRIFT_SCORE = 5.0, 0.1
_HISTOGRAM_BINS = 20
_LEAST_REACH = 0.05  # of a histogram of spreads
_NUMBER = re.compile(r"\d+(\.\d+)?")
_EXAMPLES = 8
_REASONS = 5


Texts = Callable[[int], tuple[str, str]]
"""Gives address and reason of a row; both empty where it cannot be read."""


def find_fusion(
    store: LabelStore, texts: Texts, counts: Mapping[str, int], *, whole: bool
) -> tuple[dict[str, Any] | None, str]:
    """The fusion of a store, and a warning if it cannot be trusted.

    Args:
        store: a store of any kind.
        texts: address and reason of a row.
        counts: status to rows, of the rows that can be read.
        whole: whether these are all rows.

    Returns:
        ``FusionReport`` as JSON values, each example with its ``uri`` and ``reason`` (empty where its row cannot be
        read); None without a fusion. And the warning, empty if there is none.
    """
    if not is_fused(store):
        return None, ""
    try:
        report = read_fusion(store).report
    except PocketiqaError as error:
        return None, f"nothing is known of the fusion: {error}"
    # The report is a file beside the shards. One of an earlier fusion can lie there while the shards are of another.
    if whole and report.kept != counts.get("ok", 0):
        return None, (
            f"nothing is known of the fusion: its report tells of {report.kept} kept rows, the store holds "
            f"{counts.get('ok', 0)}; run the same fuse command again"
        )
    examples = {
        name: [own | dict(zip(("uri", "reason"), texts(own["row"]), strict=True)) for own in chosen]
        for name, chosen in report.examples.items()
    }
    return report.as_dict() | {"examples": examples}, ""


@dataclass(frozen=True)
class AuditReport:
    """Findings, all of them JSON values but for ``faults``.

    Attributes:
        folder: folder of the store.
        teacher: its stamp.
        finished: whether the store was finished.
        rows: number of rows of the whole store.
        shards: number of shards of the whole store.
        missing: shards that are not committed.
        faults: shards that cannot be trusted, and why.
        coverage: status to ``count`` and ``reasons`` (the most frequent: ``reason``, ``count``, ``example``); reasons
            that differ in numbers only are counted together, and one of them stands as the example.
        scores: ``n``, ``mean``, ``std``, ``min``, ``max``, ``median``, ``distinct`` of the ``ok`` rows.
        histograms: histograms of ``score``, ``score_std`` (where the teacher gives it) and ``confidence`` over the
            ``ok`` rows: ``counts`` in 20 equal bins of [0, ``high``].
        spread: ``n``, ``mean``, ``median``, ``p95`` of the teacher's own standard deviation, where it gives one.
        levels: mean score by severity, to the nearest of 0 (originals) to 5; empty without a synthetic pool.
        distortions: name to ``n``, ``mean``, ``levels`` and ``srcc`` (rank correlation of score and level).
        by_shard: ``index``, ``n``, ``mean``, ``std`` of each shard with ``ok`` rows.
        examples: ``lowest``, ``highest`` and ``uncertain``: ``row``, ``uri``, ``score``, ``score_std``.
        fusion: the fusion record of a fused store, as ``find_fusion``; else None.
        warnings: what a person should look at, in words.
    """

    folder: str
    teacher: dict[str, Any]
    finished: bool
    rows: int
    shards: int
    missing: list[int]
    faults: list[ShardFault]
    coverage: dict[str, Any]
    scores: dict[str, Any]
    histograms: dict[str, Any]
    spread: dict[str, Any]
    levels: dict[str, float]
    distortions: dict[str, Any]
    by_shard: list[dict[str, Any]]
    examples: dict[str, list[dict[str, Any]]]
    fusion: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every label is there and as it was written; warnings may still stand."""
        return self.finished and not self.missing and not self.faults

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self) | {"ok": self.ok}


def find_warnings(report: AuditReport, scores: np.ndarray) -> list[str]:
    """Warnings, most urgent first.

    Args:
        report: the report of ``audit_store``, without its warnings.
        scores: scores of the ``ok`` rows.
    """
    corrupt = corruption(report.faults, report.missing, report.shards, finished=report.finished)
    return [*corrupt, *_degenerate(report, scores), *_trends(report), *_drift(report)]


def corruption(
    faults: Sequence[ShardFault], missing: Sequence[int], shards: int, *, finished: bool, command: str = "label"
) -> list[str]:
    """Warnings of shards that are not as they were written.

    Args:
        faults: shards that cannot be trusted, and why.
        missing: shards that are not committed.
        shards: number of shards of the whole store.
        finished: whether the store was finished.
        command: command that makes the store.
    """
    warnings = []
    if faults:
        shown = "; ".join(f"shard {fault.index}: {fault.reason}" for fault in faults[:3])
        more = "; ..." if len(faults) > 3 else ""
        relabels = "relabels them" if command == "label" else "makes them anew"
        warnings.append(
            f"{len(faults)} of {shards} shards are corrupt ({shown}{more}): run the same {command} command again, it "
            f"{relabels}"
        )
    if missing:
        warnings.append(
            f"{len(missing)} of {shards} shards are missing: run the same {command} command again, it resumes where it "
            "stopped"
        )
    elif not finished:
        warnings.append(f"the store is not finished: run the same {command} command again")
    return warnings


def _degenerate(report: AuditReport, scores: np.ndarray) -> list[str]:
    if not len(scores):
        return ["no image has a score"]
    warnings = narrow(scores)
    if not warnings:
        values, counts = np.unique(scores, return_counts=True)
        if len(scores) > 1 and counts.max() > _SAME_SCORE_FRACTION * len(scores):
            fraction = counts.max() / len(scores)
            warnings.append(f"{fraction:.0%} of the images have the same score, {values[counts.argmax()]:.4g}")
    return warnings


def narrow(scores: np.ndarray, *, what: str = "images") -> list[str]:
    """A warning of scores that hardly differ, at most one; ``what`` is scored."""
    deviation = float(scores.std())
    if deviation < _CONSTANT_STD:
        return [f"the teacher is constant: {len(scores)} scores with a standard deviation of {deviation:.2g}"]
    if deviation < _NARROW_STD:
        return [
            f"the teacher gives nearly all {what} the same score: its scores have a standard deviation of "
            f"{deviation:.2g}"
        ]
    return []


def _trends(report: AuditReport) -> list[str]:
    rising = [name for name, trend in report.distortions.items() if trend["srcc"] is not None and trend["srcc"] > 0]
    warnings = [f"scores rise with the level of {', '.join(rising)}: they should fall"] if rising else []
    means = [mean for _, mean in sorted(report.levels.items())]
    if len(means) > 1 and means[-1] >= means[0]:
        warnings.append("severe levels score no lower than mild ones: is the teacher's scale reversed?")
    return warnings


def _drift(report: AuditReport) -> list[str]:
    means = np.array([shard["mean"] for shard in report.by_shard])
    # The median of so few distances says nothing of how far shards usually are apart.
    if len(means) < 4:
        return []
    distance = np.abs(means - np.median(means))
    deviation = 1.4826 * np.median(distance)  # of a normal distribution, from the median distance
    far = distance > np.maximum(_DRIFT_DEVIATIONS * deviation, _DRIFT_SCORE)
    shards = ", ".join(str(report.by_shard[at]["index"]) for at in np.flatnonzero(far)[:5])
    if not shards:
        return []
    return [
        f"mean scores of shard {shards} are far from the others' ({np.median(means):.3f}): "
        "other content there, or a teacher that changed on the way"
    ]


@dataclass(frozen=True)
class _Rows:
    """Numbers of the rows that can be trusted, as columns; texts of all rows are never held at once.

    Attributes:
        position: in the pool.
        shard: index of the shard.
        scored: whether the status is ``ok``.
        score: float32; NaN unless scored.
        score_std: float32; NaN where there is none.
        confidence: float32.
    """

    position: np.ndarray
    shard: np.ndarray
    scored: np.ndarray
    score: np.ndarray
    score_std: np.ndarray
    confidence: np.ndarray


class Coverage:
    """Counts rows by status and reason, shard by shard."""

    def __init__(self) -> None:
        self._reasons: dict[str, Counter[str]] = defaultdict(Counter)
        self._example: dict[tuple[str, str], tuple[str, str]] = {}

    @property
    def counts(self) -> dict[str, int]:
        """Status to rows."""
        return {status: kinds.total() for status, kinds in self._reasons.items()}

    def add(self, uris: pa.ChunkedArray, statuses: Sequence[str], reasons: Sequence[str]) -> None:
        """Count some rows; arguments are columns, one entry a row."""
        pairs = list(zip(statuses, reasons, strict=True))
        for (status, reason), count in Counter(pairs).items():
            # Sizes and counts differ from image to image: without them, a reason of many counts once.
            kind = _NUMBER.sub("#", reason)
            self._reasons[status][kind] += count
            if (status, kind) not in self._example:
                row = pairs.index((status, reason))
                self._example[status, kind] = reason, uris[row].as_py()

    def as_dict(self) -> dict[str, Any]:
        """As ``AuditReport.coverage``."""
        return {
            status: {
                "count": kinds.total(),
                "reasons": [
                    dict(zip(("reason", "example"), self._example[status, kind], strict=True)) | {"count": count}
                    for kind, count in kinds.most_common(_REASONS)
                    if status != Status.OK
                ],
            }
            for status, kinds in sorted(self._reasons.items())
        }


def audit_store(folder: Path | str, *, progress: Progress | None = None) -> AuditReport:
    """Verify every byte of a store and summarise what it holds.

    Args:
        folder: folder of the store, finished or not.
        progress: called with shards verified and shards in all.

    Raises:
        PocketiqaError: there is no store, or its manifest cannot be read.
    """
    store = LabelStore.open(location(folder))
    missing, faults, rows, coverage = _read(store, progress)
    scores, spreads = (own[rows.scored].astype(np.float64) for own in (rows.score, rows.score_std))
    texts = _texts(store, {*missing, *(fault.index for fault in faults)})
    by_level, distortions, pool_warning = _levels(store, rows)
    whole = len(rows.position) == store.spec.rows
    fusion, fusion_warning = find_fusion(store, texts, coverage.counts, whole=whole)
    report = AuditReport(
        folder=str(store.folder),
        teacher=store.spec.stamp.as_dict(),
        finished=store.manifest.complete,
        rows=store.spec.rows,
        shards=store.spec.shards,
        missing=missing,
        faults=faults,
        coverage=coverage.as_dict(),
        scores=summary(scores),
        histograms=_histograms(scores, spreads, rows.confidence[rows.scored].astype(np.float64)),
        spread=_spread(spreads[np.isfinite(spreads)]),
        levels=by_level,
        distortions=distortions,
        by_shard=_by_shard(rows.shard[rows.scored], scores),
        examples=_examples(rows, texts),
        fusion=fusion,
    )
    report.warnings.extend(find_warnings(report, scores))
    report.warnings.extend(warning for warning in (fusion_warning, pool_warning) if warning)
    return report


def _read(store: LabelStore, progress: Progress | None) -> tuple[list[int], list[ShardFault], _Rows, Coverage]:
    missing, faults, coverage = store.missing(), list[ShardFault](), Coverage()
    absent, blocks = set(missing), list[_Rows]()
    for index in range(store.spec.shards):
        if index not in absent:
            reason = store.fault(index)
            if reason:
                faults.append(ShardFault(index, reason))
            else:
                table, own = store.shard_labels(index), store.shard_rows(index)
                status = table["status"].to_pylist()
                coverage.add(table["uri"], status, table["reason"].to_pylist())
                blocks.append(
                    _Rows(
                        np.arange(own.start, own.stop),
                        np.full(len(own), index),
                        np.array([one == Status.OK for one in status], bool),
                        *(table[name].to_numpy() for name in ("score", "score_std", "confidence")),
                    )
                )
        if progress:
            progress(index + 1, store.spec.shards)
    types = (np.int64, np.int64, bool, np.float32, np.float32, np.float32)
    names = [column.name for column in fields(_Rows)]
    columns = (
        np.concatenate([np.empty(0, kind), *(getattr(block, name) for block in blocks)])
        for name, kind in zip(names, types, strict=True)
    )
    return missing, faults, _Rows(*columns), coverage


def _texts(store: LabelStore, unreadable: Container[int]) -> Texts:
    """Reads the few rows that a report shows from their shards again."""

    def of_row(row: int) -> tuple[str, str]:
        index = shard_of(store.spec.rows, store.spec.shards, row)
        if index in unreadable:
            return "", ""
        table, at = store.shard_labels(index), row - store.shard_rows(index).start
        return table["uri"][at].as_py(), table["reason"][at].as_py()

    return of_row


def summary(scores: np.ndarray) -> dict[str, Any]:
    """``n``, ``distinct``, ``mean``, ``std``, ``min``, ``max`` and ``median`` of finite values; ``n`` alone of none."""
    if not len(scores):
        return {"n": 0}
    values = {"mean": scores.mean(), "std": scores.std(), "min": scores.min(), "max": scores.max()}
    values["median"] = np.median(scores)
    return {"n": len(scores), "distinct": len(np.unique(scores))} | {
        name: float(value) for name, value in values.items()
    }


def _histograms(scores: np.ndarray, spreads: np.ndarray, confidences: np.ndarray) -> dict[str, Any]:
    known = spreads[np.isfinite(spreads)]
    # To the next twentieth: the spreads of most teachers fill a small part of [0, 1].
    reach = max(_LEAST_REACH, float(np.ceil(known.max(initial=0) * 20) / 20))
    wanted = {"score": (scores, 1.0), "score_std": (known, reach), "confidence": (confidences, 1.0)}
    return {
        name: histogram(values, high) for name, (values, high) in wanted.items() if len(values) or name != "score_std"
    }


def histogram(values: np.ndarray, high: float = 1.0) -> dict[str, Any]:
    """``counts`` of values in 20 equal bins of [0, ``high``]."""
    return {"high": high, "counts": np.histogram(values, _HISTOGRAM_BINS, (0, high))[0].tolist()}


def _spread(spreads: np.ndarray) -> dict[str, Any]:
    if not len(spreads):
        return {"n": 0}
    values = {"mean": spreads.mean(), "median": np.median(spreads), "p95": np.quantile(spreads, 0.95)}
    return {"n": len(spreads)} | {name: float(value) for name, value in values.items()}


def _levels(store: LabelStore, rows: _Rows) -> tuple[dict[str, float], dict[str, Any], str]:
    """Scores by level and by distortion; both empty where the pool is not available, and a warning that says why."""
    try:
        pool = Pool.open(store.pool_path)
    except PocketiqaError as error:
        return {}, {}, f"levels and pictures need the pool: {error}"
    if pool.digest != store.spec.pool_digest:
        return (
            {},
            {},
            f"the pool in {store.pool_path} is not the one that was labelled: levels and pictures are left out",
        )
    made = pool.columns("distortion", "level").take(rows.position[rows.scored])
    scores, levels = rows.score[rows.scored].astype(np.float64), made["level"].to_numpy()
    named = made["distortion"].combine_chunks().dictionary_encode()
    which, names = named.indices.to_numpy(), named.dictionary.to_pylist()
    # Originals alone: a pool of photographs has no levels.
    if set(names) <= {""}:
        return {}, {}, ""
    distortions = {}
    for number, name in sorted(enumerate(names), key=lambda pair: pair[1]):
        if name:
            own = which == number
            value = srcc(levels[own], scores[own])
            distortions[name] = {
                "n": int(own.sum()),
                "mean": float(scores[own].mean()),
                "levels": _by_level(levels[own], scores[own]),
                "srcc": None if np.isnan(value) else value,
            }
    return _by_level(levels, scores), distortions, ""


def _by_level(levels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    nearest = np.rint(levels).astype(np.int64)
    return {str(level): float(scores[nearest == level].mean()) for level in np.unique(nearest).tolist()}


def _by_shard(shard: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    # Rows of a shard follow each other: looked for among all, they would cost the square of the number of shards.
    starts = np.flatnonzero(np.diff(shard, prepend=-1))
    blocks = np.split(scores, starts)[1:]
    return [
        {"index": int(shard[at]), "n": len(own), "mean": float(own.mean()), "std": float(own.std())}
        for at, own in zip(starts, blocks, strict=True)
    ]


def _examples(rows: _Rows, texts: Texts) -> dict[str, list[dict[str, Any]]]:
    scored = np.flatnonzero(rows.scored)
    order = scored[np.argsort(rows.score[scored], kind="stable")]
    doubted = scored[np.isfinite(rows.score_std[scored])]
    doubted = doubted[np.argsort(-rows.score_std[doubted], kind="stable")]
    chosen = {"lowest": order[:_EXAMPLES], "highest": order[::-1][:_EXAMPLES], "uncertain": doubted[:_EXAMPLES]}
    return {name: [_example(rows, int(at), texts) for at in positions] for name, positions in chosen.items()}


def _example(rows: _Rows, at: int, texts: Texts) -> dict[str, Any]:
    spread, row = float(rows.score_std[at]), int(rows.position[at])
    return {
        "row": row,
        "uri": texts(row)[0],
        "score": float(rows.score[at]),
        "score_std": spread if np.isfinite(spread) else None,
    }
