"""A student that says what is wrong with a photograph, made without torch from one of the package."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from students.damage import TYPES, TypeHead
from students.formats.embedding import with_embedding
from students.formats.sealing import seal, unsealed
from students.session import read_model
from students.shipped import model_path


def plain_head(channels: int = 3, always: str = "noise", **changes: Any) -> TypeHead:
    """A head that names one type whatever it reads, with a strength that rises with the first number."""
    nothing = (0.0,) * channels
    slopes = tuple((0.5, *nothing[1:]) for _ in TYPES)
    head = TypeHead(
        mean=nothing, scale=(1.0,) * channels, causes=TYPES, weights=(nothing,) * len(TYPES),
        biases=tuple(4.0 * (one == always) for one in TYPES), slopes=slopes, offsets=(0.25,) * len(TYPES),
    )  # fmt: skip
    return replace(head, **changes)


def write_typed(path: Path, head: TypeHead | None = None) -> Path:
    """pocket-s with a whole embedding and a head (``plain_head``), without a second look and other heads."""
    graph, contract, _ = unsealed(read_model(model_path("pocket-s")), "pocket-s")
    contract = replace(contract, look=None, pairs=None, types=head or plain_head())
    path.write_bytes(seal(with_embedding(graph, "pocket-s"), contract, str(path))[0])
    return path


def probabilities(logits: list[float]) -> np.ndarray:
    """The softmax, the plain way."""
    values = np.exp(logits)
    return values / values.sum()
