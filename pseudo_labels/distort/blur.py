"""Three blurs of KADID-10k (Lin, Hosu, Saupe 2019), with its level tables."""

import math

import numpy as np
from scipy import ndimage

from pseudo_labels.distort.scale import at, from_planes, to_planes

# In a pixel, in each direction: the covered fraction of a pixel is a multiple of 1/256.
_SUBSAMPLES = 16


def disk_kernel(radius_px: float) -> np.ndarray:
    """Uniform disk, each pixel weighted by the fraction of it that is covered; odd side, sum 1.

    A radius of at most 0.5 gives the identity.
    """
    half = max(0, math.ceil(radius_px - 0.5))
    if half == 0:
        return np.ones((1, 1))
    side = 2 * half + 1
    centres = (np.arange(side * _SUBSAMPLES) + 0.5) / _SUBSAMPLES - side / 2
    inside = centres[:, None] ** 2 + centres[None, :] ** 2 <= radius_px**2
    kernel = inside.reshape(side, _SUBSAMPLES, side, _SUBSAMPLES).sum(axis=(1, 3), dtype=np.float64)
    return kernel / kernel.sum()


def line_kernel(length_px: float, angle_rad: float) -> np.ndarray:
    """Straight movement: a line through the centre, spread bilinearly; odd side, sum 1.

    A length of at most 1 gives the identity.
    """
    reach = max(0.0, (length_px - 1) / 2)
    half = math.ceil(reach)
    steps = np.linspace(-reach, reach, 2 * math.ceil(_SUBSAMPLES * reach) + 1)
    x, y = half + steps * math.cos(angle_rad), half - steps * math.sin(angle_rad)
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    kernel = np.zeros((2 * half + 2, 2 * half + 2))
    for dx, weight_x in ((0, 1 - (x - column)), (1, x - column)):
        for dy, weight_y in ((0, 1 - (y - row)), (1, y - row)):
            # Many steps fall into one pixel: ``add.at`` adds all of them, plain indexing only the last.
            np.add.at(kernel, (row + dy, column + dx), weight_x * weight_y)
    # The last row and column only catch rounding at the very end of the line.
    kernel = kernel[:-1, :-1]
    return kernel / kernel.sum()


def chain(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The kernel that does what two do one after the other."""
    return ndimage.convolve(np.pad(first, second.shape[0] // 2), second, mode="constant")


def convolve(planes: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """CxHxW float64 convolved with a square kernel of odd side, edges repeated.

    By FFT, so that the time hardly depends on the kernel's size.
    """
    half = kernel.shape[0] // 2
    if half == 0:
        return planes * kernel[0, 0]
    return np.stack([_convolve_plane(plane, kernel, half) for plane in planes])


def _convolve_plane(plane: np.ndarray, kernel: np.ndarray, half: int) -> np.ndarray:
    padded = np.pad(plane, half, mode="edge")
    # Any multiple of 32 is a fast length. Wrap-around reaches only the first rows and columns, which are cut away.
    shape = [-(-side // 32) * 32 for side in padded.shape]
    spectrum = np.fft.rfft2(padded, shape) * np.fft.rfft2(kernel, shape)
    height, width = plane.shape
    return np.fft.irfft2(spectrum, shape)[2 * half : 2 * half + height, 2 * half : 2 * half + width]


def gaussian(planes: np.ndarray, sigma_px: float, reach: float = 3.0) -> np.ndarray:
    """Gaussian blur of CxHxW or HxW, edges repeated, cut at ``reach`` standard deviations."""
    sigma = (0.0,) * (planes.ndim - 2) + (sigma_px, sigma_px)
    return ndimage.gaussian_filter(planes, sigma, mode="nearest", truncate=reach)


# Level 0, then the levels 1 to 5. KADID's level 1 of 0.1 px (Gaussian) and 1 px (motion) changes no pixel at all; the
# smallest value that does stands here instead.
GAUSSIAN_SIGMA_PX = (0.0, 0.4, 0.5, 1.0, 2.0, 5.0)
LENS_RADIUS_PX = (0.0, 1.0, 2.0, 4.0, 6.0, 8.0)
MOTION_LENGTH_PX = (1.0, 1.5, 2.0, 4.0, 6.0, 10.0)


def gaussian_blur(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur of every channel."""
    return from_planes(gaussian(to_planes(rgb), at(GAUSSIAN_SIGMA_PX, severity)))


def lens_blur(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Defocus: every channel averaged over a disk."""
    return from_planes(convolve(to_planes(rgb), disk_kernel(at(LENS_RADIUS_PX, severity))))


def motion_blur(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Straight movement in a random direction."""
    kernel = line_kernel(at(MOTION_LENGTH_PX, severity), rng.uniform(0, math.pi))
    return from_planes(convolve(to_planes(rgb), kernel))
