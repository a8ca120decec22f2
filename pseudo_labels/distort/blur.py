"""Three blurs of KADID-10k (Lin, Hosu, Saupe 2019), with its level tables."""

import math

import numpy as np

from pseudo_labels.distort.filters import convolve, disk_kernel, gaussian, line_kernel
from pseudo_labels.distort.scale import at, from_planes, to_planes

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
