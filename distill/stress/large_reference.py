"""The ``reference`` teacher as the judge of what a display shows; it needs torch and piq, the extra ``train``."""

from collections.abc import Sequence

import numpy as np

from distill.stress.large_copies import Reference
from teachers.reference import build_reference

FAST_METRICS = ("gmsd", "haarpsi", "mdsi")
"""Three of its five metrics, at a seventh of the time: for targets, of which many are averaged."""


def reference_of(metrics: Sequence[str] | None = None) -> Reference:
    """The teacher's score of one picture beside another; None is all metrics."""
    teacher = build_reference(metrics=metrics)

    def judge(shown: np.ndarray, clean: np.ndarray) -> float:
        return float(teacher([teacher.preprocess(shown, clean)]).score[0])

    return judge
