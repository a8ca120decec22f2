"""Keep the memory of one photograph or training step for the next, instead of giving it back in between.

glibc returns large freed blocks to the system at once, so each image's pixels are new pages that the kernel must clear
first. Measured on 1024x768 JPEGs with pocket-m: 11.5 instead of 17.5 ms of processor time for each, at the same peak
memory; training pocket-s, 32 crops of 144 pixels: 162 instead of 147 images a second on one core, likewise.
"""

import ctypes
import os

# Numbers of malloc.h. Blocks below the one bound come from the heap, whose free end is kept up to the other.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_BLOCK_BYTES = 32 << 20
_KEPT_BYTES = 128 << 20
MOST_BYTES = (1 << 31) - 1
"""The largest bound that malloc takes."""
_USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory(kept_bytes: int = _KEPT_BYTES, block_bytes: int = _BLOCK_BYTES) -> bool:
    """Let this process keep freed memory, from now on.

    Args:
        kept_bytes: at most so much, up to ``MOST_BYTES``.
        block_bytes: blocks from this size on are given back all the same.

    Returns:
        Whether it was done: not without glibc, nor where the user has tuned or replaced the allocator.
    """
    if any(name in os.environ for name in _USERS_OWN):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, block_bytes) and mallopt(_M_TRIM_THRESHOLD, kept_bytes))
