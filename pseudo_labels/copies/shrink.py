"""Originals made smaller before anything else is done to them."""

import math

import numpy as np
from PIL import Image

MIN_SIDE_PX = 64  # distortions and metrics need as much


def shrunk_size(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    """Size with the longer side at most ``max_side``, aspect kept; never enlarged, no side below 64 pixels by it."""
    if max_side is None or max(width, height) <= max_side or min(width, height) <= MIN_SIDE_PX:
        return width, height
    scale = max(max_side / max(width, height), MIN_SIDE_PX / min(width, height))
    return math.floor(width * scale + 0.5), math.floor(height * scale + 0.5)


def shrink(rgb: np.ndarray, max_side: int | None) -> np.ndarray:
    """The image at ``shrunk_size``, by Lanczos after a whole-number box reduction."""
    size = shrunk_size(rgb.shape[1], rgb.shape[0], max_side)
    if size == (rgb.shape[1], rgb.shape[0]):
        return rgb
    return np.array(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))
