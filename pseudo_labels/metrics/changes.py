"""What the changes of pairs say together: mean with interval, counts, and the exact sign test; numpy alone."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pseudo_labels.metrics.draws import Draws, interval

FloatArray = NDArray[np.float64]

_MOST_EXACT = 10_000


def summarise(changes: FloatArray, groups: Sequence[str], *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """What the changes of pairs say together.

    Args:
        changes: after minus before, float64 [N].
        groups: scene of each pair.
        resamples: resamples of the scenes, for the interval.
        seed: seed of the resamples.

    Returns:
        ``pairs`` and ``scenes``; ``mean_change`` with ``low``, ``high`` and ``interval_reason`` (95 %, whole scenes
        resampled); ``median_change``; ``better``, ``worse`` and ``equal`` pairs; and ``sign_test``: ``better`` and
        ``worse`` scenes by their mean change, and ``p`` of so uneven a split or a more uneven one by chance.
    """
    if not len(changes):
        nothing = dict.fromkeys(("mean_change", "low", "high", "median_change"))
        test = {"better": 0, "worse": 0, "p": None}
        reason = {"interval_reason": "no pair has two scores", "better": 0, "worse": 0, "equal": 0}
        return {"pairs": 0, "scenes": 0, **nothing, **reason, "sign_test": test}
    draws = Draws.of(len(changes), groups, resamples=resamples, seed=seed)
    drawn = np.concatenate([counts @ changes / counts.sum(1) for counts in draws.counts()])
    scenes = int(draws.groups.max()) + 1
    mean_of_scene = np.bincount(draws.groups, changes) / np.bincount(draws.groups)
    better, worse = int((mean_of_scene > 0).sum()), int((mean_of_scene < 0).sum())
    return {
        "pairs": len(changes),
        "scenes": scenes,
        "mean_change": float(changes.mean()),
        **interval(drawn, scenes).as_dict(),
        "median_change": float(np.median(changes)),
        "better": int((changes > 0).sum()),
        "worse": int((changes < 0).sum()),
        "equal": int((changes == 0).sum()),
        "sign_test": {"better": better, "worse": worse, "p": sign_test(better, worse)},
    }


def sign_test(better: int, worse: int) -> float | None:
    """Two-sided p of the exact sign test: how likely chance splits so unevenly, or more so; None without any.

    Pairs without a change are left out (Dixon and Mood, "The statistical sign test", 1946). Above 10,000 pairs by the
    normal distribution with a correction for continuity: from there on, exact whole numbers would take seconds.
    """
    number = better + worse
    if not number:
        return None
    if number > _MOST_EXACT:
        return math.erfc(max(abs(better - worse) - 1, 0) / math.sqrt(2 * number))
    term = total = 1
    for k in range(min(better, worse)):
        term = term * (number - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / 2**number)
