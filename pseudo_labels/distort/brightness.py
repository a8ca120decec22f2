"""Three brightness changes of KADID-10k (Lin, Hosu, Saupe 2019), with its level tables."""

import numpy as np

from pseudo_labels.distort.lab import from_lab, to_lab
from pseudo_labels.distort.scale import at, coin, to_uint8

# Level 0, then the levels 1 to 5. KADID's mean shift runs from +0.15 through 0 to -0.15, so its middle level changes
# nothing; here a level is a severity, the span is the same, and chance draws the sign.
BRIGHTEN_AMOUNT = (0.0, 0.1, 0.2, 0.4, 0.7, 1.1)
DARKEN_AMOUNT = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
MEAN_SHIFT = (0.0, 0.03, 0.06, 0.09, 0.12, 0.15)


def bend(values: np.ndarray, middle: float) -> np.ndarray:
    """The tone curve through (0, 0), (0.5, middle) and (1, 1): a parabola, clipped to [0, 1]."""
    square = 2 - 4 * middle
    return np.clip(values * (square * values + 1 - square), 0, 1)


def brighten(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Middle tones lifted: two parts in RGB, one part in the L of Lab."""
    middle = 0.5 + at(BRIGHTEN_AMOUNT, severity) / 2
    lab = to_lab(rgb)
    lab[..., 0] = 100 * bend(lab[..., 0] / 100, middle)
    mixed = from_lab(lab)
    mixed += (510 * bend(np.arange(256) / 255, middle))[rgb]
    return to_uint8(mixed / 3)


def darken(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Middle tones lowered, in RGB."""
    return to_uint8(255 * bend(np.arange(256) / 255, 0.5 - at(DARKEN_AMOUNT, severity) / 2))[rgb]


def mean_shift(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """A constant added to or taken from every sample."""
    return to_uint8(np.arange(256) + 255 * coin(rng) * at(MEAN_SHIFT, severity))[rgb]
