"""Teachers that must not be fused: constant ones, reversed ones, and those that share too few images with others."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.fusion.agreement import srcc
from pseudo_labels.fusion.calibrate import check_constant
from pseudo_labels.fusion.ensemble import MIN_COMMON
from pseudo_labels.fusion.parts import Columns


def check_teachers(names: Sequence[str], columns: Columns) -> None:
    """Refuse teachers without scores, or with the same for all images.

    Raises:
        PocketiqaError: see above; the teacher is named.
    """
    for name, scores, scored in zip(names, columns.scores, columns.scored, strict=True):
        if not scored.any():
            raise PocketiqaError(f"teacher {name!r} has no score for any of {len(scores)} images: leave it out")
        check_constant(scores[scored].astype(np.float64), name, "of the pool")


def compare_teachers(names: Sequence[str], columns: Columns) -> list[dict[str, Any]]:
    """Each two teachers: ``first``, ``second``, ``n`` images in common, and ``srcc`` (None where there is none)."""
    found = []
    for first in range(len(names)):
        for second in range(first + 1, len(names)):
            common = columns.scored[first] & columns.scored[second]
            value = srcc(columns.scores[first, common], columns.scores[second, common])
            rounded = None if np.isnan(value) else round(value, 9)
            found.append({"first": names[first], "second": names[second], "n": int(common.sum()), "srcc": rounded})
    return found


def check_consensus(names: Sequence[str], pairs: Sequence[dict[str, Any]], *, calibrated: bool) -> None:
    """Refuse a teacher that shares too few images with every other, or contradicts the others on the whole.

    The consensus on a teacher is its mean SRCC with the others, over those it shares enough images with.

    Args:
        names: of the teachers; one alone is not checked.
        pairs: of ``compare_teachers``.
        calibrated: whether the direction of each teacher was seen on opinions, for the advice.

    Raises:
        PocketiqaError: the teacher with the least mean SRCC has one below 0, or one has no partner.
    """
    if len(names) < 2:
        return
    means = {}
    for name in names:
        own = [pair for pair in pairs if name in (pair["first"], pair["second"])]
        most = max(pair["n"] for pair in own)
        if most < MIN_COMMON:
            raise PocketiqaError(
                f"teacher {name!r} has at most {most} scored images in common with another: at least {MIN_COMMON} are "
                "needed; label the same pool with it, or leave it out"
            )
        known = [pair["srcc"] for pair in own if pair["n"] >= MIN_COMMON and pair["srcc"] is not None]
        means[name] = float(np.mean(known)) if known else 0.0
    worst = min(means, key=lambda name: means[name])
    if means[worst] >= 0:
        return
    if len(names) == 2:
        advice = "look at the pool: it may be unlike the labelled images" if calibrated else "opinions can tell which"
        raise PocketiqaError(
            f"teachers {names[0]!r} and {names[1]!r} contradict each other: SRCC {means[worst]:.2f} "
            f"(n={pairs[0]['n']}), so one is reversed here; {advice}, leave that one out"
        )
    raise PocketiqaError(
        f"teacher {worst!r} is reversed: its mean SRCC with the {len(names) - 1} others is {means[worst]:.2f}; turn "
        "its scale so that 1 is best, or leave it out"
    )
