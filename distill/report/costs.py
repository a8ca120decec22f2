"""The section on what the models cost."""

from collections.abc import Mapping
from typing import Any

from distill.report.agreement import model_name
from distill.report.numbers import data, megabytes, milliseconds, si, size
from distill.report.tables import Section, soft, table

_COSTS = {
    "parameters": ("parameters", si),
    "trained": ("fitted", si),
    "macs": ("multiply-adds", si),
    "file_bytes": ("file", size),
    "latency_ms_median": ("an image, median", milliseconds),
    "latency_ms_p95": ("95th percentile", milliseconds),
    "peak_memory_mb": ("peak memory", megabytes),
}


def costs(content: Mapping[str, Any]) -> Section | None:
    """Parameters, operations, file, time and memory of each model."""
    shown = [key for key in _COSTS if any(cost[key] is not None for cost in content["costs"].values())]
    if not shown:
        return None
    rows = []
    for name, cost in content["costs"].items():
        rows.append(
            [model_name(content, content["evaluation"], name), *(data(cost[key], _COSTS[key][1]) for key in shown)]
        )
    header = ["model", *(_COSTS[key][0] for key in shown)]
    return Section("cost", "Cost", [soft(content["machine"]) if content["machine"] else None, table(header, rows)])
