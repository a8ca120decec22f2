"""The student: pyramid of a backbone -> one fused map -> quality map and weight map -> their mean, the score."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pseudo_labels.errors import PocketiqaError
from students.backbone import build_backbone, channel_counts, stated_colours
from students.base import Normalise, Student, StudentOutput, check_batch
from students.config import StudentConfig
from students.formats.halves import widened
from students.region_head import RegionHead, conv_bn_relu
from students.session import REGION_OUTPUTS, read_model, verify_checksum

EXPORTED = ".onnx"
"""Suffix of exported students."""
# Every cell counts a little, so the weights never sum up to zero.
_LEAST_WEIGHT = 1e-3
# Standard deviation of the heads' first weights: small, so that the sigmoids start where their slope is largest.
_HEAD_STD = 1e-3


class PocketStudent(Student):
    """A compact no-reference quality model, fully convolutional: any size from 64 pixels up.

    Attributes:
        config: architecture, with ``mean`` and ``std`` filled in; rebuilds the student without its weights.
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
        channels = dict(zip(config.feature_levels, channel_counts(self.backbone), strict=True))
        self.neck = _Neck([channels[level] for level in config.levels], config)
        self.heads = nn.Conv2d(config.head_width, 2, 1)
        # A new student scores about 0.5 everywhere, and gives all cells about the same weight.
        nn.init.normal_(self.heads.weight, std=_HEAD_STD)
        if self.heads.bias is not None:
            nn.init.zeros_(self.heads.bias)
        # Last: all other weights of a seed are those of the student without it.
        self.regions = None if config.regions is None else RegionHead(channels, config.regions, self.config.std or std)

    def forward(self, rgb: Tensor) -> StudentOutput:
        """Score a batch of images of one size.

        Args:
            rgb: uint8 [B, H, W, 3], sides of 64 and more, resized by ``config.preprocess``.

        Raises:
            PocketiqaError: another type or number of dimensions, such as an image that was normalised already.
        """
        check_batch(rgb)
        return self.of_pixels(self.normalise(rgb))

    def of_pixels(self, pixels: Tensor) -> StudentOutput:
        """Score images that are normalised already.

        Args:
            pixels: float32 [B, 3, H, W], as ``normalise`` gives them.
        """
        maps = dict(zip(self.config.feature_levels, self.backbone(pixels), strict=True))
        features = self.neck([maps[level] for level in self.config.levels])
        quality, weight = quality_and_weight(self.heads(features))
        # A mean, not a sum: the number of cells, and with it the size of the image, does not change the scale.
        score = (quality * weight).sum((1, 2)) / weight.sum((1, 2))
        regions = () if self.regions is None else quality_and_weight(self.regions(maps, pixels))
        return StudentOutput(score, quality, weight, features, *regions)


def quality_and_weight(logits: Tensor) -> tuple[Tensor, Tensor]:
    """[B, 2, h, w] of any sign -> [B, h, w] in [0, 1], and [B, h, w] positive."""
    # float32 from here on, also under autocast: in bfloat16, scores near 1 would move in steps of 0.004.
    logits = logits.float()
    return logits[:, 0].sigmoid(), logits[:, 1].sigmoid() + _LEAST_WEIGHT


class _Neck(nn.Module):
    """Feature maps of several strides -> one map of one stride.

    Each level is reduced and rectified at its own resolution, then averaged over the cells of that map: rectified
    first, because the mean of a linear map forgets how strongly it varies within the cell, which is what noise is.

    Attributes:
        fixed_factors: whether sides are multiples of every stride. Coarser maps are then enlarged by a fixed factor,
            not to the size of another map, which some converters cannot express; the values are the same.
    """

    def __init__(self, channels: Sequence[int], config: StudentConfig):
        super().__init__()
        self.levels, self.map_stride, width = config.levels, config.map_stride, config.head_width
        self.fixed_factors = False
        self.reduce = nn.ModuleList(conv_bn_relu(count, width) for count in channels)
        self.fuse = nn.Sequential(
            conv_bn_relu(width * len(channels), width),
            conv_bn_relu(width, width, kernel=3, groups=width),
            conv_bn_relu(width, width),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        map_size = maps[self.levels.index(self.map_stride)].shape[-2:]
        reduced = []
        for level, reduce, feature_map in zip(self.levels, self.reduce, maps, strict=True):
            level_map = reduce(feature_map)
            if level < self.map_stride:
                level_map = functional.avg_pool2d(level_map, self.map_stride // level)
            if self.fixed_factors:
                level_map = _enlarged(level_map, max(1, level // self.map_stride))
            elif level != self.map_stride:
                # Finer maps have the right size already, save for odd images, where they may lack a row.
                level_map = functional.interpolate(level_map, size=map_size, mode="bilinear", align_corners=False)
            reduced.append(level_map)
        return self.fuse(torch.cat(reduced, dim=1))


def _enlarged(level_map: Tensor, factor: int) -> Tensor:
    if factor == 1:
        return level_map
    return functional.interpolate(level_map, scale_factor=float(factor), mode="bilinear", align_corners=False)


def load_exported_weights(student: PocketStudent, path: Path) -> None:
    """Go on from an exported student: all its weights, so that the student gives the same scores (in evaluation mode).

    Exporting folds batch normalisation into the convolution before it. Here the folded weights become those of the
    convolution, and the normalisation becomes one that only adds the folded bias; training may change both again.

    Args:
        student: student of the same architecture.
        path: file that ``pocketiqa export`` wrote; where it has no region head, that of the student stays as it is.

    Raises:
        PocketiqaError: no such file, or a student of another architecture.
        IntegrityError: the file was altered.
    """
    # Beside torch only: the runtime, which scores without torch, does not need it.
    import onnx

    data = read_model(path)
    verify_checksum(data, str(path))
    load_graph_weights(student, onnx.load_from_string(data), str(path))


def load_graph_weights(student: PocketStudent, model: Any, name: str) -> None:
    """``load_exported_weights`` of a graph that is open already.

    Args:
        student: as there.
        model: ``onnx.ModelProto``, left as it is.
        name: name of its file in an error.

    Raises:
        PocketiqaError: a student of another architecture.
    """
    from onnx import numpy_helper

    graph = widened(model).graph
    arrays = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    # Equal tensors, such as biases that were not trained yet, are stored once.
    arrays |= {node.output[0]: arrays[node.input[0]] for node in graph.node if _repeats(node, arrays)}
    given = [_weight_and_bias(node, arrays) for node in graph.node if node.op_type == "Conv"]
    own = _convolutions(student)
    of_regions = set() if student.regions is None else set(student.regions.modules())
    of_score = [pair for pair in own if pair[0] not in of_regions]
    # Those of a region head are computed last, there and here.
    if not {one.name for one in graph.output} & set(REGION_OUTPUTS):
        own = of_score
    elif not of_regions:
        given = given[: len(own)]
    if len(given) != len(own) or any(
        weight is None or weight.shape != tuple(conv.weight.shape) or (bias is None) != (conv.bias is norm is None)
        for (weight, bias), (conv, norm) in zip(given, own, strict=False)
    ):
        raise PocketiqaError(
            f"{name} has {len(given)} convolutions, which are not the {len(own)} of this student: it is another "
            "architecture, or a file in 8 bits; name its preset as student.name"
        )
    with torch.no_grad():
        for (weight, bias), (conv, norm) in zip(given, own, strict=True):
            conv.weight.copy_(torch.tensor(weight))
            if bias is None:
                continue
            if norm is None:
                conv.bias.copy_(torch.tensor(bias))
                continue
            norm.bias.copy_(torch.tensor(bias))
            norm.weight.fill_(1.0)
            norm.running_mean.zero_()
            norm.running_var.fill_(_variance_of_one(norm.eps))


def _weight_and_bias(node: Any, arrays: Mapping[str, Any]) -> tuple[Any, Any]:
    names = [*node.input[1:3], ""]
    return arrays.get(names[0]), arrays.get(names[1])


def _repeats(node: Any, arrays: Mapping[str, Any]) -> bool:
    return node.op_type == "Identity" and node.input[0] in arrays


def _variance_of_one(eps: float) -> float:
    """The variance that ``eps`` makes exactly 1 in float32: 1 - eps may miss it by a rounding, which moves scores."""
    variance = torch.tensor(1.0 - eps)
    for candidate in (variance, torch.nextafter(variance, torch.tensor(2.0)), torch.nextafter(variance, -variance)):
        if candidate + eps == 1.0:
            return float(candidate)
    return float(variance)


def _convolutions(student: PocketStudent) -> list[tuple[Any, Any]]:
    """Each convolution with the batch normalisation behind it (or None), in the order in which they are computed."""
    order: list[nn.Module] = []
    parts = [part for part in student.modules() if isinstance(part, nn.Conv2d | nn.BatchNorm2d)]
    hooks = [part.register_forward_hook(lambda part, _inputs, _output: order.append(part)) for part in parts]
    was_training = student.training
    try:
        with torch.no_grad():
            student.eval()(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    finally:
        student.train(was_training)
        for hook in hooks:
            hook.remove()
    pairs: list[tuple[Any, Any]] = []
    for part in order:
        if isinstance(part, nn.Conv2d):
            pairs.append((part, None))
        else:
            pairs[-1] = (pairs[-1][0], part)
    return pairs
