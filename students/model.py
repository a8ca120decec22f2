"""The student: pyramid of a backbone -> one fused map -> quality map and weight map -> their mean, the score."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pseudo_labels.errors import PocketiqaError
from students.backbone import build_backbone, channel_counts, stated_colours
from students.config import DP_IQA_B7, Colour, StudentConfig

# Every cell counts a little, so the weights never sum up to zero.
_LEAST_WEIGHT = 1e-3
_HEAD_STD = 1e-3


class StudentOutput(NamedTuple):
    """What a student says of a batch; without the first dimension where one image is spoken of.

    Attributes:
        score: float32 [B] in [0, 1], 1 best: the mean of ``quality_map`` weighted by ``weight_map``.
        quality_map: float32 [B, h, w] in [0, 1].
        weight_map: float32 [B, h, w], positive; only ratios within one image mean something.
        features: [B, head_width, h, w], the fused map, for feature distillation.
    """

    score: Tensor
    quality_map: Tensor
    weight_map: Tensor
    features: Tensor


class PocketStudent(nn.Module):
    """A compact no-reference quality model, fully convolutional: any size from 64 pixels up.

    Attributes:
        config: rebuilds the architecture; ``mean`` and ``std`` are resolved.
    """

    def __init__(self, config: StudentConfig, *, pretrained: bool = False):
        """Build the model with random weights, or with timm's pretrained ones from the hub.

        Raises:
            PocketiqaError: the backbone is unknown or no convolutional pyramid.
        """
        super().__init__()
        self.backbone = build_backbone(config, pretrained=pretrained)
        mean, std = stated_colours(config.backbone)
        self.config = replace(config, mean=config.mean or mean, std=config.std or std)
        self.normalise = Normalise(self.config.mean or mean, self.config.std or std)
        self.neck = _Neck(channel_counts(self.backbone), config)
        self.heads = nn.Conv2d(config.head_width, 2, 1)
        # A new student says about 0.5 everywhere, and weighs all cells about alike.
        nn.init.normal_(self.heads.weight, std=_HEAD_STD)
        if self.heads.bias is not None:
            nn.init.zeros_(self.heads.bias)

    def forward(self, rgb: Tensor) -> StudentOutput:
        """Score a batch of images of one size.

        Args:
            rgb: uint8 [B, H, W, 3], sides of 64 and more, resized by ``config.preprocess``.

        Raises:
            PocketiqaError: another type or number of dimensions, such as an image that was normalised already.
        """
        if rgb.dtype != torch.uint8 or rgb.ndim != 4:
            raise PocketiqaError(
                f"a batch is {rgb.dtype} of shape {tuple(rgb.shape)}, but uint8 [B, H, W, 3] is needed"
            )
        features = self.neck(self.backbone(self.normalise(rgb)))
        logits = self.heads(features).float()
        quality = logits[:, 0].sigmoid()
        weight = logits[:, 1].sigmoid() + _LEAST_WEIGHT
        score = (quality * weight).sum((1, 2)) / weight.sum((1, 2))
        return StudentOutput(score, quality, weight, features)


class Normalise(nn.Module):
    """uint8 [B, H, W, 3] -> float [B, 3, H, W]. The constants are no weights, so they stay out of the state dict.

    Args:
        mean: subtracted from RGB in [0, 1].
        std: divides it.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, mean: Colour, std: Colour):
        super().__init__()
        # x / 255 / std - mean / std, computed in float64 once.
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        shift = torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.register_buffer("scale", scale.float().view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.float().view(1, 3, 1, 1), persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        """Normalise a batch."""
        return rgb.permute(0, 3, 1, 2).float() * self.scale - self.shift


def _conv_bn_relu(inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class _Neck(nn.Module):
    """Feature maps of several strides -> one map of the grid's stride.

    Each level is reduced and rectified at its own resolution, then averaged over the cells of the grid: rectified
    first, because the mean of a linear map forgets how strongly it varies within the cell, which is what noise is.
    """

    def __init__(self, channels: Sequence[int], config: StudentConfig):
        super().__init__()
        self.levels, self.grid, width = config.levels, config.grid, config.head_width
        self.reduce = nn.ModuleList(_conv_bn_relu(count, width) for count in channels)
        self.fuse = nn.Sequential(
            _conv_bn_relu(width * len(channels), width),
            _conv_bn_relu(width, width, kernel=3, groups=width),
            _conv_bn_relu(width, width),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        grid_size = maps[self.levels.index(self.grid)].shape[-2:]
        reduced = []
        for level, reduce, found in zip(self.levels, self.reduce, maps, strict=True):
            level_map = reduce(found)
            if level < self.grid:
                level_map = functional.avg_pool2d(level_map, self.grid // level)
            if level != self.grid:
                # Finer maps have the right size already, save for odd images, where they may lack a row.
                level_map = functional.interpolate(level_map, size=grid_size, mode="bilinear", align_corners=False)
            reduced.append(level_map)
        return self.fuse(torch.cat(reduced, dim=1))


def check_start(config: StudentConfig, *, init: str | Path | None = None, pretrained: bool = False) -> None:
    """Refuse first weights that a student cannot have.

    Args:
        config: of the student.
        init: file with weights of the backbone.
        pretrained: whether timm's weights are wanted.

    Raises:
        PocketiqaError: both are given, or either for ``DP_IQA_B7``.
    """
    if init is not None and pretrained:
        raise PocketiqaError(f"init is {str(init)!r} and pretrained is True: only one can say where weights come from")
    if config.backbone == DP_IQA_B7 and (init is not None or pretrained):
        given = "pretrained is True" if init is None else f"init is {str(init)!r}"
        raise PocketiqaError(
            f"{given}, but {DP_IQA_B7} has no backbone of timm's: leave it out and start from random weights; its "
            "authors' checkpoint is read by students.dp_iqa_b7.load_official_student"
        )


def freeze_parts(student: nn.Module, names: Sequence[str]) -> None:
    """Exclude parts from training.

    Args:
        student: any.
        names: of its modules, such as ``backbone.blocks.0``.

    Raises:
        PocketiqaError: it has no such part.
    """
    parts = {name: part for name, part in student.named_modules() if name}
    for name in names:
        if name not in parts:
            known = [name for name, part in parts.items() if name.count(".") < 3 and _learns(part)]
            raise PocketiqaError(f"freeze names {name!r}, but the student's parts are {', '.join(known)}")
        parts[name].requires_grad_(False)


def _learns(part: nn.Module) -> bool:
    return next(part.parameters(), None) is not None


def new_student(config: StudentConfig, *, seed: int = 0, pretrained: bool = False) -> PocketStudent:
    """Build a student from a seed of its own: equal arguments give equal weights, the global generator is untouched.

    Raises:
        PocketiqaError: see ``PocketStudent`` and ``check_start``.
    """
    check_start(config, pretrained=pretrained)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.backbone == DP_IQA_B7:
            from students.dp_iqa_b7 import DpIqaB7

            return DpIqaB7(config)
        return PocketStudent(config, pretrained=pretrained)


def score_images(student: PocketStudent, images: Sequence[np.ndarray], *, batch_size: int = 16) -> list[StudentOutput]:
    """Score images of any sizes, those of one size in batches, without gradients and in evaluation mode.

    Args:
        student: left in the mode it was in.
        images: uint8 HxWx3; resized here as the student's configuration says.
        batch_size: at most so many at once; the scores do not depend on it.

    Returns:
        One output an image, in order, without the batch dimension, on the CPU.

    Raises:
        PocketiqaError: an image of another type or shape.
    """
    if batch_size < 1:
        raise PocketiqaError(f"batch_size is {batch_size}, but at least 1 is needed")
    resized = [student.config.preprocess.resize(image) for image in images]
    by_size: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(resized):
        by_size.setdefault(image.shape, []).append(index)
    outputs: dict[int, StudentOutput] = {}
    was_training = student.training
    student.eval()
    try:
        for indices in by_size.values():
            for start in range(0, len(indices), batch_size):
                some = indices[start : start + batch_size]
                outputs |= zip(some, _score_batch(student, [resized[index] for index in some]), strict=True)
    finally:
        student.train(was_training)
    return [outputs[index] for index in range(len(images))]


@torch.inference_mode()
def _score_batch(student: PocketStudent, images: Sequence[np.ndarray]) -> list[StudentOutput]:
    batch = torch.from_numpy(np.stack(images)).to(student.normalise.scale.device)
    output = StudentOutput(*(value.cpu() for value in student(batch)))
    return [StudentOutput(*(value[index] for value in output)) for index in range(len(images))]
