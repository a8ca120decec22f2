from pathlib import Path

import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from students.complexity import count_parameters, measure_complexity, peak_memory_bytes
from students.registry import build_student
from tests.helpers.tiny_students import TINY


def _macs_by_hooks(height: int, width: int) -> int:
    """Counted from the shapes of each convolution: outputs x inputs under the kernel."""
    student = build_student(TINY).eval()
    total = 0

    def count(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, torch.nn.Conv2d):
            total += output.numel() * module.weight[0].numel()

    for module in student.modules():
        module.register_forward_hook(count)
    with torch.inference_mode():
        student(torch.zeros(1, height, width, 3, dtype=torch.uint8))
    return total


def test_macs_agree_with_a_count_by_layers() -> None:
    complexity = measure_complexity(build_student(TINY), 96, 160)
    assert complexity.macs == _macs_by_hooks(96, 160)
    assert (complexity.height, complexity.width) == (96, 160)


def test_default_size_is_the_largest_input_and_the_mode_stays() -> None:
    student = build_student(TINY).train()
    complexity = measure_complexity(student)
    assert (complexity.height, complexity.width) == (128, 128)
    assert student.training
    expected = sum(value.numel() for name, value in student.state_dict().items() if "running" not in name)
    counters = sum(name.endswith("num_batches_tracked") for name in student.state_dict())
    assert complexity.parameters == count_parameters(student) == expected - counters


def test_peak_memory_is_that_of_scoring_alone(tiny_onnx: Path, photo_files: list[Path]) -> None:
    # This very process holds torch and is larger; numpy, Pillow and ONNX Runtime take about 60 MB.
    assert 20e6 < peak_memory_bytes(tiny_onnx, photo_files) < 200e6


def test_peak_memory_of_a_failed_run_says_why(tiny_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(PocketiqaError, match=r"scoring 1 images .* failed: .*no such file"):
        peak_memory_bytes(tiny_onnx, [tmp_path / "nowhere.jpg"])
