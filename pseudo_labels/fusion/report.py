"""What a fusion did, as one record in the folder of the fused labels."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pseudo_labels.errors import IntegrityError, PocketiqaError
from pseudo_labels.files import checksummed_json, read_record, write_atomic
from pseudo_labels.fusion.ensemble import Ensemble
from pseudo_labels.fusion.keep import KeepRule
from pseudo_labels.remote import location
from pseudo_labels.store import LabelStore

NAME = "fused"
REPORT = "fusion.json"
FORMAT = 1
_PARTS = "parts"


@dataclass(frozen=True)
class FusionReport:
    """Findings, all of them JSON values.

    Attributes:
        rows: number of rows of the pool.
        kept: rows with a fused label.
        dropped: reason (``keep.Drop``) to rows.
        method: method of calibration that was asked for.
        rule: the rule of ``keep.KeepRule``, with ``min_teachers`` resolved.
        ensemble: JSON form of ``Ensemble``: calibrations with n, held-out error and SRCC, correlation of errors, ...
        teachers: ``name``, ``teacher`` (stamp), ``labels`` (digest), ``scored`` rows, ``weight`` (mean over kept rows).
        pairs: ``first``, ``second``, ``n``, ``srcc``, and ``points``: up to 400 rows as [calibrated score of first, of
            second], evenly spaced over the pool.
        labelled: agreement with ratings on held-out images that all teachers scored: ``n``, ``groups``, ``fused``, and
            ``teachers`` by name; each of these with ``srcc``, ``low``, ``high``, ``rmse``. Empty without ratings.
        examples: ``kept`` (the surest) and each reason (the clearest): ``row``, ``score``, ``score_std``,
            ``disagreement`` and calibrated scores of the ``teachers``, None where there is none.
        features: name of the feature that was carried over, and its teacher; empty without one.
    """

    rows: int
    kept: int
    dropped: dict[str, int]
    method: str
    rule: dict[str, Any]
    ensemble: dict[str, Any]
    teachers: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    labelled: dict[str, Any]
    examples: dict[str, list[dict[str, Any]]]
    features: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def write_fusion_report(report: FusionReport, folder: Path) -> None:
    """Write the record into the folder of a store; the same record leaves the file untouched."""
    data = checksummed_json({"format": FORMAT, "report": report.as_dict()})
    path = folder / REPORT
    # A finished store that is fused again is left alone, its time of change included.
    if not path.is_file() or path.read_bytes() != data:
        write_atomic(path, data)


def read_fusion_report(folder: Path | str) -> FusionReport:
    """The record of a fused store.

    Raises:
        PocketiqaError: the folder holds none, or one of another format.
        IntegrityError: it cannot be parsed, or was altered.
    """
    path = location(folder) / REPORT
    record = read_record(path, what="fusion report", remedy="run the same fuse command again, it writes it anew")
    try:
        if record["format"] != FORMAT:
            raise PocketiqaError(
                f"{path} has format version {record['format']!r}, but this pocketiqa reads {FORMAT}: fuse again"
            )
        return FusionReport(**record["report"])
    except (KeyError, TypeError) as error:
        raise IntegrityError(f"{path} is not what pocketiqa writes ({error}): fuse again with --overwrite") from error


@dataclass(frozen=True)
class StoredFusion:
    """A fusion as its store keeps it.

    Attributes:
        report: what ``fusion.json`` says.
        ensemble: calibrated teachers that joined the scores.
        rule: rule that chose the rows, with ``min_teachers`` resolved.
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
        IntegrityError: the report was altered, or is that of another store.
    """
    report, stamp = read_fusion_report(store.folder), store.spec.stamp
    try:
        ensemble = Ensemble.from_dict(report.ensemble)
        # The rule is taken from the stamp, which is part of the store's digest; the report is not.
        rule = KeepRule(**stamp.options["keep"])
        teachers = {part["name"]: part["teacher"] for part in stamp.options[_PARTS]}
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"{store.folder / REPORT} is not what pocketiqa writes ({error}): fuse again") from error
    # A report that was altered, or copied from another store, holds another ensemble than the stamp says.
    if ensemble.digest != stamp.weights or tuple(teachers) != ensemble.names:
        raise IntegrityError(
            f"{store.folder / REPORT} was altered or is of another store: run the same fuse command again, it writes "
            "it anew"
        )
    return StoredFusion(report, ensemble, rule, teachers)
