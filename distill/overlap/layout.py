"""A description without any model: where an image has edges, and how strong they are in which direction.

Histograms of gradient orientation over a grid (Dalal and Triggs, CVPR 2005) of a small gray copy. It finds other shots
of a scene from about the same place, not from another one: features of a trained model find more.
"""

import numpy as np
from PIL import Image

from distill.overlap.describer import LAYOUT, Describer, chosen

_SIDE_PX, _CELLS, _DIRECTIONS = 64, 8, 8
_FEATURE, _VERSION = "edges", 1
_NOTHING = 1e-6


def layout_describer(feature: str | None = None) -> Describer:
    """The description as a model.

    Raises:
        PocketiqaError: another feature than ``edges`` is wanted.
    """
    name = chosen(feature, (_FEATURE,), LAYOUT)
    return Describer(LAYOUT, LAYOUT, name, {"version": _VERSION}, lambda rgb, _: edge_layout(rgb))


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
