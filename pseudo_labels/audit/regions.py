"""What is in a manifest of regions or a store of region labels, and what is wrong with it.

As ``audit.store`` for labels of images: only shards whose bytes verify are looked at.
"""

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pseudo_labels.audit.store import Coverage, corruption, histogram, narrow, summary
from pseudo_labels.outputs import read_manifest
from pseudo_labels.parallel import Progress
from pseudo_labels.records import Status
from pseudo_labels.regions.store import RegionLabelStore, RegionSet
from pseudo_labels.remote import location
from pseudo_labels.shards import ShardFault

_LEAST_FRACTION = 0.5  # of usable regions with a label
_NUMBERS = {
    RegionSet.kind: ("area", "quality", "importance", "severity"),
    RegionLabelStore.kind: (
        *("quality", "importance", "severity"),
        *("quality_std", "importance_std", "severity_std", "confidence"),
    ),
}
_NAMES = {RegionSet.kind: ("source", "level", "distortion"), RegionLabelStore.kind: ("type",)}
KINDS = tuple(_NUMBERS)
"""Kinds of folders, as manifests state them, that this module audits."""


@dataclass(frozen=True)
class RegionAudit:
    """Findings, all of them JSON values but for ``faults``.

    Attributes:
        folder: folder of the store.
        kind: ``regions`` or ``region-labels``.
        made_by: of a manifest its ``source``, ``options`` and ``limits``; of labels the stamp of the teacher and the
            way of labelling (``mode``).
        finished: whether the store was finished.
        images: number of images of the pool.
        shards: number of shards of the whole store.
        missing: shards that are not committed.
        faults: shards that cannot be trusted, and why.
        coverage: rows by status, as in ``AuditReport``; an example is the id of an image.
        regions: number of ``ok`` rows.
        per_image: ``n`` (images with a region that is ``ok``), ``mean``, ``min`` and ``max`` of their regions.
        numbers: column to ``n``, ``mean``, ``std``, ``min``, ``max``, ``median``, ``distinct`` of the ``ok`` rows that
            have a value; columns without any are left out.
        histograms: the same columns: ``counts`` in 20 equal bins of [0, ``high``].
        names: column of words (such as ``type``) to the number of ``ok`` rows for each word; empty words are left out.
        by_type: distortion to ``n`` and mean quality; of labels alone.
        warnings: what a person should look at, in words.
    """

    folder: str
    kind: str
    made_by: dict[str, Any]
    finished: bool
    images: int
    shards: int
    missing: list[int]
    faults: list[ShardFault]
    coverage: dict[str, Any]
    regions: int
    per_image: dict[str, Any]
    numbers: dict[str, dict[str, Any]]
    histograms: dict[str, dict[str, Any]]
    names: dict[str, dict[str, int]]
    by_type: dict[str, dict[str, Any]]
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every row is there and as it was written; warnings may still stand."""
        return self.finished and not self.missing and not self.faults

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self) | {"ok": self.ok}


def audit_regions(folder: Path | str, *, progress: Progress | None = None) -> RegionAudit:
    """Verify every byte of a manifest of regions or a store of region labels, and summarise what it holds.

    Args:
        folder: folder of the store, finished or not.
        progress: called with shards verified and shards in all.

    Raises:
        PocketiqaError: there is no such store, or its manifest cannot be read.
    """
    folder = location(folder)
    kind = read_manifest(folder).kind
    store = RegionLabelStore.open(folder) if kind == RegionLabelStore.kind else RegionSet.open(folder)
    missing, faults, columns, coverage = _read(store, progress)
    good = np.array([status == Status.OK for status in columns["status"]], dtype=bool)
    values = {name: _finite(columns[name], good) for name in _NUMBERS[store.kind]}
    values = {name: own for name, own in values.items() if len(own)}
    counts = Counter(image for image, one in zip(columns["image"], good, strict=True) if one)
    report = RegionAudit(
        folder=str(folder),
        kind=store.kind,
        made_by=_made_by(store),
        finished=store.manifest.complete,
        images=int(store.manifest.spec["rows"]),
        shards=store.shard_count,
        missing=missing,
        faults=faults,
        coverage=coverage.as_dict(),
        regions=int(good.sum()),
        per_image=_per_image(list(counts.values())),
        numbers={name: summary(own) for name, own in values.items()},
        histograms={name: histogram(own, max(1.0, float(own.max()))) for name, own in values.items()},
        names={name: _words(columns[name], good) for name in _NAMES[store.kind]},
        by_type=_by_type(columns, good) if store.kind == RegionLabelStore.kind else {},
    )
    report.warnings.extend(
        corruption(faults, missing, store.shard_count, finished=report.finished, command=store.command)
    )
    report.warnings.extend(_warnings(report, values.get("quality")))
    return report


def _read(store: RegionSet | RegionLabelStore, progress: Progress | None) -> tuple[
    list[int], list[ShardFault], dict[str, list[Any]], Coverage
]:  # fmt: skip
    missing, faults, coverage = store.missing(), list[ShardFault](), Coverage()
    wanted = ("image", "status", *_NUMBERS[store.kind], *_NAMES[store.kind])
    columns: dict[str, list[Any]] = {name: [] for name in wanted}
    for index in range(store.shard_count):
        if index not in missing:
            reason = store.fault(index)
            if reason:
                faults.append(ShardFault(index, reason))
            else:
                table = store.shard_table(index)
                for name in wanted:
                    columns[name].extend(table[name].to_pylist())
                coverage.add(table["image"], table["status"].to_pylist(), table["reason"].to_pylist())
        if progress:
            progress(index + 1, store.shard_count)
    return missing, faults, columns, coverage


def _finite(column: list[Any], good: np.ndarray) -> np.ndarray:
    values = np.array(column, dtype=np.float64)[good]
    return values[np.isfinite(values)]


def _made_by(store: RegionSet | RegionLabelStore) -> dict[str, Any]:
    spec = store.manifest.spec
    keys = ("teacher", "mode") if isinstance(store, RegionLabelStore) else ("source", "options", "limits")
    return {key: spec[key] for key in keys if key in spec}


def _per_image(counts: list[int]) -> dict[str, Any]:
    if not counts:
        return {"n": 0}
    return {"n": len(counts), "mean": float(np.mean(counts)), "min": min(counts), "max": max(counts)}


def _words(column: list[str], good: np.ndarray) -> dict[str, int]:
    counts = Counter(word for word, one in zip(column, good, strict=True) if one and word)
    return dict(counts.most_common())


def _by_type(columns: dict[str, list[Any]], good: np.ndarray) -> dict[str, dict[str, Any]]:
    qualities: dict[str, list[float]] = defaultdict(list)
    for name, quality, one in zip(columns["type"], columns["quality"], good, strict=True):
        if one and name:
            qualities[name].append(quality)
    return {name: {"n": len(own), "quality": float(np.mean(own))} for name, own in sorted(qualities.items())}


def _warnings(report: RegionAudit, quality: np.ndarray | None) -> list[str]:
    if not report.regions:
        return ["no region is ok: see the reasons"]
    warnings = []
    if report.kind == RegionLabelStore.kind:
        failed = report.coverage.get(Status.FAILED, {}).get("count", 0)
        if report.regions < _LEAST_FRACTION * (report.regions + failed):
            warnings.append(f"{failed} of {report.regions + failed} regions have no label: see the reasons")
        warnings += [] if quality is None else narrow(quality, what="regions")
    return warnings
