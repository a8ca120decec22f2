"""CIE Lab (D65), by scikit-image, in float64; band by band, for its intermediate arrays are many."""

import numpy as np
from skimage import color

_BAND_ROWS = 64


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """HxWx3 uint8 to L in 0..100, a and b around 0; HxWx3 float64."""
    lab = np.empty(rgb.shape)
    for top in range(0, len(rgb), _BAND_ROWS):
        lab[top : top + _BAND_ROWS] = color.rgb2lab(rgb[top : top + _BAND_ROWS])
    return lab


def from_lab(lab: np.ndarray) -> np.ndarray:
    """HxWx3 Lab to grey levels, float64 in 0..255; what lies outside sRGB is clipped channel by channel."""
    rgb = np.empty(lab.shape)
    for top in range(0, len(lab), _BAND_ROWS):
        rgb[top : top + _BAND_ROWS] = _band_from_lab(lab[top : top + _BAND_ROWS].copy())
    return rgb


def _band_from_lab(lab: np.ndarray) -> np.ndarray:
    np.clip(lab[..., 0], 0, 100, out=lab[..., 0])
    # Just above the b at which Z is zero: scikit-image clips Z there as well, but with a warning.
    np.minimum(lab[..., 2], 200 / 116 * (lab[..., 0] + 16) - 1e-9, out=lab[..., 2])
    return color.lab2rgb(lab) * 255.0
