"""How far matched images move the scores of a study's QFM-IQM teachers: measured, then compared in pairs.

Each change is divided by the deviation of the model's own scores: a model that gives all images the same score is moved
by no match, and is no better for it.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.evaluation.samples import Sample
from distill.evaluation.targets import Targets
from pseudo_labels.images import ImageError, decode
from pseudo_labels.metrics.draws import Draws, interval
from teachers.qfm_iqm import QfmIqmTeacher

FloatArray = NDArray[np.float64]
Record = Mapping[str, Any]
"""The record that ``measure`` returns."""


def measure(teacher: QfmIqmTeacher, samples: Sequence[Sample], targets: Targets) -> dict[str, Any]:
    """Score changes of a teacher under matched noise, as JSON values.

    Args:
        teacher: teacher on its device.
        samples: images, in any order; those that it cannot score are left out.
        targets: ratings of the images, by which images are matched.

    Returns:
        ``change`` and ``ungated`` (without the feature selection) by image id, in deviations of the scores, null
        where an image has no match; ``suppressed``, the fraction of channels that the selection closes.
    """
    score_of = dict(zip(targets.ids, targets.scores.tolist(), strict=True))
    ids, items = [], []
    for sample in samples:
        try:
            items.append(teacher.preprocess(decode(sample.read()), None))
            ids.append(sample.id)
        except ImageError:  # the evaluation has the reason for each
            continue
    # All at once: an image is matched with any other, so the set determines the result.
    changes = teacher.sensitivity(items, [score_of[id] for id in ids])
    columns = {"change": changes.change, "ungated": changes.ungated}
    # Equal scores for all images: the change has no scale, and NaN (null in the record) says so.
    spread = changes.deviation or math.nan
    by_id = {
        name: {id: _number(value / spread) for id, value in zip(ids, column.tolist(), strict=True)}
        for name, column in columns.items()
    }
    return {**by_id, "suppressed": teacher.gate_report().suppressed}


def compared(
    repeats: Mapping[str, Mapping[str, Record]], baseline: str | None, targets: Targets, draws: Draws
) -> dict[str, Any] | None:
    """Sensitivity of the arms at one combination of values; None if no arm was measured.

    Args:
        repeats: arm to repeat to its record, as far as there are any.
        baseline: the arm that others are compared with.
        targets: gives the order of the images.
        draws: resamples of their scenes.

    Returns:
        ``arms``: of each measured arm the means over images and repeats of ``change`` and ``ungated``, and
        ``suppressed``. ``differences``: of each to the baseline, of ``change``, with their interval over scenes. None
        where no image has a change: none has a match, or the model gives all images the same score.
    """
    measured = {arm: records for arm, records in repeats.items() if records}
    if not measured:
        return None
    base = measured.get(baseline or "", {})
    # Only repeats that both have, as for the metric: equal seeds are compared with each other.
    differences = {
        arm: _paired([(records[at], base[at]) for at in records if at in base], targets.ids, draws)
        for arm, records in measured.items()
        if arm != baseline and records.keys() & base.keys()
    }
    return {
        "arms": {arm: _means(records, targets.ids) for arm, records in measured.items()},
        "differences": differences,
    }


def _means(records: Mapping[str, Record], ids: Sequence[str]) -> dict[str, Any]:
    columns = {name: [_column(one, name, ids) for one in records.values()] for name in ("change", "ungated")}
    means = {name: _mean(np.array(column)) for name, column in columns.items()}
    return {**means, "suppressed": statistics.fmean(one["suppressed"] for one in records.values()), "n": len(records)}


def _column(record: Record, name: str, ids: Sequence[str]) -> FloatArray:
    """[images], NaN where there is none."""
    return np.array([record[name].get(id) for id in ids], np.float64)


def _paired(pairs: Sequence[tuple[Record, Record]], ids: Sequence[str], draws: Draws) -> dict[str, Any]:
    """Mean difference over images, each its mean over the repeats, in the given and in resampled sets of scenes."""
    each = np.array([_column(own, "change", ids) - _column(other, "change", ids) for own, other in pairs])
    measured = np.asarray(np.isfinite(each).any(axis=0))
    if not measured.any():
        reason = "no image has a change in both"
        return {"difference": None, "low": None, "high": None, "interval_reason": reason, "reason": reason, "n": 0}
    # Repeats are averaged first: an image counts once, in however many repeats it has a match.
    known = np.nanmean(each[:, measured], axis=0)
    counts = np.concatenate([chunk[:, measured] for chunk in draws.counts()])
    total = counts.sum(axis=1)
    # A resample may hold none of the measured images: it has no mean, and the interval passes over NaN.
    samples = (counts @ known) / np.where(total > 0, total, np.nan)
    ends = interval(samples, draws.groups_in(measured)).as_dict()
    return {"difference": float(known.mean()), "reason": "", "n": int(measured.sum()), **ends}


def _mean(values: FloatArray) -> float | None:
    """Mean of the values that are there; None without any."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
