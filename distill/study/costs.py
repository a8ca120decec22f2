"""What runs cost: seconds and peak memory of each stage, kept beside what the stage made."""

import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pseudo_labels.files import checksummed_json, read_record, write_atomic

COSTS = "costs.json"


def record_cost(home: Path, stage: str, seconds: float, *, resumed: bool) -> None:
    """Write down what a stage has just cost in this process.

    Args:
        home: folder with the record: that of the run, or of an output that several runs use.
        stage: name of the stage.
        seconds: seconds since it was begun.
        resumed: whether it continued the work of an earlier process.
    """
    cost = {"seconds": seconds, "peak_memory_bytes": peak_memory_bytes(), "resumed": resumed}
    write_atomic(home / COSTS, checksummed_json({**read_costs(home), stage: cost}))


def read_costs(home: Path) -> dict[str, Mapping[str, Any]]:
    """For each stage ``seconds``, ``peak_memory_bytes`` and ``resumed``: what came before the last start is missing."""
    path = home / COSTS
    return read_record(path, what="record of costs") if path.is_file() else {}


def peak_memory_bytes() -> int:
    """Most resident memory so far of this process, or of the largest process that it has started and seen end."""
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if sys.platform == "linux":
        # A new program inherits the figure of getrusage from the one that started it.
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        own = 1024 * int(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit)
