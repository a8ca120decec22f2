"""The interface of all feature extractors (``extractors`` opens them), and the one that needs no model: edges."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pseudo_labels.errors import PocketiqaError

LAYOUT, BACKBONE, CONTENT = "layout", "backbone", "content"

# The edge layout: 8 x 8 cells of a 64 x 64 thumbnail, with 8 directions each. The version is part of its identity.
_SIDE_PX, _CELLS, _DIRECTIONS = 64, 8, 8
_FEATURE, _VERSION = "edges", 1
_LEAST_NORM = 1e-6


@dataclass(frozen=True)
class FeatureExtractor:
    """A model that is ready to extract features of decoded images, one by one.

    Attributes:
        name: name of the model for people.
        kind: ``layout``, ``backbone``, ``onnx``, ``student`` or ``teacher``.
        feature: name of the extracted feature.
        identity: everything that determines the numbers, as JSON values.
        extract: gives float32 [D] of uint8 [H, W, 3] RGB and its clean reference (None unless ``needs_reference``).
        needs_reference: whether the model compares with a clean reference.
    """

    name: str
    kind: str
    feature: str
    identity: dict[str, Any]
    extract: Callable[[np.ndarray, np.ndarray | None], np.ndarray]
    needs_reference: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"name": self.name, "kind": self.kind, "feature": self.feature, "identity": self.identity}


@contextmanager
def extraction_threads(by: FeatureExtractor, threads: int) -> Iterator[None]:
    """Let torch use ``threads`` CPU threads if the extractor runs in torch; the former number is restored afterwards.

    One thread is best beside other work, where several would wait for each other.

    Raises:
        PocketiqaError: ``threads`` is below 1.
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
    """``feature``, or the first of ``known`` if None.

    Raises:
        PocketiqaError: the model has no features at all, or none of that name.
    """
    if not known:
        raise PocketiqaError(
            f"{name} gives no features to compare images by: name another model, such as a student, "
            "or leave it out to compare layouts"
        )
    if feature is not None and feature not in known:
        raise PocketiqaError(f"{name} has no feature {feature!r}: choose {', '.join(known)}")
    return feature or known[0]


def layout_extractor(feature: str | None = None) -> FeatureExtractor:
    """``edge_layout`` as an extractor.

    Raises:
        PocketiqaError: ``feature`` is neither None nor ``edges``.
    """
    name = chosen(feature, (_FEATURE,), LAYOUT)
    return FeatureExtractor(LAYOUT, LAYOUT, name, {"version": _VERSION}, lambda rgb, _: edge_layout(rgb))


def edge_layout(rgb: np.ndarray) -> np.ndarray:
    """Edges of an image by position and direction, as a histogram of oriented gradients.

    Args:
        rgb: uint8 [H, W, 3].

    Returns:
        float32 [512]: 8 x 8 cells of 8 directions each, square roots of gradient sums scaled to length 1; zeros
            for a flat image.
    """
    gray = Image.fromarray(np.ascontiguousarray(rgb)).convert("L").resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX)
    down, across = np.gradient(np.asarray(gray, np.float32))
    # Modulo pi: an edge from dark to bright and one from bright to dark have the same direction.
    turn = np.mod(np.arctan2(down, across), np.pi) / np.pi
    # A tiny negative angle modulo pi is rounded to pi itself, which would be a ninth direction.
    direction = np.minimum((turn * _DIRECTIONS).astype(int), _DIRECTIONS - 1)
    line, column = np.indices(direction.shape) * _CELLS // _SIDE_PX
    bin = (line * _CELLS + column) * _DIRECTIONS + direction
    weights = np.bincount(bin.ravel(), np.hypot(down, across).ravel(), minlength=_CELLS**2 * _DIRECTIONS)
    # The root keeps a few strong edges from outweighing all others.
    return np.sqrt(weights / max(np.linalg.norm(weights), _LEAST_NORM)).astype(np.float32)
