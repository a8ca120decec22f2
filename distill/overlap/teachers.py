"""Features of teachers, registered or fitted."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.overlap.describer import Describer, chosen
from teachers.base import check_output
from teachers.launch import current_launch
from teachers.registry import build_teacher


def teacher_describer(name: str, options: Mapping[str, Any], feature: str | None, device: str) -> Describer:
    """A teacher by its name, or a fitted one by its folder.

    Raises:
        PocketiqaError: it cannot be built, or has no such feature.
    """
    teacher = build_teacher(name, **options)
    wanted = chosen(feature, tuple(teacher.feature_names), name)
    teacher.to(current_launch(device).device)

    @torch.inference_mode()
    def describe(rgb: np.ndarray, reference: np.ndarray | None) -> np.ndarray:
        output = teacher([teacher.preprocess(rgb, reference)])
        return pooled(check_output(output, 1, (wanted,), name).features[wanted])

    identity = {"stamp": teacher.stamp.digest, "feature": wanted}
    return Describer(teacher.stamp.name, "teacher", wanted, identity, describe, teacher.needs_reference)


def pooled(features: Tensor) -> np.ndarray:
    """What a teacher says of one image as a vector: maps [1, C, h, w] and tokens [1, T, C] averaged over their places.

    A map of one channel is laid out flat: its mean would say nothing of what an image shows.

    Returns:
        float32 [D].
    """
    found = features.detach().float().cpu()
    if found.ndim == 4 and found.shape[1] > 1:
        found = found.mean((2, 3))
    elif found.ndim == 3:
        found = found.mean(1)
    return found.flatten().numpy()
