"""Attacks on a student: changes that nobody sees, made to raise its score."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.trust.definitions import EPSILONS, PGD_STEPS
from pseudo_labels.crops import generator
from students.base import Student

METHODS = ("random", "fgsm", "pgd")
LABELS = tuple(f"{method} {epsilon}" for epsilon in EPSILONS for method in METHODS)
STRONGEST = LABELS[-1]
# As a part of the largest change, so that several steps reach it and later ones turn back.
_STEP_PART = 0.25
_LARGEST = 255


def attacked(student: Student, rgb: np.ndarray, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Attacked versions of a picture, by label, such as ``pgd 4``.

    Goodfellow, Shlens and Szegedy, ICLR 2015, eq. 1 (FGSM); Madry et al., ICLR 2018, eq. 1 (PGD; here from the
    picture itself, without a random start, so that equal inputs give equal pictures).

    Args:
        student: the network, in evaluation mode.
        rgb: uint8 HxWx3 of the network's input size.
        name: name of the picture, which the random signs follow from.

    Yields:
        Label and uint8 HxWx3, no pixel farther from ``rgb`` than the number in the label.
    """
    first = _slope(student, rgb, rgb.astype(np.float32))
    for epsilon in EPSILONS:
        signs = generator("trust", name, epsilon).integers(0, 2, rgb.shape) * 2 - 1
        yield f"random {epsilon}", _bytes(rgb + epsilon * signs)
        yield f"fgsm {epsilon}", _bytes(rgb + epsilon * first)
        yield f"pgd {epsilon}", _bytes(_projected_steps(student, rgb, epsilon, first))


def _projected_steps(student: Student, rgb: np.ndarray, epsilon: int, first: np.ndarray) -> np.ndarray:
    low, high = np.maximum(rgb - float(epsilon), 0), np.minimum(rgb + float(epsilon), _LARGEST)
    pixels, slope = rgb.astype(np.float32), first
    for step in range(PGD_STEPS):
        pixels = np.clip(pixels + _STEP_PART * epsilon * slope, low, high).astype(np.float32)
        if step + 1 < PGD_STEPS:
            slope = _slope(student, rgb, pixels)
    return pixels


def _bytes(pixels: np.ndarray) -> np.ndarray:
    # The largest change is a whole number, so that rounding never leaves it.
    return np.clip(np.rint(pixels), 0, _LARGEST).astype(np.uint8)


def _slope(student: Student, rgb: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Sign of the gradient of the score at ``pixels``, float32 HxWx3 in 0 to 255."""
    leaf = torch.from_numpy(pixels)[None].requires_grad_(True)

    # A student takes bytes, which have no gradient: what it normalises is replaced by the same pixels as floats.
    def replaced(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return module.forward(leaf)

    hook = student.normalise.register_forward_hook(replaced)
    try:
        with torch.enable_grad():
            student(torch.from_numpy(np.ascontiguousarray(rgb))[None]).score.sum().backward()
    finally:
        hook.remove()
    if leaf.grad is None:
        raise RuntimeError("the student does not normalise its pixels by its own module")
    return leaf.grad[0].sign().numpy()
