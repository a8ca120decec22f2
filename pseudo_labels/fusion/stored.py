"""What a fused store says of its making, proven to belong to its labels."""

from dataclasses import dataclass

from pseudo_labels.errors import IntegrityError
from pseudo_labels.fusion.ensemble import Ensemble
from pseudo_labels.fusion.fuse import NAME
from pseudo_labels.fusion.keep import KeepRule
from pseudo_labels.fusion.report import REPORT, FusionReport, read_fusion_report
from pseudo_labels.store import LabelStore

_PARTS = "parts"


@dataclass(frozen=True)
class StoredFusion:
    """A fusion as its store keeps it.

    Attributes:
        report: see there.
        ensemble: that joined the scores.
        rule: that chose the rows, with ``min_teachers`` resolved.
        teachers: name in the fusion to the digest of the teacher's stamp, in the order of ``ensemble.names``.
    """

    report: FusionReport
    ensemble: Ensemble
    rule: KeepRule
    teachers: dict[str, str]


def is_fused(store: LabelStore) -> bool:
    """Whether ``fuse`` wrote this store (and not a live teacher that is made of others)."""
    return store.spec.stamp.name == NAME and _PARTS in store.spec.stamp.options


def read_fusion(store: LabelStore) -> StoredFusion:
    """The fusion of a store for which ``is_fused`` holds.

    Raises:
        PocketiqaError: its report is missing, or of another format.
        TamperedError: the report was altered, or is that of another store.
    """
    report, stamp = read_fusion_report(store.folder), store.spec.stamp
    try:
        ensemble = Ensemble.from_dict(report.ensemble)
        rule = KeepRule(**stamp.options["keep"])
        teachers = {part["name"]: part["teacher"] for part in stamp.options[_PARTS]}
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"{store.folder / REPORT} is not what pocketiqa writes ({error}): fuse again") from error
    if ensemble.digest != stamp.weights or tuple(teachers) != ensemble.names:
        raise IntegrityError(
            f"{store.folder / REPORT} was altered or is of another store: run the same fuse command again, it writes "
            "it anew"
        )
    return StoredFusion(report, ensemble, rule, teachers)
