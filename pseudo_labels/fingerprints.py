"""What near duplicates are recognised by: a difference hash of a picture. Base install only.

dHash (N. Krawetz, "Kind of Like That", 2013) with 64 bits: each bit says whether a pixel of a 9x8 gray
thumbnail is darker than its right neighbour. It survives resizing, compression and small colour changes, not mirroring.

Flat pictures (sky, night, a wall, a smooth gradient) have no such structure: their bits are all alike or only noise,
and unrelated ones would be glued together. A picture is flat, and grouped with nothing, if its thumbnail spans fewer
than ``FLAT_SPAN`` gray levels or if fewer than ``FLAT_BITS`` bits differ from the majority.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

HASH_BITS = 64
# Both limits tell the flat pictures from the photographs of ``tests/pseudo_labels/test_duplicates.py``.
FLAT_SPAN = 12
FLAT_BITS = 6
_BITS_OF_16 = np.array([value.bit_count() for value in range(1 << 16)], dtype=np.uint8)


class Fingerprint(NamedTuple):
    """What near duplicates are recognised by: 16 hex digits, and whether the picture is too flat for these."""

    dhash: str
    is_flat: bool


def fingerprint(rgb: np.ndarray) -> Fingerprint:
    """Difference hash of a uint8 HxWx3 image."""
    thumbnail = np.asarray(Image.fromarray(rgb).convert("L").resize((9, 8), Image.Resampling.LANCZOS))
    bits = thumbnail[:, :-1] < thumbnail[:, 1:]
    ones = int(bits.sum())
    is_flat = int(np.ptp(thumbnail)) < FLAT_SPAN or min(ones, HASH_BITS - ones) < FLAT_BITS
    return Fingerprint(f"{int.from_bytes(np.packbits(bits).tobytes(), 'big'):016x}", is_flat)


def count_bits(values: np.ndarray) -> np.ndarray:
    """Number of set bits of each uint64."""
    if hasattr(np, "bitwise_count"):  # since numpy 2.0, several times faster
        return np.bitwise_count(values)
    return _BITS_OF_16[values.view(np.uint16)].reshape(*values.shape, 4).sum(axis=-1)
