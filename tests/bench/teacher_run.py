"""One teacher in a process of its own, so that its peak memory is its own: build it, run it, print a line of JSON.

``run_apart`` starts that process and reads the line.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from students.latency import machine_name
from teachers.base import stack
from teachers.dp_iqa import DpIqaTeacher
from teachers.launch import PRECISIONS
from teachers.sam_iqa import SamIqaTeacher
from tests.bench.matrix_rate import matrix_flops_per_s, median_s
from tests.bench.memory import peak_resident_bytes
from tests.bench.photographs import photographs
from tests.bench.teacher_cases import BigTeacher, Case

LARGEST_BATCH = {"cuda": 1024, "cpu": 32}
_WORTH_DOUBLING = 1.05  # a batch of twice the size must be this much faster an image


@dataclass(frozen=True)
class Run:
    """What was measured.

    Attributes:
        hardware: name of the processor or card.
        precision: that the model computed in, ``bf16`` on a GPU.
        compiled: by ``torch.compile``.
        threads: of the CPU.
        build_s: seconds to build the teacher on the CPU, random weights and their digest included.
        loaded_bytes: main memory's peak before, which the libraries take.
        built_bytes: the same once the teacher is built.
        peak_bytes: the same once it has scored; on a GPU its own memory's peak at this batch.
        batch: images at a time.
        forward_s: seconds of one batch, median.
        goal_part_s: of the part that the case's goal is about.
        matrix_flops_per_s: of this hardware in this precision.
    """

    hardware: str
    precision: str
    compiled: bool
    threads: int
    build_s: float
    loaded_bytes: int
    built_bytes: int
    peak_bytes: int
    batch: int
    forward_s: float
    goal_part_s: float
    matrix_flops_per_s: float


def best_batch(seconds_of: Callable[[int], float], largest: int) -> int:
    """The batch with the most images a second, doubled from 1 until that gains less than 5 % or memory runs out.

    Args:
        seconds_of: seconds of one batch of this size.
        largest: that is tried.
    """
    batch, seconds = 1, seconds_of(1)
    while 2 * batch <= largest:
        try:
            gain = 2 * seconds / (larger_s := seconds_of(2 * batch))
        except torch.OutOfMemoryError:
            break
        if gain > 1:
            batch, seconds = 2 * batch, larger_s
        if gain < _WORTH_DOUBLING:
            break
    return batch


def measure(case: Case, device: torch.device, *, batch: int | None, compiled: bool) -> Run:
    """Build and run a teacher.

    Args:
        case: which.
        device: to run it on.
        batch: images at a time; None looks for the best.
        compiled: with ``torch.compile``.
    """
    precision = "bf16" if device.type == "cuda" else "fp32"
    loaded_bytes, started = peak_resident_bytes(), time.perf_counter()
    teacher = case.build(precision)
    build_s, built_bytes = time.perf_counter() - started, peak_resident_bytes()
    teacher.to(device)
    if compiled:
        _compile(teacher)
    (photograph,) = photographs(1, case.side_px, case.side_px)
    (image,) = stack([teacher.preprocess(photograph, None)], device)
    seconds_of = _clock(teacher.model, image)
    if batch is None:
        batch = best_batch(seconds_of, LARGEST_BATCH[device.type])
    if device.type == "cuda":  # the search needed more
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    forward_s = seconds_of(batch)
    peak_bytes = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident_bytes()
    part_s = _clock(teacher.model.encoder, image)(batch) if isinstance(teacher, SamIqaTeacher) else forward_s
    return Run(
        hardware=torch.cuda.get_device_name(device) if device.type == "cuda" else machine_name(),
        precision=precision,
        compiled=compiled,
        threads=torch.get_num_threads(),
        build_s=build_s,
        loaded_bytes=loaded_bytes,
        built_bytes=built_bytes,
        peak_bytes=peak_bytes,
        batch=batch,
        forward_s=forward_s,
        goal_part_s=part_s,
        # Last, because its matrices are memory too.
        matrix_flops_per_s=matrix_flops_per_s(device, PRECISIONS[precision]),
    )


def _compile(teacher: BigTeacher) -> None:
    if isinstance(teacher, DpIqaTeacher):
        teacher.model.compile_parts()
    else:
        teacher.model.encoder.vit.compile()


def _clock(model: Callable[[Tensor], object], image: Tensor) -> Callable[[int], float]:
    """Seconds of ``model`` by the number of images, all of them this one [1, 3, side, side]."""

    def seconds_of(batch: int) -> float:
        images = image.expand(batch, *image.shape[1:]).contiguous()
        with torch.inference_mode():
            return median_s(lambda: model(images), image.device)

    return seconds_of


def run_apart(case: Case, device: str, *, batch: int | None = 1, compiled: bool = False) -> Run:
    """``measure`` in a new process.

    Raises:
        SystemExit: it failed; what it said stands above.
    """
    words = {"case": asdict(case), "device": device, "batch": batch, "compiled": compiled}
    command = [sys.executable, "-m", "tests.bench.teacher_run", json.dumps(words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=Path(__file__).parents[2])
    if done.returncode:
        sys.exit(f"{case.name} on {device} ended with status {done.returncode}")
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure what argument 1 says."""
    words = json.loads(sys.argv[1])
    case, device = Case(**words.pop("case")), torch.device(words.pop("device"))
    print(json.dumps(asdict(measure(case, device, **words))))


if __name__ == "__main__":
    main()
