"""A student that says which of two photographs is better, made without torch from one of the package."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from students.formats.embedding import with_embedding
from students.formats.sealing import seal, unsealed
from students.pairs import PairHead
from students.session import read_model
from students.shipped import model_path


def score_head(width: int, **changes: Any) -> PairHead:
    """A head that weighs the logits of scores alone, four times."""
    nothing = (0.0,) * width
    head = PairHead(mean=nothing, scale=(1.0,) * width, weights=nothing, score=4.0, alike=0.9999)
    return replace(head, **changes)


def write_paired(path: Path, *, with_head: bool = True, **changes: Any) -> Path:
    """pocket-s with an embedding and ``score_head``, or without a head; without a second look and types."""
    graph, contract, _ = unsealed(read_model(model_path("pocket-s")), "pocket-s")
    head = score_head(contract.student["head_width"], **changes) if with_head else None
    contract = replace(contract, pairs=head, look=None, types=None)
    path.write_bytes(seal(with_embedding(graph, "pocket-s"), contract, str(path))[0])
    return path
