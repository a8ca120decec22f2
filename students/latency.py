"""Milliseconds of each step from file to score, on pinned cores; numpy, Pillow and ONNX Runtime only."""

import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import load
from pseudo_labels.parallel import Progress
from students.fields import check_int
from students.runtime import MAX_WORKERS, Scorer

STEPS = ("decode", "resize", "network", "total")


@dataclass(frozen=True)
class StepLatency:
    """Milliseconds of one step for one image: median and 95th percentile over all images and repeats."""

    median_ms: float
    p95_ms: float


@dataclass(frozen=True)
class LatencyReport:
    """Duration of scoring an image file.

    Attributes:
        steps: latency of ``decode`` (file to pixels), ``resize``, ``network`` (with calibration) and ``total``.
        images: number of files measured.
        repeats: number of measurements of each file.
        threads: number of threads of the network, and of cores that the process was pinned to.
        machine: processor architecture and model, where the system names them.
    """

    steps: dict[str, StepLatency]
    images: int
    repeats: int
    threads: int
    machine: str

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def measure_latency(
    model: str | Path,
    images: Sequence[str | Path],
    *,
    threads: int = 1,
    warmup_images: int = 5,
    repeats: int = 3,
    progress: Progress | None = None,
) -> LatencyReport:
    """Time an exported student on real files, one after the other, files in the page cache.

    Args:
        model: ONNX file.
        images: files that can be scored.
        threads: threads of the network; the process is pinned to as many cores while it measures (Linux).
        warmup_images: number of images scored first, without being measured.
        repeats: number of passes over the images.
        progress: called with (done, total) images, warm-up included.

    Raises:
        PocketiqaError: no images, numbers out of range, or a model or image that cannot be used.
    """
    if not images:
        raise PocketiqaError("no images to time: give at least one file")
    check_int(threads, "threads", 1, MAX_WORKERS)
    check_int(repeats, "repeats", 1, 1_000_000)
    check_int(warmup_images, "warmup_images", 0, 1_000_000)
    # The first runs allocate memory and fill the caches; whoever scores a folder pays for them once.
    paths = [images[index % len(images)] for index in range(warmup_images)] + list(images) * repeats
    times_ms = []
    # The session's own threads inherit the pinning, so it starts inside.
    with pinned_cores(threads):
        scorer = Scorer(model, threads=threads)
        for done, path in enumerate(paths, start=1):
            times_ms.append(_time_one(scorer, path))
            if progress is not None:
                progress(done, len(paths))
    # The warm-up takes the first images of the list again, so no image is timed in fewer passes than others.
    columns = np.array(times_ms[warmup_images:]).T
    steps = {name: _summary(column) for name, column in zip(STEPS, columns, strict=True)}
    return LatencyReport(steps, len(images), repeats, threads, machine_name())


def _time_one(scorer: Scorer, path: str | Path) -> tuple[float, float, float, float]:
    # The steps of ``Scorer.score``, with the clock between them.
    start = time.perf_counter()
    rgb = load(path)
    decoded = time.perf_counter()
    batch = scorer.contract.preprocess.resize(rgb)[None]
    resized = time.perf_counter()
    scorer.infer(batch)
    end = time.perf_counter()
    return 1e3 * (decoded - start), 1e3 * (resized - decoded), 1e3 * (end - resized), 1e3 * (end - start)


def _summary(times_ms: np.ndarray) -> StepLatency:
    # The median, as a mean would follow the few runs that the system interrupted.
    return StepLatency(float(np.median(times_ms)), float(np.percentile(times_ms, 95)))


@contextmanager
def pinned_cores(count: int) -> Iterator[None]:
    """Keep this thread, and those it starts, on ``count`` cores; where the system cannot, do nothing.

    Raises:
        PocketiqaError: this process may use fewer than ``count`` cores.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    if count > len(allowed):
        raise PocketiqaError(f"threads is {count}, but this process may use {len(allowed)} cores")
    # The lowest numbers, so that repeated measurements take the same cores.
    os.sched_setaffinity(0, sorted(allowed)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def machine_name() -> str:
    """Architecture and processor model, such as "x86_64, AMD EPYC"."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or "unknown processor"
    return f"{platform.machine()}, {model}"
