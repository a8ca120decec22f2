"""A small QFM-IQM with random weights, and images for it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from teachers.qfm_iqm import QfmIqm, QfmIqmTeacher, build_qfm_iqm
from teachers.qfm_iqm.noise import Entries
from teachers.qfm_iqm.tokens import Tokens

TINY: dict[str, Any] = {"pretrained": False, "max_side_px": 96, "cells": 3, "width": 16, "heads": 2}


def tiny(**options: Any) -> QfmIqmTeacher:
    """A teacher with a convolutional backbone by default, whose score clearly depends on the image."""
    chosen: dict[str, Any] = {"backbone": "test_efficientnet"} | TINY | options
    teacher = build_qfm_iqm(**chosen)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        weight = teacher.model.decoder.head.weight
        weight.copy_(0.03 * torch.randn(weight.shape, generator=generator))
    return teacher


def picture(seed: int, height: int = 80, width: int = 96) -> np.ndarray:
    """Coarse blocks of random colours, with another contrast for each seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3))
    fine = np.kron(coarse, np.ones((8, 8, 1)))[:height, :width]
    return (128 + (fine - 128) * rng.uniform(0.2, 1)).astype(np.uint8)


def batch(teacher: QfmIqmTeacher, images: list[np.ndarray]) -> Tensor:
    """Images as the model takes them, uint8 [B, 3, H, W]."""
    items = [teacher.preprocess(image, None) for image in images]
    return torch.stack([item for item in items if isinstance(item, Tensor)])


def remembered(count: int = 12) -> tuple[QfmIqm, Tokens, Entries]:
    """A tiny model, tokens of three images, and a memory of others."""
    teacher = tiny()
    with torch.no_grad():
        own = teacher.model.encode(batch(teacher, [picture(seed) for seed in range(3)]))
        others = teacher.model.encode(batch(teacher, [picture(seed) for seed in range(10, 10 + count)]))
    scores = torch.linspace(0, 0.9, count)
    return teacher.model, own, Entries(others.semantics, others.features, scores)
