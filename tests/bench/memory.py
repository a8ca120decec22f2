"""Peak memory of a process."""

import resource
import sys
from pathlib import Path


def peak_resident_bytes() -> int:
    """The most memory that this process has had so far.

    On Linux from /proc: what ``getrusage`` says may be the peak of the process that started this one.
    """
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
