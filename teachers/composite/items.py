"""What a teacher made of other teachers needs: their inputs as one item, and their answers checked."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from teachers.base import Item, TeacherOutput, check_output

# In place of a number of tensors; 0 is taken by an item that is a tensor and not a tuple.
_ABSENT = -1


def pack(items: Sequence[Item | None]) -> tuple[Tensor, ...]:
    """Several items as one flat tuple, as batches are made of those.

    Args:
        items: inputs of the inner teachers, or crops; None where one has none. Inputs with None at other positions
            never have equal shapes, so that they are never in one batch.

    Returns:
        The tensors of the first item, of the second, ..., an empty one for None; and at last int64 [items]: how many
        tensors each item has, 0 for one that is not in a tuple.
    """
    sizes = [_ABSENT if item is None else 0 if isinstance(item, Tensor) else len(item) for item in items]
    flat: list[Tensor] = []
    for item in items:
        # The empty tensor gives an absent item a shape of its own, so that images refused by other teachers never share
        # a batch.
        flat += [torch.empty(0)] if item is None else [item] if isinstance(item, Tensor) else item
    return (*flat, torch.tensor(sizes))


def unpack(packed: Sequence[Tensor]) -> list[Item | None]:
    """Inverse of ``pack``."""
    items: list[Item | None] = []
    first = 0
    for size in packed[-1].tolist():
        items.append(None if size == _ABSENT else tuple(packed[first : first + size]) if size else packed[first])
        # An absent item and a bare tensor take one tensor each.
        first += max(1, size)
    return items


def sound(output: Any, rows: int, name: str, features: Sequence[str] = ()) -> TeacherOutput:
    """What an inner teacher gave: score, NaN where not finite, and spread in float32 on the CPU, and ``features``.

    Raises:
        PocketiqaError: as ``check_output``, in the name of the inner teacher.
    """
    checked = check_output(output, rows, features, name)
    return TeacherOutput(checked.score.where(checked.score.isfinite(), torch.nan), checked.score_std, checked.features)
