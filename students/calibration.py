"""A student's raw score -> the scale it promises: a monotone piecewise-linear map that travels in the contract."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from pseudo_labels.errors import PocketiqaError
from students.fields import check_fields


@dataclass(frozen=True)
class Calibration:
    """Strictly increasing broken line through ``knots``, from raw score 0 to raw score 1, so ranks never change.

    Attributes:
        knots: pairs (raw score, calibrated score), both strictly increasing and in [0, 1]; the first raw score is 0
            and the last is 1.
    """

    knots: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if len(self.knots) < 2 or any(len(knot) != 2 for knot in self.knots):
            raise PocketiqaError(f"the calibration has the knots {self.knots}: two or more pairs are needed")
        values = [float(value) for knot in self.knots for value in knot]
        if not all(math.isfinite(value) and 0 <= value <= 1 for value in values):
            raise PocketiqaError(f"the calibration has the knots {self.knots}: each value must lie in [0, 1]")
        if values[0] != 0 or values[-2] != 1:
            raise PocketiqaError(f"the calibration covers raw scores {values[0]} to {values[-2]}: 0 to 1 are needed")
        if not (_rises(values[::2]) and _rises(values[1::2])):
            raise PocketiqaError(f"the calibration has the knots {self.knots}: both columns must strictly increase")

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """Map raw values of any shape; float32 in, float32 out."""
        inputs, outputs = np.array(self.knots, dtype=np.float64).T
        return np.interp(raw, inputs, outputs).astype(np.float32)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"knots": [list(knot) for knot in self.knots]}

    @classmethod
    def from_dict(cls, record: Any) -> "Calibration":
        """Read the JSON form.

        Raises:
            PocketiqaError: it is not a list of increasing pairs of numbers.
        """
        knots = check_fields(record, ("knots",), "calibration")["knots"]
        try:
            return cls(tuple((float(raw), float(score)) for raw, score in knots))
        except (TypeError, ValueError) as error:
            raise PocketiqaError(f"the calibration has the knots {knots!r}: pairs of numbers are needed") from error


def _rises(values: Sequence[float]) -> bool:
    return all(low < high for low, high in pairwise(values))
