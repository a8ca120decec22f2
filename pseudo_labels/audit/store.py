"""What is in a label store and what is wrong with it: damage, coverage, scores, levels, shards that differ.

Only shards whose bytes verify are looked at; ``audit_page`` turns the report into one HTML file.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from pseudo_labels.audit.checks import find_warnings
from pseudo_labels.audit.fusion import find_fusion
from pseudo_labels.audit.report import AuditReport
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import Pool
from pseudo_labels.records import Status
from pseudo_labels.shards import ShardFault
from pseudo_labels.store import LabelStore

_HISTOGRAM_BINS = 20
_LEAST_REACH = 0.05  # of a histogram of spreads
_NUMBER = re.compile(r"\d+(\.\d+)?")
_EXAMPLES = 8
_REASONS = 5


@dataclass(frozen=True)
class _Rows:
    """Columns of the rows that can be trusted, with their positions in the pool."""

    position: np.ndarray
    shard: np.ndarray
    uri: list[str]
    status: list[str]
    reason: list[str]
    score: np.ndarray
    score_std: np.ndarray
    confidence: np.ndarray

    @property
    def scored(self) -> np.ndarray:
        return np.array([status == Status.OK for status in self.status], dtype=bool)


def audit_store(folder: Path | str, *, progress: Callable[[int, int], None] | None = None) -> AuditReport:
    """Verify every byte of a store and summarise what it holds.

    Args:
        folder: of the store, finished or not.
        progress: called with shards verified and shards in all.

    Raises:
        PocketiqaError: there is no store, or its manifest cannot be read.
    """
    store = LabelStore.open(Path(folder))
    missing, faults, rows = _read(store, progress)
    scored = rows.scored
    scores, spreads = rows.score[scored], rows.score_std[scored]
    by_level, distortions, pool_warning = _levels(store, rows)
    fusion, fusion_warning = _fusion(store, rows)
    report = AuditReport(
        folder=str(folder),
        teacher=store.spec.stamp.as_dict(),
        finished=store.manifest.complete,
        rows=store.spec.rows,
        shards=store.spec.shards,
        missing=missing,
        faults=faults,
        coverage=_coverage(rows),
        scores=_summary(scores),
        histograms=_histograms(scores, spreads, rows.confidence[scored]),
        spread=_spread(spreads[np.isfinite(spreads)]),
        levels=by_level,
        distortions=distortions,
        by_shard=_by_shard(rows.shard[scored], scores),
        examples=_examples(rows),
        fusion=fusion,
    )
    report.warnings.extend(find_warnings(report, scores))
    report.warnings.extend(warning for warning in (fusion_warning, pool_warning) if warning)
    return report


def _read(store: LabelStore, progress: Callable[[int, int], None] | None) -> tuple[list[int], list[ShardFault], _Rows]:
    missing, faults = store.missing(), []
    columns: dict[str, list[Any]] = defaultdict(list)
    for index in range(store.spec.shards):
        if index not in missing:
            reason = store.fault(index)
            if reason:
                faults.append(ShardFault(index, reason))
            else:
                table = store.shard_labels(index)
                for name in ("uri", "status", "reason", "score", "score_std", "confidence"):
                    columns[name].extend(table[name].to_pylist())
                columns["position"].extend(store.shard_rows(index))
                columns["shard"].extend([index] * table.num_rows)
        if progress:
            progress(index + 1, store.spec.shards)
    position, shard = (np.array(columns[name], dtype=np.int64) for name in ("position", "shard"))
    numbers = [np.array(columns[name], dtype=np.float64) for name in ("score", "score_std", "confidence")]
    texts = (columns["uri"], columns["status"], columns["reason"])
    return missing, faults, _Rows(position, shard, *texts, *numbers)


def _fusion(store: LabelStore, rows: _Rows) -> tuple[dict[str, Any] | None, str]:
    labels = dict(zip(rows.position.tolist(), zip(rows.uri, rows.reason, strict=True), strict=True))
    return find_fusion(store, labels, Counter(rows.status), whole=len(labels) == store.spec.rows)


def _coverage(rows: _Rows) -> dict[str, Any]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    example: dict[tuple[str, str], tuple[str, str]] = {}
    for uri, status, reason in zip(rows.uri, rows.status, rows.reason, strict=True):
        kind = _NUMBER.sub("#", reason)
        found[status][kind] += 1
        example.setdefault((status, kind), (reason, uri))
    return {
        status: {
            "count": kinds.total(),
            "reasons": [
                dict(zip(("reason", "example"), example[status, kind], strict=True)) | {"count": count}
                for kind, count in kinds.most_common(_REASONS)
                if status != Status.OK
            ],
        }
        for status, kinds in sorted(found.items())
    }


def _summary(scores: np.ndarray) -> dict[str, Any]:
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
        name: {"high": high, "counts": np.histogram(values, _HISTOGRAM_BINS, (0, high))[0].tolist()}
        for name, (values, high) in wanted.items()
        if len(values) or name != "score_std"
    }


def _spread(spreads: np.ndarray) -> dict[str, Any]:
    if not len(spreads):
        return {"n": 0}
    values = {"mean": spreads.mean(), "median": np.median(spreads), "p95": np.quantile(spreads, 0.95)}
    return {"n": len(spreads)} | {name: float(value) for name, value in values.items()}


def _levels(store: LabelStore, rows: _Rows) -> tuple[dict[str, float], dict[str, Any], str]:
    """Scores by level and by distortion, and why not if the pool is not to be had."""
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
    score_at = dict(zip(rows.position[rows.scored].tolist(), rows.score[rows.scored].tolist(), strict=True))
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for position, ref in enumerate(pool):
        if position in score_at:
            pairs[ref.distortion].append((ref.level, score_at[position]))
    if set(pairs) <= {""}:
        return {}, {}, ""
    distortions = {}
    for name, found in sorted(pairs.items()):
        if name:
            mean = float(np.mean([score for _, score in found]))
            distortions[name] = {"n": len(found), "mean": mean, "levels": _by_level(found), "srcc": _srcc(found)}
    return _by_level(pair for found in pairs.values() for pair in found), distortions, ""


def _by_level(pairs: Iterable[tuple[float, float]]) -> dict[str, float]:
    found: dict[int, list[float]] = defaultdict(list)
    for level, score in pairs:
        found[round(level)].append(score)
    return {str(level): float(np.mean(scores)) for level, scores in sorted(found.items())}


def _srcc(pairs: list[tuple[float, float]]) -> float | None:
    levels, scores = zip(*pairs, strict=True)
    if len(set(levels)) < 2 or len(set(scores)) < 2:
        return None
    return float(np.corrcoef(stats.rankdata(levels), stats.rankdata(scores))[0, 1])


def _by_shard(shard: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    return [
        {"index": int(index), "n": len(own), "mean": float(own.mean()), "std": float(own.std())}
        for index in np.unique(shard)
        for own in (scores[shard == index],)
    ]


def _examples(rows: _Rows) -> dict[str, list[dict[str, Any]]]:
    scored = np.flatnonzero(rows.scored)
    order = scored[np.argsort(rows.score[scored], kind="stable")]
    doubted = scored[np.isfinite(rows.score_std[scored])]
    doubted = doubted[np.argsort(-rows.score_std[doubted], kind="stable")]
    chosen = {"lowest": order[:_EXAMPLES], "highest": order[::-1][:_EXAMPLES], "uncertain": doubted[:_EXAMPLES]}
    return {name: [_example(rows, int(at)) for at in found] for name, found in chosen.items()}


def _example(rows: _Rows, at: int) -> dict[str, Any]:
    spread = float(rows.score_std[at])
    return {
        "row": int(rows.position[at]),
        "uri": rows.uri[at],
        "score": float(rows.score[at]),
        "score_std": spread if np.isfinite(spread) else None,
    }
