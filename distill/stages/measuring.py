"""What the models of a run cost here: time on held-out images, parameters, memory."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from distill.report import Cost
from distill.stages.evaluation import HeldOut
from pseudo_labels.parallel import Progress
from pseudo_labels.records import ImageRef
from students.complexity import count_parameters, peak_memory_bytes
from students.contract import StudentContract
from students.latency import machine_name, measure_latency
from teachers.base import Teacher
from teachers.composite.multi_view import MultiView
from teachers.fitting import FittableTeacher
from teachers.launch import current_launch

# Enough for a median; with more, a slow teacher on the CPU would be timed for minutes.
TIMED_IMAGES = 8


def student_cost(model: Path, contract: StudentContract, out: HeldOut, progress: Progress) -> tuple[Cost, str]:
    """Cost of an exported student from JPEG file to score, and what it was measured on.

    Args:
        model: exported file.
        contract: contract of that file.
        out: held-out images, of which the first are scored.
        progress: called with (done, total) images.
    """
    # As JPEG files, what users mostly have: decoding is part of what they wait for, and a pool may hold PNG.
    with tempfile.TemporaryDirectory() as name:
        timed = [out.pool.by_id(id) for id in out.ids[:TIMED_IMAGES]]
        files = [Path(name) / f"{ref.id}.jpg" for ref in timed]
        for ref, file in zip(timed, files, strict=True):
            Image.fromarray(out.pool.load(ref)).save(file, quality=90)
        latency = measure_latency(model, files, progress=progress)
        memory_mb = peak_memory_bytes(model, files) / 1e6
    cost = Cost(
        parameters=contract.parameters,
        macs=contract.macs,
        file_bytes=model.stat().st_size,
        latency_ms_median=latency.steps["total"].median_ms,
        latency_ms_p95=latency.steps["total"].p95_ms,
        peak_memory_mb=memory_mb,
    )
    return cost, f"{latency.machine}, {_threads(latency.threads)}; {_images(timed)}; from JPEG to score"


def teacher_cost(
    teacher: Teacher, out: HeldOut, ids: Sequence[str], *, fitted: Sequence[Path] = (), progress: Progress | None = None
) -> tuple[Cost, str]:
    """Cost of a teacher, without decoding, on a GPU if there is one, and what it was measured on.

    Args:
        teacher: teacher to be timed; it is moved to the device.
        out: held-out images.
        ids: ids of images that it can score, of which the first are timed.
        fitted: files of its fitted tensors, if this run fitted it.
        progress: called with (done, total) images.
    """
    device = current_launch("auto").device
    teacher.to(device)
    # The first image pays for caches and memory.
    timed = [out.pool.by_id(id) for id in ids[: TIMED_IMAGES + 1]]
    times_ms = []
    for number, ref in enumerate(timed, start=1):
        times_ms.append(_milliseconds(teacher, out, ref))
        if progress is not None:
            progress(number, len(timed))
    # A single image is better than no figure, even with what the first one pays.
    rest = sorted(times_ms[1:] or times_ms)
    network = _network(teacher)
    where = _accelerator(device)
    cost = Cost(
        parameters=None if network is None else count_parameters(network),
        trained=_trained(teacher) if fitted else None,
        file_bytes=sum(file.stat().st_size for file in fitted) or None,
        latency_ms_median=statistics.median(rest) if rest else None,
        # Of so few images the slowest stands for the 95th percentile.
        latency_ms_p95=rest[-1] if rest else None,
        device=where,
    )
    machine = where or f"{machine_name()}, {_threads(torch.get_num_threads())}"
    return cost, f"{machine}; {_images(timed[1:] or timed)}; without decoding"


def _milliseconds(teacher: Teacher, out: HeldOut, ref: ImageRef) -> float:
    # Decoded before the clock starts: decoding costs the same for every teacher, and the report says so.
    rgb = out.pool.load(ref)
    reference = out.pool.load(out.pool.by_id(ref.ref_id or ref.id)) if teacher.needs_reference else None
    started = time.perf_counter()
    with torch.inference_mode():
        teacher([teacher.preprocess(rgb, reference)]).score.cpu()  # waits for the device
    return 1000 * (time.perf_counter() - started)


def _network(teacher: Teacher) -> nn.Module | None:
    """The teacher's own network, if it has one as ``model``."""
    inner = teacher.teacher if isinstance(teacher, MultiView) else teacher
    network = getattr(inner, "model", None)
    return network if isinstance(network, nn.Module) else None


def _trained(teacher: Teacher) -> int | None:
    inner = teacher.teacher if isinstance(teacher, MultiView) else teacher
    if not isinstance(inner, FittableTeacher):
        return None
    names = inner.trained_state()
    return sum(value.numel() for name, value in inner.model.named_parameters() if name in names)


def _accelerator(device: torch.device) -> str | None:
    if device.type == "cpu":
        return None
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _threads(count: int) -> str:
    return f"{count} thread" if count == 1 else f"{count} threads"


def _images(refs: Sequence[ImageRef]) -> str:
    sizes = {(ref.width, ref.height) for ref in refs}
    if not sizes:
        return "no image"
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return f"{len(refs)} images of {'up to ' if len(sizes) > 1 else ''}{width}x{height} pixels"
