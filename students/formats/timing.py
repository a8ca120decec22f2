"""Processor time of several things in one process, in turn, so that each sees the same machine. Without torch."""

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# What multiplies 8 or 16 bits, of x86 and of ARM, and what else decides how fast convolutions are.
_TELLING = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm")


@dataclass(frozen=True)
class Timed:
    """Processor time of one of them.

    Attributes:
        median_ms: median over all rounds, in milliseconds, of all threads of the process together.
        ratio: median over all rounds of its time over that of the first one in the same round.
    """

    median_ms: float
    ratio: float


def processor_times(
    works: Mapping[str, Callable[[], object]], *, rounds: int = 9, repeats: int = 3, warmups: int = 2
) -> dict[str, Timed]:
    """Time several works in turn; the first one is what the others are compared with.

    Processor time and not that of the clock: other processes take turns with this one, and would be counted.

    Args:
        works: what to do, by name.
        rounds: how often each has its turn.
        repeats: how often it is done in one turn.
        warmups: how often each is done before, without being timed.
    """
    for work in works.values():
        for _ in range(warmups):
            work()
    seconds = np.zeros((rounds, len(works)))
    for row in seconds:
        for column, work in enumerate(works.values()):
            start = time.process_time()
            for _ in range(repeats):
                work()
            row[column] = (time.process_time() - start) / repeats
    ratios = seconds / seconds[:, :1]
    return {
        name: Timed(float(1e3 * np.median(seconds[:, column])), float(np.median(ratios[:, column])))
        for column, name in enumerate(works)
    }


def processor_flags() -> list[str]:
    """Instructions of this processor that decide how fast a network in 8 bits is; none where the system names none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return [platform.processor()] if platform.processor() else []
    words = next((line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return [flag for flag in _TELLING if flag in words]
