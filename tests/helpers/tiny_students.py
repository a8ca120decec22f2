"""A student small enough to build, settle and export in a second, and real photographs to feed it."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from torch import nn

from students.base import Student
from students.config import StudentConfig
from students.export import ExportReport, draft_contract, export_onnx
from students.model import PocketStudent
from students.preprocess import Preprocess
from students.registry import build_student

TINY = StudentConfig("test_efficientnet", head_width=8, preprocess=Preprocess(max_side=128))


@cache
def photographs() -> tuple[np.ndarray, ...]:
    """Three real photographs of different sizes (two landscape, one square), at most 320 pixels wide."""
    images = (skimage.data.astronaut()[::2, ::2], skimage.data.coffee()[::2, ::2], skimage.data.chelsea())
    return tuple(np.ascontiguousarray(image[:, :320]) for image in images)


def settle(student: Student) -> PocketStudent:
    """Give batch normalisation the statistics of real photographs, and the heads weights that make scores differ."""
    assert isinstance(student, PocketStudent)
    norms = [module for module in student.modules() if isinstance(module, nn.BatchNorm2d)]
    batch = np.stack([Preprocess(128).resize(image)[:64, :128] for image in photographs()])
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        student.train()(torch.from_numpy(batch))
        features = student.eval()(torch.from_numpy(batch)).features
        # Logits of about 2, as those of a trained student.
        torch.manual_seed(0)
        nn.init.normal_(student.heads.weight, std=2 / float(features.square().sum(1).mean().sqrt()))
    for norm in norms:
        norm.momentum = 0.1
    return student


def tiny_student(config: StudentConfig = TINY) -> PocketStudent:
    """A settled student with fixed weights."""
    return settle(build_student(config, seed=1))


def export_tiny(out: Path, student: Student | None = None, **contract: Any) -> ExportReport:
    """Export a student (the tiny one) as ONNX."""
    student = student or tiny_student()
    draft = draft_contract(student, name="tiny", scale="none", **contract)
    return export_onnx(student, draft, out, images=photographs()[:2])
