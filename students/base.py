"""The interface of every student, for training, storage, scoring and export, and the code of all students."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pseudo_labels.errors import PocketiqaError
from students.config import Colour, StudentConfig


class StudentOutput(NamedTuple):
    """A student's output for a batch of images; for a single image, without the first dimension.

    Attributes:
        score: float32 [B] in [0, 1], 1 best: the mean of ``quality_map`` weighted by ``weight_map``.
        quality_map: float32 [B, h, w] in [0, 1].
        weight_map: float32 [B, h, w], positive; only ratios within one image mean something.
        features: [B, head_width, h, w], the fused map, for feature distillation.
        region_quality_map: float32 [B, h', w'] in [0, 1], of a student with a region head (``config.regions``).
        region_weight_map: float32 [B, h', w'], positive, of the same.
    """

    score: Tensor
    quality_map: Tensor
    weight_map: Tensor
    features: Tensor
    region_quality_map: Tensor | None = None
    region_weight_map: Tensor | None = None

    @property
    def embedding(self) -> Tensor | None:
        """float32 [B, head_width], the mean of ``features`` weighted as the score is.

        None of a student whose features and maps have different cells. Of a single image, [head_width].
        """
        if self.features.shape[-2:] != self.weight_map.shape[-2:]:
            return None
        weight = self.weight_map.unsqueeze(-3)
        return (self.features.float() * weight).sum((-2, -1)) / weight.sum((-2, -1))

    def of_each(self, function: Callable[[Tensor], Tensor]) -> "StudentOutput":
        """The same of every part; what is None stays so."""
        parts: dict[str, Any] = {
            name: None if value is None else function(value) for name, value in self._asdict().items()
        }
        return StudentOutput(**parts)

    @property
    def region_maps(self) -> tuple[Tensor, Tensor]:
        """Quality and weight map that regions are read from: those of the region head, if there is one."""
        if self.region_quality_map is None or self.region_weight_map is None:
            return self.quality_map, self.weight_map
        return self.region_quality_map, self.region_weight_map


class Student(nn.Module, ABC):
    """A no-reference quality model that takes uint8 images and needs nothing else.

    Attributes:
        config: architecture and resize of the images; rebuilds the student without its weights.
        normalise: maps uint8 pixels to the floats that the network computes with.
    """

    config: StudentConfig
    normalise: "Normalise"

    @abstractmethod
    def forward(self, rgb: Tensor) -> StudentOutput:
        """Score a batch of images of one size.

        Args:
            rgb: uint8 [B, H, W, 3], resized by ``config.preprocess``.

        Raises:
            PocketiqaError: another type or number of dimensions, such as an image that was normalised already.
        """

    def __call__(self, rgb: Tensor) -> StudentOutput:
        """Score a batch through torch's hooks; see ``forward``."""
        return super().__call__(rgb)


def check_batch(rgb: Tensor) -> None:
    """Refuse what is no batch of images.

    Raises:
        PocketiqaError: the type is not uint8, or there are not four dimensions.
    """
    if rgb.dtype != torch.uint8 or rgb.ndim != 4:
        raise PocketiqaError(f"a batch is {rgb.dtype} of shape {tuple(rgb.shape)}, but uint8 [B, H, W, 3] is needed")


class Normalise(nn.Module):
    """uint8 [B, H, W, 3] -> float [B, 3, H, W]. The constants are no weights, so they stay out of the state dict.

    Args:
        mean: mean of each colour, subtracted from RGB in [0, 1].
        std: standard deviation of each colour, in the same unit; it divides the difference.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, mean: Colour, std: Colour):
        super().__init__()
        # (x / 255 - mean) / std as one product and one difference, the constants rounded once, from float64.
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        shift = torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.register_buffer("scale", scale.float().view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.float().view(1, 3, 1, 1), persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        """Normalise a batch."""
        # Inside the model, so that training, torch and the exported graph agree on it, and bytes travel as uint8.
        return rgb.permute(0, 3, 1, 2).float() * self.scale - self.shift


def freeze_parts(student: nn.Module, names: Sequence[str]) -> None:
    """Exclude parts from training.

    Args:
        student: any module.
        names: names of its submodules, such as ``backbone.blocks.0``.

    Raises:
        PocketiqaError: a name that no submodule has; the message gives the names that can be frozen.
    """
    parts = {name: part for name, part in student.named_modules() if name}
    for name in names:
        if name not in parts:
            # Deeper names would fill the screen.
            known = [name for name, part in parts.items() if name.count(".") < 3 and _learns(part)]
            raise PocketiqaError(f"freeze names {name!r}, but the student's parts are {', '.join(known)}")
        # Gradients alone; the training loop also keeps frozen parts in evaluation mode, for batch normalisation's sake.
        parts[name].requires_grad_(False)


def _learns(part: nn.Module) -> bool:
    return next(part.parameters(), None) is not None


def score_images(student: Student, images: Sequence[np.ndarray], *, batch_size: int = 16) -> list[StudentOutput]:
    """Score images of any sizes, those of one size in batches, without gradients and in evaluation mode.

    Args:
        student: student on any device; its mode (training or evaluation) is restored.
        images: uint8 HxWx3; resized here as the student's configuration says.
        batch_size: largest number of images in one call of the network; scores do not depend on it.

    Returns:
        One output an image, in order, without the batch dimension, on the CPU.

    Raises:
        PocketiqaError: an image of another type or shape.
    """
    if batch_size < 1:
        raise PocketiqaError(f"batch_size is {batch_size}, but at least 1 is needed")
    resized = [student.config.preprocess.resize(image) for image in images]
    # Padding to a common size would change the scores.
    by_size: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(resized):
        by_size.setdefault(image.shape, []).append(index)
    outputs: dict[int, StudentOutput] = {}
    was_training = student.training
    student.eval()
    try:
        for indices in by_size.values():
            for start in range(0, len(indices), batch_size):
                chunk = indices[start : start + batch_size]
                outputs |= zip(chunk, _score_batch(student, [resized[index] for index in chunk]), strict=True)
    finally:
        student.train(was_training)
    return [outputs[index] for index in range(len(images))]


@torch.inference_mode()
def _score_batch(student: Student, images: Sequence[np.ndarray]) -> list[StudentOutput]:
    batch = torch.from_numpy(np.stack(images)).to(student.normalise.scale.device)
    output = student(batch).of_each(Tensor.cpu)
    return [output.of_each(itemgetter(index)) for index in range(len(images))]
