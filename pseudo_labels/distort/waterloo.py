"""The four distortions of the Waterloo exploration database, each in its five strengths.

Ma, Duanmu, Wu, Wang, Yong, Li and Zhang, "Waterloo exploration database: new challenges for image quality assessment
models", IEEE TIP 26(2), 2017. The strengths are those of the authors' published script: they go far beyond KADID-10k's
(a blur of 33 pixels, noise as strong as the picture), so that their order and their presence are beyond doubt. Below
160,000 pixels the highest levels of JPEG 2000 are held at what its headers leave.
"""

import numpy as np

from pseudo_labels.distort.blur import gaussian
from pseudo_labels.distort.compression import recode_jpeg, recode_jpeg2000
from pseudo_labels.distort.noise import normal
from pseudo_labels.distort.scale import at, from_planes, to_planes, to_uint8

# Level 0, then the levels 1 to 5.
JPEG_QUALITY = (100.0, 43.0, 12.0, 7.0, 4.0, 0.0)
JPEG2000_BITS_A_PIXEL = (12.0, 0.46, 0.16, 0.07, 0.04, 0.02)
# Variances of an image scaled to [0, 1].
NOISE_VARIANCE = (0.0, 2**-10, 2**-7.5, 2**-5.5, 2**-3.5, 1.0)
# The script gives sides of the window, each six standard deviations.
BLUR_SIGMA_PX = (0.0, *(side_px / 6 for side_px in (7, 15, 39, 91, 199)))
_JPEG2000_RATIO = tuple(24 / bits for bits in JPEG2000_BITS_A_PIXEL)


def waterloo_jpeg(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """JPEG down to the lowest quality there is; the quality is rounded to a whole number."""
    return recode_jpeg(rgb, round(at(JPEG_QUALITY, severity)))


def waterloo_jpeg2000(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Irreversible JPEG 2000 down to 0.02 bits a pixel."""
    return recode_jpeg2000(rgb, at(_JPEG2000_RATIO, severity))


def waterloo_white_noise(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise, independent in every pixel and channel, as strong as the picture at the end."""
    return to_uint8(rgb + normal(rng, rgb.shape, at(NOISE_VARIANCE, severity)))


def waterloo_gaussian_blur(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur of every channel, of which nothing but patches of colour is left at the end."""
    return from_planes(gaussian(to_planes(rgb), at(BLUR_SIGMA_PX, severity)))
