"""Ten distortions of colour, brightness and sharpness of KADID-10k (Lin, Hosu, Saupe 2019), with its level tables."""

import math

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage import color

from pseudo_labels.distort.blur import gaussian
from pseudo_labels.distort.scale import at, coin, luma, to_uint8

# Rows that are converted at a time: scikit-image makes several float64 copies of what it gets.
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
    # 510 is 2 * 255: two parts in grey levels, and a third of the sum is taken below.
    mixed += (510 * bend(np.arange(256) / 255, middle))[rgb]
    return to_uint8(mixed / 3)


def darken(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Middle tones lowered, in RGB."""
    return to_uint8(255 * bend(np.arange(256) / 255, 0.5 - at(DARKEN_AMOUNT, severity) / 2))[rgb]


def mean_shift(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """A constant added to or taken from every sample."""
    return to_uint8(np.arange(256) + 255 * coin(rng) * at(MEAN_SHIFT, severity))[rgb]


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
    # u = 0.2 goes to 0.2 + move and u = 0.5 stays: 0.042 is 0.2 * 0.25 - 0.2^3, and 0.168 is 4 * 0.042.
    curve = 0.5 + (1 + move / 0.168) * u - move / 0.042 * u**3
    return to_uint8(255 * curve)[rgb]


# Level 0, then the levels 1 to 5. KADID's level 1 of the Lab saturation is a factor 1, which changes nothing: 1.5 here.
DIFFUSION_AMOUNT = (0.0, 1.0, 3.0, 6.0, 8.0, 12.0)
SHIFT_PX = (0.0, 1.0, 3.0, 6.0, 8.0, 12.0)
COLOURS = (128.0, 64.0, 48.0, 32.0, 16.0, 8.0)
HSV_FACTOR = (1.0, 0.4, 0.2, 0.1, 0.0, -0.4)
LAB_FACTOR = (1.0, 1.5, 2.0, 3.0, 6.0, 9.0)

_PALETTE_AREA_PX = 1 << 12


def color_diffusion(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Colour bleeds: a and b of Lab blurred with sigma 1.5 amount + 2 pixels and multiplied by the amount."""
    amount = at(DIFFUSION_AMOUNT, severity)
    # Below level 1 the blur goes to zero and colours are not weakened, so that level 0 is the image itself.
    sigma_px = min(1.5 * amount + 2, 3.5 * amount)
    lab = to_lab(rgb)
    for channel in (1, 2):
        plane = np.ascontiguousarray(lab[..., channel])
        lab[..., channel] = gaussian(plane, sigma_px, reach=2.0) * max(1.0, amount)
    return to_uint8(from_lab(lab))


def color_shift(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Where there are edges the green channel moves in a random direction: colour fringes."""
    angle = rng.uniform(0, 2 * math.pi)
    distance_px = at(SHIFT_PX, severity)
    green = rgb[..., 1].astype(np.float64)
    offset = (distance_px * math.sin(angle), distance_px * math.cos(angle))
    moved = ndimage.shift(green, offset, order=1, mode="nearest")
    weight = _edge_weight(luma(rgb))
    shifted = rgb.copy()
    shifted[..., 1] = to_uint8(weight * moved + (1 - weight) * green)
    return shifted


def _edge_weight(grey: np.ndarray) -> np.ndarray:
    down, across = np.gradient(grey)
    energy = gaussian(np.sqrt(down**2 + across**2), 4.0)
    low, high = np.percentile(energy, (1, 99))
    # A flat image has no edges and no range of energies: its weight is 0, not 0 / 0.
    return np.clip((energy - low) / max(high - low, 1e-9), 0, 1)


def color_quantization(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """A palette of few colours (median cut, then k-means), dithered by error diffusion (Floyd-Steinberg)."""
    image = Image.fromarray(rgb)
    colours = round(at(COLOURS, severity))
    # A palette hardly needs every pixel: from a small copy it is as good and comes a hundred times faster.
    shrink = max(1, math.isqrt(rgb.shape[0] * rgb.shape[1] // _PALETTE_AREA_PX))
    palette = image.reduce(shrink).quantize(colours, method=Image.Quantize.MEDIANCUT, kmeans=1)
    return np.array(image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB"))


def color_saturation_hsv(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """S of HSV multiplied, down to grey and beyond (a negative factor gives the complementary hue).

    With H and V kept, scaling S is v - factor (v - c) for every channel c, v being the largest one.
    """
    value = rgb.max(axis=-1, keepdims=True).astype(np.float64)
    return to_uint8(value - at(HSV_FACTOR, severity) * (value - rgb))


def color_saturation_lab(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """The a and b of Lab multiplied: garish colours."""
    lab = to_lab(rgb)
    lab[..., 1:] *= at(LAB_FACTOR, severity)
    return to_uint8(from_lab(lab))
