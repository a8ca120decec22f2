"""The difference of two models over several repeats of their training, paired image by image and repeat by repeat."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.evaluation.predictions import Predictions
from pseudo_labels.metrics.bootstrap import bootstrap_metrics
from pseudo_labels.metrics.correlation import METRICS
from pseudo_labels.metrics.draws import Draws, interval

FloatArray = NDArray[np.float64]


def mean_difference(
    pairs: Sequence[tuple[Predictions, Predictions]],
    targets: FloatArray,
    mask: NDArray[np.bool_],
    draws: Draws,
    metric: str,
) -> dict[str, Any]:
    """Mean over the repeats of first minus second, with the interval of that mean over resampled scenes.

    In each resample all models are evaluated on the same images.

    Args:
        pairs: predictions of the two models in each repeat, aligned with ``targets``.
        targets: ratings [N] in [0, 1].
        mask: images that count [N].
        draws: resamples of all N images.
        metric: name of a metric in ``METRICS``.

    Returns:
        ``difference``, ``low``, ``high`` and ``n`` repeats; None with a ``reason`` or ``interval_reason`` where there
        is none.
    """
    differences = [_paired((own, other), targets, mask, draws, metric) for own, other in pairs]
    known = [difference for difference in differences if difference is not None]
    if not known:
        reason = "no repeat has both" if not pairs else f"no {metric} in any repeat"
        return {"difference": None, "low": None, "high": None, "interval_reason": reason, "reason": reason, "n": 0}
    # All repeats have the same resamples, so the mean is taken resample by resample: its spread is that of the images.
    samples = np.mean([drawn for _, drawn, _ in known], axis=0)
    # The repeat with the fewest scenes decides whether there is an interval.
    groups = min(count for _, _, count in known)
    difference = statistics.fmean(value for value, _, _ in known)
    return {"difference": difference, "reason": "", "n": len(known)} | interval(samples, groups).as_dict()


def _paired(
    pair: tuple[Predictions, Predictions], targets: FloatArray, mask: NDArray[np.bool_], draws: Draws, metric: str
) -> tuple[float, FloatArray, int] | None:
    """Difference, difference in each resample, and number of scenes, on the images that both models have scored."""
    own, other = pair
    keep = mask & np.isfinite(own.scores) & np.isfinite(other.scores)
    values = [METRICS[metric](model.scores[keep], targets[keep]) for model in pair]
    difference = values[0] - values[1]
    if np.isnan(difference):
        return None
    drawn = [bootstrap_metrics(model.scores, targets, draws, keep)[metric] for model in pair]
    return difference, drawn[0] - drawn[1], draws.groups_in(keep)
