"""Any function that scores a picture, as a teacher: the one-function adapter for scorers of others.

A module of one's own, in the folder where the command is called:

    # mine.py
    from teachers.plain import plain_teacher

    def niqe():
        return plain_teacher(their_niqe, name="niqe", worst=20.0, best=0.0)

and its name for ``pocketiqa trust``, ``evaluate``, ``label`` and the rows of ``compare`` is ``mine:niqe``.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.records import TeacherStamp
from teachers.base import TeacherOutput


class PlainTeacher:
    """A function as a teacher, see ``plain_teacher``."""

    needs_reference = False
    feature_names: tuple[str, ...] = ()

    def __init__(self, score: Callable[[np.ndarray], float], stamp: TeacherStamp, worst: float, best: float):
        self._score, self._worst, self._best = score, worst, best
        self.stamp = stamp

    def to(self, device: torch.device) -> "PlainTeacher":
        """The function computes wherever it does."""
        return self

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> Tensor:
        """The pixels as they are: uint8 [H, W, 3], RGB."""
        return torch.from_numpy(np.ascontiguousarray(image))

    def __call__(self, batch: list[Tensor]) -> TeacherOutput:
        """Score one after another; values beyond the ends of the scale get the score of that end."""
        values = torch.tensor([float(self._score(item.numpy())) for item in batch], dtype=torch.float64)
        return TeacherOutput(((values - self._worst) / (self._best - self._worst)).clamp(0, 1).float())


def plain_teacher(
    score: Callable[[np.ndarray], float],
    *,
    name: str,
    worst: float = 0.0,
    best: float = 1.0,
    version: int = 1,
    weights: str = "none",
    licence: str = "not stated",
) -> PlainTeacher:
    """Make a teacher of a function.

    Args:
        score: gives a number for uint8 [H, W, 3] RGB.
        name: name in tables.
        worst: its value for the worst quality; above ``best`` where low is good.
        best: its value for the best quality. The scale between both becomes 0 to 1.
        version: raise it when the function changes, or stored scores of the earlier one are taken for its own.
        weights: what identifies its weights, such as the SHA-256 of their file.
        licence: of function and weights.

    Raises:
        PocketiqaError: the ends of the scale are equal or not finite.
    """
    if not (math.isfinite(worst) and math.isfinite(best)) or worst == best:
        raise PocketiqaError(
            f"{name!r}: worst is {worst:g} and best is {best:g}: give the two ends of its scale, which differ"
        )
    options = {"worst": float(worst), "best": float(best)}
    scale = f"0 is {worst:g}, 1 is {best:g} of {name}"
    stamp = TeacherStamp(name, version, weights=weights, options=options, scale=scale, licence=licence)
    return PlainTeacher(score, stamp, worst, best)
