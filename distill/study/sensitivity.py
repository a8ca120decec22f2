"""How far matched images move the scores of a study's QFM-IQM teachers: measured, then compared in pairs.

Each change is divided by the deviation of the model's own scores: a model that says the same of all images is moved by
none, and is no better for it.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.evaluation.bootstrap import Draws, interval
from distill.evaluation.samples import Sample
from distill.evaluation.targets import Targets
from pseudo_labels.images import ImageError, decode
from teachers.qfm_iqm import QfmIqmTeacher

FloatArray = NDArray[np.float64]


def measure(teacher: QfmIqmTeacher, samples: Sequence[Sample], targets: Targets) -> dict[str, Any]:
    """Score changes of a teacher under matched noise, as JSON values.

    Args:
        teacher: on its device.
        samples: images, in any order; those that it cannot judge are left out.
        targets: their opinions, by which images are matched.

    Returns:
        ``change`` and ``ungated`` (without the feature selection) by image id, in deviations of the scores, null
        where an image has no match; ``suppressed``, the share of channels that the selection closes.
    """
    score_of = dict(zip(targets.ids, targets.scores.tolist(), strict=True))
    ids, items = [], []
    for sample in samples:
        try:
            items.append(teacher.preprocess(decode(sample.read()), None))
            ids.append(sample.id)
        except ImageError:  # the judgement says of each what is wrong with it
            continue
    found = teacher.sensitivity(items, [score_of[id] for id in ids])
    columns = {"change": found.change, "ungated": found.ungated}
    spread = found.deviation or math.nan
    by_id = {
        name: {id: _number(value / spread) for id, value in zip(ids, column.tolist(), strict=True)}
        for name, column in columns.items()
    }
    return {**by_id, "suppressed": teacher.gate_report().suppressed}


def compared(
    repeats: Mapping[str, Sequence[Mapping[str, Any]]], baseline: str | None, targets: Targets, draws: Draws
) -> dict[str, Any] | None:
    """What one combination of values says of sensitivity; None if no arm was measured.

    Args:
        repeats: of each arm the records of ``measure``, those of one place of one repeat.
        baseline: the arm that others are compared with.
        targets: order of the images.
        draws: of their scenes.

    Returns:
        ``arms``: of each measured arm the means over images and repeats of ``change`` and ``ungated``, and
        ``suppressed``. ``differences``: of each to the baseline, of ``change``, with their interval over scenes.
    """
    columns = {arm: _columns(found, "change", targets.ids) for arm, found in repeats.items() if found}
    if not columns:
        return None
    arms = {
        arm: {
            "change": float(np.nanmean(column)),
            "ungated": float(np.nanmean(_columns(repeats[arm], "ungated", targets.ids))),
            "suppressed": statistics.fmean(one["suppressed"] for one in repeats[arm]),
            "n": len(column),
        }
        for arm, column in columns.items()
    }
    others = [arm for arm in columns if arm != baseline and baseline in columns]
    return {"arms": arms, "differences": {arm: _paired(columns[arm], columns[str(baseline)], draws) for arm in others}}


def _columns(found: Sequence[Mapping[str, Any]], name: str, ids: Sequence[str]) -> FloatArray:
    """[repeats, images], NaN where there is none."""
    return np.array([[one[name].get(id) for id in ids] for one in found], np.float64)


def _paired(own: FloatArray, other: FloatArray, draws: Draws) -> dict[str, Any]:
    """Mean difference over images, each its mean over the repeats, in the given and in resampled sets of scenes."""
    each = own[: len(other)] - other[: len(own)]
    there = np.asarray(np.isfinite(each).any(axis=0))
    known = np.nanmean(each[:, there], axis=0)
    counts = np.concatenate([chunk[:, there] for chunk in draws.counts()])
    total = counts.sum(axis=1)
    samples = (counts @ known) / np.where(total > 0, total, np.nan)
    found = interval(samples, draws.groups_in(there)).as_dict()
    return {"difference": float(known.mean()), "reason": "", "n": int(there.sum()), **found}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
