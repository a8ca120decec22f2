"""Five colour distortions of KADID-10k (Lin, Hosu, Saupe 2019), with its level tables."""

import math

import numpy as np
from PIL import Image
from scipy import ndimage

from pseudo_labels.distort.filters import gaussian
from pseudo_labels.distort.lab import from_lab, to_lab
from pseudo_labels.distort.scale import at, luma, to_uint8

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
