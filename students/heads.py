"""What heads on an embedding have in common: their numbers, checked and stored, and how they read the embedding."""

import base64
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pseudo_labels.errors import PocketiqaError, shown

FloatArray = NDArray[np.float64]

MAX_CHANNELS = 4096
"""Most numbers of an embedding that a head may read."""
_HALF = np.dtype("<f2")


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


def halves(values: ArrayLike) -> tuple[float, ...]:
    """The nearest numbers of half precision (IEEE 754 binary16): those that a file can hold.

    Its 11 bits are finer than any head is known, and digits beyond them would depend on the last bit of a library.

    Args:
        values: [N]; from 65520 on, half precision has infinity.
    """
    with np.errstate(over="ignore"):
        return tuple(np.asarray(values, np.float64).astype(_HALF).astype(np.float64).tolist())


def packed(values: ArrayLike) -> Any:
    """Numbers as text: half precision, little endian, row by row, in base64.

    A quarter of the size of decimals, which made up a tenth of a small student's file. Numbers that half precision
    would make infinite, or 0 though they are not, stay a list of decimals: heads of earlier files may have them.
    """
    exact = np.asarray(values, np.float64)
    with np.errstate(over="ignore"):
        half = exact.astype(_HALF)
    if not np.isfinite(half).all() or ((half == 0) & (exact != 0)).any():
        return exact.tolist()
    return base64.b64encode(half.tobytes()).decode("ascii")


def unpacked(value: Any, name: str, command: str) -> tuple[float, ...]:
    """The numbers of ``packed``, or of a list of numbers, as earlier files hold them.

    Args:
        value: of the JSON record.
        name: of the field, for the error.
        command: that makes a right one, for the error.

    Raises:
        PocketiqaError: it is neither.
    """
    if isinstance(value, list) and all(map(is_number, value)):
        return tuple(value)
    try:
        if isinstance(value, str):
            data = base64.b64decode(value, validate=True)
            return tuple(np.frombuffer(data, _HALF).astype(np.float64).tolist())
    except ValueError:  # not base64 (binascii.Error is one), or half a number
        pass
    raise PocketiqaError(
        f"{name} is {shown(value)}, but a list of finite numbers is needed, or numbers of half precision in base64; "
        f"fit it anew with `pocketiqa {command}`"
    )


def unpacked_rows(value: Any, count: int, name: str, command: str) -> tuple[tuple[float, ...], ...]:
    """A table of ``packed`` in ``count`` rows, or of a list of rows, as earlier files hold it.

    Args:
        value: of the JSON record.
        count: rows; numbers that do not fill them evenly make rows of unequal length, for the caller to refuse.
        name: of the field, for the error.
        command: that makes a right one, for the error.

    Raises:
        PocketiqaError: it is neither.
    """
    if isinstance(value, list):
        return tuple(unpacked(row, f"{name}[]", command) for row in value)
    numbers = unpacked(value, name, command)
    width = max(1, -(-len(numbers) // max(1, count)))
    return tuple(numbers[start : start + width] for start in range(0, len(numbers), width))


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
