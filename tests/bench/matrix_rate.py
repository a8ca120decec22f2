"""How long a device takes, and the rate that it reaches at what it does best: the product of two large matrices."""

import time
from collections.abc import Callable
from statistics import median

import torch

_SIDE = {"cuda": 8192, "cpu": 2048}
_IN_A_ROW, _TRIES = 10, 5


def elapsed_s(work: Callable[[], object], device: torch.device) -> float:
    """Seconds from now until the device has done ``work``; on a GPU by its own clock, launches included."""
    if device.type != "cuda":
        started = time.perf_counter()
        work()
        return time.perf_counter() - started
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    work()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) / 1000


def median_s(work: Callable[[], object], device: torch.device, *, least_s: float = 3.0, most: int = 20) -> float:
    """Median seconds of ``work``, after a warm-up: at least 2 measurements, then until ``least_s`` or ``most`` of them.

    The warm-up is longer on a GPU, whose libraries try kernels and whose clock has to rise.
    """
    for _ in range(3 if device.type == "cuda" else 1):
        elapsed_s(work, device)
    times_s: list[float] = []
    while len(times_s) < 2 or (sum(times_s) < least_s and len(times_s) < most):
        times_s.append(elapsed_s(work, device))
    return median(times_s)


def matrix_flops_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a square matrix product (8192 on a GPU, 2048 on a CPU), best of 5 tries.

    The best and not the median: it stands for what the hardware can do, which others are then a fraction of.
    """
    side = _SIDE.get(device.type, _SIDE["cpu"])
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(left)

    def multiply() -> None:
        for _ in range(_IN_A_ROW):
            torch.mm(left, right, out=product)

    elapsed_s(multiply, device)
    return _IN_A_ROW * 2 * side**3 / min(elapsed_s(multiply, device) for _ in range(_TRIES))
