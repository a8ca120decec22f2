"""What every describer of images has, whatever model is behind it (``opening`` names them)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pseudo_labels.errors import PocketiqaError

LAYOUT, BACKBONE, CONTENT = "layout", "backbone", "content"


@dataclass(frozen=True)
class FeatureExtractor:
    """A model that is ready to describe decoded images one by one.

    Attributes:
        name: for people.
        kind: ``layout``, ``backbone``, ``onnx``, ``student`` or ``teacher``.
        feature: which of its features it gives.
        identity: what determines the numbers, as JSON values.
        describe: gives float32 [D] of uint8 [H, W, 3] RGB, told the clean reference where ``needs_reference``.
        needs_reference: whether it compares with a clean reference.
    """

    name: str
    kind: str
    feature: str
    identity: dict[str, Any]
    describe: Callable[[np.ndarray, np.ndarray | None], np.ndarray]
    needs_reference: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"name": self.name, "kind": self.kind, "feature": self.feature, "identity": self.identity}


@contextmanager
def extraction_threads(by: FeatureExtractor, threads: int) -> Iterator[None]:
    """Let torch use so many threads of the CPU, where it is torch that describes; as before afterwards.

    One is best beside other work: more of them wait for each other.

    Raises:
        PocketiqaError: fewer than one.
    """
    if threads < 1:
        raise PocketiqaError(f"threads is {threads}: give 1 or more")
    if by.kind in (LAYOUT, "onnx"):
        yield
        return
    from teachers.launch import torch_threads

    with torch_threads(threads):
        yield


def chosen(feature: str | None, known: Sequence[str], name: str) -> str:
    """The feature that was asked for, or the first one.

    Raises:
        PocketiqaError: the model has none at all, or none of that name.
    """
    if not known:
        raise PocketiqaError(
            f"{name} gives no features to compare images by: name another model, such as a student, "
            "or leave it out to compare layouts"
        )
    if feature is not None and feature not in known:
        raise PocketiqaError(f"{name} has no feature {feature!r}: choose {', '.join(known)}")
    return feature or known[0]


_SIDE_PX, _CELLS, _DIRECTIONS = 64, 8, 8
_FEATURE, _VERSION = "edges", 1
_NOTHING = 1e-6


def layout_extractor(feature: str | None = None) -> FeatureExtractor:
    """The description as a model.

    Raises:
        PocketiqaError: another feature than ``edges`` is wanted.
    """
    name = chosen(feature, (_FEATURE,), LAYOUT)
    return FeatureExtractor(LAYOUT, LAYOUT, name, {"version": _VERSION}, lambda rgb, _: edge_layout(rgb))


def edge_layout(rgb: np.ndarray) -> np.ndarray:
    """Edges of an image by place and direction.

    Args:
        rgb: uint8 [H, W, 3].

    Returns:
        float32 [512]: 8 x 8 cells of 8 directions each, roots of shares that sum up to about 1; zeros of a flat image.
    """
    gray = Image.fromarray(np.ascontiguousarray(rgb)).convert("L").resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX)
    down, across = np.gradient(np.asarray(gray, np.float32))
    turn = np.mod(np.arctan2(down, across), np.pi) / np.pi
    direction = np.minimum((turn * _DIRECTIONS).astype(int), _DIRECTIONS - 1)
    line, column = np.indices(direction.shape) * _CELLS // _SIDE_PX
    place = (line * _CELLS + column) * _DIRECTIONS + direction
    weights = np.bincount(place.ravel(), np.hypot(down, across).ravel(), minlength=_CELLS**2 * _DIRECTIONS)
    return np.sqrt(weights / max(np.linalg.norm(weights), _NOTHING)).astype(np.float32)
