"""DP-IQA's published student around EfficientNet-B0 in place of B7: the same code on a faster backbone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import efficientnet_b0

from students.base import score_images
from students.config import dp_iqa_b7_config
from students.dp_iqa_b7 import DpIqaB7
from students.registry import new_student
from tests.helpers.tiny_students import photographs


def take_b0(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on and for this test, ``DpIqaB7`` is built around B0."""
    monkeypatch.setattr("students.dp_iqa_b7.efficientnet_b7", efficientnet_b0)
    monkeypatch.setattr("students.dp_iqa_b7._FEATURES", 1280)


def photograph_batch() -> Tensor:
    """Crops of photographs, uint8 [18, 64, 64, 3]."""
    crops = [image[y : y + 64, x : x + 64] for image in photographs() for y in (0, 60, 120) for x in (20, 140)]
    return torch.from_numpy(np.stack(crops))


def settle(features: nn.Module) -> nn.Module:
    """Give batch normalisation the statistics of photographs; without them the features vanish with depth."""
    features.eval()  # stochastic depth would leave out blocks
    for module in features.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train().momentum = 1.0
    with torch.no_grad():
        features(photograph_batch().permute(0, 3, 1, 2) / 255)
        for module in features.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
                # Channels that are nearly constant here would turn rounding into noise on other images.
                module.running_var.clamp_(min=float(module.running_var.mean()))
    return features.eval()


def settled_student(max_side: int = 64) -> DpIqaB7:
    """A student whose scores of photographs differ and lie within (0, 1); around B0 after ``take_b0``."""
    student = new_student(dp_iqa_b7_config(max_side), seed=1).eval()
    assert isinstance(student, DpIqaB7)
    settle(student.base_model["features"])
    with torch.no_grad():
        student.fc3.weight.mul_(0.2)
        student.fc3.bias.add_(0.5 - raw_score(student, photographs()[0]))
    return student


def raw_score(student: DpIqaB7, image: np.ndarray) -> float:
    """The student's score before it is clamped to [0, 1]."""
    features = score_images(student, [image])[0].features
    with torch.no_grad():
        hidden = student.fc2(student.fc1(features.flatten()).relu()).relu()
        return float(student.fc3(hidden))


def write_checkpoint(student: DpIqaB7, path: Path) -> Path:
    """Save a student in the format of the checkpoints of DP-IQA's authors."""
    torch.save({f"module.{name}": value for name, value in student.state_dict().items()}, path)
    return path
