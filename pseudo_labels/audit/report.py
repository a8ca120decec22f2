"""What an audit of a label store finds, as one record."""

from dataclasses import asdict, dataclass, field
from typing import Any

from pseudo_labels.shards import ShardFault


@dataclass(frozen=True)
class AuditReport:
    """Findings, all of them JSON values but for ``faults``.

    Attributes:
        folder: of the store.
        teacher: its stamp.
        finished: whether the store was finished.
        rows: of the whole store.
        shards: of the whole store.
        missing: shards that are not committed.
        faults: shards that cannot be trusted, and why.
        coverage: status to ``count`` and ``reasons`` (the most frequent: ``reason``, ``count``, ``example``); reasons
            that differ in numbers only are counted together, and that of the example is told.
        scores: ``n``, ``mean``, ``std``, ``min``, ``max``, ``median``, ``distinct`` of the ``ok`` rows.
        histograms: of ``score``, ``score_std`` (where the teacher gives it) and ``confidence`` of the ``ok`` rows:
            ``counts`` in 20 equal bins of [0, ``high``].
        spread: ``n``, ``mean``, ``median``, ``p95`` of the teacher's own standard deviation, where it gives one.
        levels: mean score by severity, to the nearest of 0 (originals) to 5; empty without a synthetic pool.
        distortions: name to ``n``, ``mean``, ``levels`` and ``srcc`` (rank correlation of score and level).
        by_shard: ``index``, ``n``, ``mean``, ``std`` of each shard with ``ok`` rows.
        examples: ``lowest``, ``highest`` and ``uncertain``: ``row``, ``uri``, ``score``, ``score_std``.
        fusion: of a fused store, as ``audit_fusion.find_fusion``; else None.
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
