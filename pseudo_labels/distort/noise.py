"""Five noises of KADID-10k (Lin, Hosu, Saupe 2019), with its level tables.

Variances are those of an image scaled to [0, 1].
"""

import math

import numpy as np
import pywt

from pseudo_labels.distort.scale import at, from_planes, to_planes, to_uint8

# Level 0, then the levels 1 to 5.
WHITE_VARIANCE = (0.0, 0.001, 0.002, 0.003, 0.005, 0.01)
COMPONENT_VARIANCE = (0.0, 0.0001, 0.0005, 0.001, 0.002, 0.003)
IMPULSE_FRACTION = (0.0, 0.001, 0.005, 0.01, 0.02, 0.03)
MULTIPLICATIVE_VARIANCE = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05)
DENOISED_VARIANCE = (0.0, 0.01, 0.03, 0.05, 0.1, 0.15)

_WAVELET, _WAVELET_TAPS, _MAX_DEPTH = "sym4", 8, 5


def normal(rng: np.random.Generator, shape: tuple[int, ...], variance: float) -> np.ndarray:
    """Gaussian noise in grey levels, float32, of a variance that is given for images scaled to [0, 1]."""
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(255 * math.sqrt(variance))


def white_noise(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise, independent in every pixel and channel."""
    return to_uint8(rgb + normal(rng, rgb.shape, at(WHITE_VARIANCE, severity)))


def white_noise_color(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise in Y, Cb and Cr (BT.601, full range); the conversion being linear, only the noise is converted."""
    y, cb, cr = np.moveaxis(normal(rng, rgb.shape, at(COMPONENT_VARIANCE, severity)), -1, 0)
    noise = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1)
    return to_uint8(rgb + noise)


def impulse_noise(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Salt and pepper: a fraction of all samples, each channel for itself, becomes 0 or 255 with equal chance."""
    fraction = at(IMPULSE_FRACTION, severity)
    # One draw decides all: from one state of the generator, what is noisy at one severity stays so at a higher one.
    dice = rng.random(rgb.shape, dtype=np.float32)
    noisy = rgb.copy()
    noisy[dice < fraction] = 255
    noisy[dice < fraction / 2] = 0
    return noisy


def multiplicative_noise(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Speckle: c + n c with n uniform, of mean 0 and the given variance."""
    reach = math.sqrt(3 * at(MULTIPLICATIVE_VARIANCE, severity))
    noise = (2 * rng.random(rgb.shape, dtype=np.float32) - 1) * np.float32(reach)
    return to_uint8(rgb * (1 + noise))


def denoise(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """What is left after white noise was added and removed again, channel by channel.

    KADID-10k removes it with the network DnCNN; here it is wavelet shrinkage that knows the true strength of the noise.
    """
    sigma = 255 * math.sqrt(at(DENOISED_VARIANCE, severity))
    noisy = np.clip(to_planes(rgb) + sigma * rng.standard_normal((3, *rgb.shape[:2])), 0, 255)
    return from_planes(np.stack([shrink_wavelets(plane, sigma) for plane in noisy]))


def shrink_wavelets(plane: np.ndarray, sigma: float) -> np.ndarray:
    """HxW without white noise of known deviation: soft thresholds of BayesShrink (Chang, Yu, Vetterli 2000, eq. 11)."""
    # As deep as the side allows: noise coarser than that would stay.
    # The limit is that of ``pywt.dwt_max_level``; beyond it the filter is longer than the band.
    depth = min(_MAX_DEPTH, int(math.log2(min(plane.shape) / (_WAVELET_TAPS - 1))))
    coarse, *details = pywt.wavedec2(plane, _WAVELET, level=depth)
    shrunk = [tuple(_soft(band, sigma**2) for band in bands) for bands in details]
    return pywt.waverec2([coarse, *shrunk], _WAVELET)[: plane.shape[0], : plane.shape[1]]


def _soft(band: np.ndarray, noise_variance: float) -> np.ndarray:
    # Where a band is noise alone, its threshold becomes so large that nothing of it stays.
    signal_variance = max((band**2).mean() - noise_variance, np.finfo(float).eps)
    threshold = noise_variance / math.sqrt(signal_variance)
    return np.sign(band) * np.maximum(np.abs(band) - threshold, 0)
