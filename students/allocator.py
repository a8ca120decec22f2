"""Keep the memory of one photograph for the next, instead of giving it back to the system in between.

glibc returns large freed blocks at once, so each image's pixels are new pages that the kernel must clear first.
Measured on 1024x768 JPEGs with pocket-m: 11.5 instead of 17.5 ms of processor time for each, at the same peak memory.
"""

import ctypes
import os

# Numbers of malloc.h. Blocks below the one bound come from the heap, whose free end is kept up to the other.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MMAP_BYTES = 32 << 20
_KEPT_BYTES = 128 << 20
_USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Let this process keep up to 128 MB of freed memory, from now on.

    Returns:
        Whether it was done: not without glibc, nor where the user has tuned or replaced the allocator.
    """
    if any(name in os.environ for name in _USERS_OWN):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))
