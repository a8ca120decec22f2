"""What a person should look at in a label store, in words: damage, teachers that do not tell images apart, drift."""

import numpy as np

from pseudo_labels.audit.report import AuditReport

# Below these a teacher tells images apart hardly or not at all.
_CONSTANT_STD = 1e-3
_NARROW_STD = 0.02
_SAME_SCORE_SHARE = 0.5
# A shard drifts if its mean is this far from the others' median, in robust deviations and on the scale.
_DRIFT_DEVIATIONS, _DRIFT_SCORE = 5.0, 0.1


def find_warnings(report: AuditReport, scores: np.ndarray) -> list[str]:
    """Warnings, most urgent first.

    Args:
        report: whatever ``audit`` has found so far.
        scores: of the ``ok`` rows.
    """
    return [*_damage(report), *_degenerate(report, scores), *_trends(report), *_drift(report)]


def _damage(report: AuditReport) -> list[str]:
    found = []
    if report.faults:
        shown = "; ".join(f"shard {fault.index}: {fault.reason}" for fault in report.faults[:3])
        more = "; ..." if len(report.faults) > 3 else ""
        found.append(
            f"{len(report.faults)} of {report.shards} shards are damaged ({shown}{more}): "
            "run the same label command again, it relabels them"
        )
    if report.missing:
        found.append(
            f"{len(report.missing)} of {report.shards} shards are missing: "
            "run the same label command again, it goes on where it stopped"
        )
    elif not report.finished:
        found.append("the store is not finished: run the same label command again")
    return found


def _degenerate(report: AuditReport, scores: np.ndarray) -> list[str]:
    if not len(scores):
        return ["no image has a score"]
    found = []
    if report.scores["std"] < _CONSTANT_STD:
        found.append(f"the teacher is constant: {len(scores)} scores with a standard deviation of {scores.std():.2g}")
    elif report.scores["std"] < _NARROW_STD:
        found.append(
            f"the teacher hardly tells images apart: its scores have a standard deviation of {scores.std():.2g}"
        )
    else:
        values, counts = np.unique(scores, return_counts=True)
        if len(scores) > 1 and counts.max() > _SAME_SCORE_SHARE * len(scores):
            share = counts.max() / len(scores)
            found.append(f"{share:.0%} of the images have the same score, {values[counts.argmax()]:.4g}")
    return found


def _trends(report: AuditReport) -> list[str]:
    rising = [name for name, found in report.distortions.items() if found["srcc"] is not None and found["srcc"] > 0]
    found = [f"scores rise with the level of {', '.join(rising)}: they should fall"] if rising else []
    means = [mean for _, mean in sorted(report.levels.items())]
    if len(means) > 1 and means[-1] >= means[0]:
        found.append("severe levels score no lower than mild ones: is the teacher's scale reversed?")
    return found


def _drift(report: AuditReport) -> list[str]:
    means = np.array([shard["mean"] for shard in report.by_shard])
    if len(means) < 4:
        return []
    distance = np.abs(means - np.median(means))
    deviation = 1.4826 * np.median(distance)  # of a normal distribution, from the median distance
    far = distance > np.maximum(_DRIFT_DEVIATIONS * deviation, _DRIFT_SCORE)
    shards = ", ".join(str(report.by_shard[at]["index"]) for at in np.flatnonzero(far)[:5])
    if not shards:
        return []
    return [
        f"mean scores of shard {shards} are far from the others' ({np.median(means):.3f}): "
        "other content there, or a teacher that changed on the way"
    ]
