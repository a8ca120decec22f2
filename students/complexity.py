"""The costs of a student: parameters, multiply-accumulates, and peak memory while it scores."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pseudo_labels.errors import PocketiqaError
from students.base import Student

# Runs in an interpreter of its own; argument 1 is the model, the others are images. VmHWM is the peak of this very
# program; getrusage's figure, the only one elsewhere, may be the peak of the process that started it.
_PEAK_PROGRAM = """
import resource, sys
from students.runtime import Scorer
scorer = Scorer(sys.argv[1])
for path in sys.argv[2:]:
    scorer.score(path)
if sys.platform == "linux":
    lines = open("/proc/self/status").read().splitlines()
    print(1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))))
else:
    unit = 1 if sys.platform == "darwin" else 1024
    print(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@dataclass(frozen=True)
class Complexity:
    """The static costs of a student.

    Attributes:
        parameters: number of trained values, without batch statistics.
        macs: multiply-accumulates of convolutions and matrix products for one image.
        height: height of that image in pixels.
        width: width of that image in pixels.
    """

    parameters: int
    macs: int
    height: int
    width: int


def count_parameters(module: nn.Module) -> int:
    """Number of trained values of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def measure_complexity(student: Student, height: int | None = None, width: int | None = None) -> Complexity:
    """Count parameters and MACs; without a size, for a square image of the configuration's ``max_side``."""
    side = student.config.preprocess.max_side
    height, width = height or side, width or side
    device = next(student.parameters()).device
    was_training = student.training
    counter = FlopCounterMode(display=False)
    try:
        with torch.inference_mode(), counter:
            # Zeros: the counter looks at shapes alone.
            student.eval()(torch.zeros(1, height, width, 3, dtype=torch.uint8, device=device))
    finally:
        student.train(was_training)
    # The counter's unit is the floating-point operation: two for each multiply-accumulate.
    return Complexity(count_parameters(student), counter.get_total_flops() // 2, height, width)


def peak_memory_bytes(model: Path, images: list[Path]) -> int:
    """Peak resident memory of a fresh process that loads an exported model and scores images one by one.

    Raises:
        PocketiqaError: the process failed; the message holds the last line it wrote.
    """
    # A fresh process: in this one, torch and earlier work would be part of the peak.
    command = [sys.executable, "-c", _PEAK_PROGRAM, str(model), *map(str, images)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_with_our_packages())
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise PocketiqaError(f"scoring {len(images)} images with {model} failed: {last}")
    return int(done.stdout)


def _with_our_packages() -> dict[str, str]:
    """The environment, such that a new interpreter finds the packages this one runs."""
    ours = str(Path(__file__).parents[1])
    others = os.environ.get("PYTHONPATH")
    # First in the path, before an installed pocketiqa of another version.
    return {**os.environ, "PYTHONPATH": f"{ours}{os.pathsep}{others}" if others else ours}
