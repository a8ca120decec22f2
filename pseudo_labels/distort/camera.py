"""The six distortions that cameras make, named by SEAGULL-100w (Chen et al. 2024, arXiv 2411.10161).

No parameters are published that could be used here, so the ranges are ours. Blur and exposure happen in linear
light, as in a camera; exposure, contrast and colourfulness err in either direction, drawn by chance. Severity is
continuous.
"""

import math

import numpy as np

from pseudo_labels.distort.blur import chain, convolve, disk_kernel, gaussian, line_kernel
from pseudo_labels.distort.compression import recode_jpeg
from pseudo_labels.distort.scale import coin, luma, to_uint8

DEFOCUS_RADIUS_PX = 5.0
SHAKE_PX = 8.0
SHARPEN_AMOUNT = 8.0
SHARPEN_SIGMA_PX = 1.0
EXPOSURE_STOPS = 3.0
CONTRAST_LOG_GAIN = 1.2
COLOUR_GAIN = 2.5
QUALITY_BEST, QUALITY_WORST = 75.0, 4.0

_CODES = np.arange(256) / 255
# The sRGB transfer function (IEC 61966-2-1) of every code, and its inverse sampled at 1/20 of a code or finer.
_TO_LINEAR = np.where(_CODES <= 0.04045, _CODES / 12.92, ((_CODES + 0.055) / 1.055) ** 2.4)
_STEPS = 1 << 16
_LINEAR = np.arange(_STEPS + 1) / _STEPS
_FROM_LINEAR = to_uint8(
    255 * np.where(_LINEAR <= 0.0031308, 12.92 * _LINEAR, 1.055 * np.maximum(_LINEAR, 1e-9) ** (1 / 2.4) - 0.055)
)


def _from_linear(light: np.ndarray) -> np.ndarray:
    return _FROM_LINEAR[np.rint(np.clip(light, 0, 1) * _STEPS).astype(np.int32)]


def camera_blur(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Out of focus and shaken at once, in linear light."""
    # A line of 1 pixel and a disk of 0.5 are the identity, so both grow from no change at all.
    shake = line_kernel(1 + SHAKE_PX * severity * rng.random(), rng.uniform(0, math.pi))
    kernel = chain(disk_kernel(0.5 + DEFOCUS_RADIUS_PX * severity), shake)
    light = convolve(np.ascontiguousarray(np.moveaxis(_TO_LINEAR[rgb], -1, 0)), kernel)
    return np.ascontiguousarray(np.moveaxis(_from_linear(light), 0, -1))


def camera_sharpness(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """A camera's sharpening turned too high: fine halos, the same luma detail added to every channel."""
    grey = luma(rgb)
    detail = SHARPEN_AMOUNT * severity * (grey - gaussian(grey, SHARPEN_SIGMA_PX))
    return to_uint8(rgb + detail[..., None])


def camera_exposure(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Over- or underexposed by up to three stops; highlights clip."""
    # By a table: there are only 256 codes, however many pixels.
    return _from_linear(_TO_LINEAR * 2.0 ** (coin(rng) * EXPOSURE_STOPS * severity))[rgb]


def camera_contrast(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Harsh or flat: distances from the image's mean luma multiplied, by at most e^1.2 or e^-1.2."""
    pivot = luma(rgb).mean()
    gain = math.exp(coin(rng) * CONTRAST_LOG_GAIN * severity)
    return to_uint8(pivot + gain * (np.arange(256) - pivot))[rgb]


def camera_colorfulness(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Colours too strong, up to 3.5 times, or too weak, down to none; luma is kept up to clipping."""
    gain = 1 + COLOUR_GAIN * severity if coin(rng) > 0 else 1 - severity
    grey = luma(rgb)[..., None]
    return to_uint8(grey + gain * (rgb - grey))


def camera_compression(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """JPEG from a camera's quality 75 down to 4, in equal ratios."""
    return recode_jpeg(rgb, round(QUALITY_BEST * (QUALITY_WORST / QUALITY_BEST) ** severity))
