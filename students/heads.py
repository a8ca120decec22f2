"""What heads on an embedding have in common: their numbers, checked, and the embedding that they read, standardised."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pseudo_labels.errors import PocketiqaError, shown

FloatArray = NDArray[np.float64]

MAX_CHANNELS = 4096
"""Most numbers of an embedding that a head may read."""


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def check_numbers(values: Any, name: str, count: int, command: str) -> None:
    """Refuse anything but so many finite numbers.

    Args:
        values: list or tuple.
        name: of the field, for the error.
        count: how many there must be, from 1 to ``MAX_CHANNELS``.
        command: that makes a right one, for the error.

    Raises:
        PocketiqaError: there are others, or another number of them.
    """
    if not 1 <= len(values) == count <= MAX_CHANNELS or not all(map(is_number, values)):
        raise PocketiqaError(
            f"{name} is {shown(values)}, but finite numbers are needed, as many in each of mean, scale and weights; "
            f"fit it anew with `pocketiqa {command}`"
        )


def standardised(embeddings: ArrayLike, mean: ArrayLike, scale: ArrayLike, command: str) -> FloatArray:
    """[N, C], of mean 0 and deviation 1 over the photographs of the fit.

    Args:
        embeddings: [N, E], see ``students.runtime.Result``; a head reads the first C of the E numbers, for further
            ones came later.
        mean: [C], subtracted.
        scale: [C], one over the deviations.
        command: that fits the head, for the error.

    Raises:
        PocketiqaError: fewer than C numbers.
    """
    values, means = np.asarray(embeddings, np.float64), np.asarray(mean, np.float64)
    count = len(means)
    if values.ndim != 2 or values.shape[1] < count:
        raise PocketiqaError(
            f"embeddings have the shape {values.shape}, but {count} numbers each are needed; fit the head anew with "
            f"`pocketiqa {command}`"
        )
    return (values[:, :count] - means) * np.asarray(scale, np.float64)
