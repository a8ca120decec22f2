"""What every operator shares: severity to parameter, floats back to pixels, planes for filters.

Libraries: Pillow (codecs, palettes), scikit-image (Lab), PyWavelets and scipy.ndimage (filters, warps). albumentations
is not used because it is no longer maintained, its successor is AGPL, and it pulls in a second OpenCV.
"""

import numpy as np

LEVELS = 5
# KADID-10k's pictures are 512x384; sizes of blocks and patches are declared for that area.
KADID_AREA_PX = 512 * 384


def at(table: tuple[float, ...], severity: float) -> float:
    """Parameter of a distortion, linear between the levels.

    Args:
        table: six values, for no distortion (level 0) and for the levels 1 to 5.
        severity: level / 5, in [0, 1].
    """
    return float(np.interp(severity * LEVELS, range(LEVELS + 1), table))


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Grey levels as floats, any shape, to uint8: rounded to nearest, clipped to 0..255."""
    rounded = np.rint(values)
    return np.clip(rounded, 0, 255, out=rounded).astype(np.uint8)


def to_planes(rgb: np.ndarray) -> np.ndarray:
    """HxWxC to contiguous CxHxW float64, on which filters run fastest.

    float64 keeps the last bit of a library's arithmetic, which differs between processors, away from the rounding
    to grey levels: the same bytes on every machine.
    """
    return np.ascontiguousarray(np.moveaxis(rgb, -1, 0), dtype=np.float64)


def from_planes(planes: np.ndarray) -> np.ndarray:
    """CxHxW grey levels to contiguous HxWxC uint8."""
    return np.ascontiguousarray(np.moveaxis(to_uint8(planes), 0, -1))


def luma(rgb: np.ndarray) -> np.ndarray:
    """BT.601 luma of HxWx3 grey levels, HxW float64 in 0..255."""
    return 0.299 * rgb[..., 0] + 0.587 * rgb[..., 1] + 0.114 * rgb[..., 2]


def coin(rng: np.random.Generator) -> int:
    """+1 or -1: the direction of a distortion that has two."""
    return 1 if rng.random() < 0.5 else -1
