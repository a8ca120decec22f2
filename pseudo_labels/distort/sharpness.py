"""Over-sharpening and contrast change of KADID-10k (Lin, Hosu, Saupe 2019), with its level tables."""

import numpy as np

from pseudo_labels.distort.filters import gaussian
from pseudo_labels.distort.lab import from_lab, to_lab
from pseudo_labels.distort.scale import at, coin, to_uint8

# Level 0, then the levels 1 to 5. KADID's contrast runs from +0.3 to -0.6 around the identity at -0.2, strongest change
# first and last; here a level is a severity, the span is about the same, and chance draws the direction.
SHARPEN_AMOUNT = (0.0, 1.0, 2.0, 3.0, 6.0, 12.0)
SHARPEN_SIGMA_PX = 3.0
CONTRAST_AMOUNT = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)


def high_sharpen(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Unsharp masking of the L of Lab, far beyond taste."""
    lab = to_lab(rgb)
    lightness = np.ascontiguousarray(lab[..., 0])
    lab[..., 0] = lightness + at(SHARPEN_AMOUNT, severity) * (lightness - gaussian(lightness, SHARPEN_SIGMA_PX))
    return to_uint8(from_lab(lab))


def contrast_change(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """A tone curve steeper or flatter in the middle tones: cubic spline with 0, 0.5 and 1 fixed, 0.3 and 0.7 moved.

    About its middle the not-a-knot spline through these five points is odd, so it is a u + b u^3 and two of the points
    give a and b.
    """
    move = coin(rng) * at(CONTRAST_AMOUNT, severity) / 4
    u = np.arange(256) / 255 - 0.5
    curve = 0.5 + (1 + move / 0.168) * u - move / 0.042 * u**3
    return to_uint8(255 * curve)[rgb]
