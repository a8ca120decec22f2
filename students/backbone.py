"""Any timm backbone by name, cut to the feature levels that a student uses and made ready for any image size."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from pseudo_labels.errors import PocketiqaError
from students.config import Colour, StudentConfig

# Height and width in pixels of the images that try out a new backbone. First multiples of every stride, and not equal,
# so that a backbone which confuses them is noticed; then sides that no stride divides, as photographs have them.
_PROBE = (64, 128)
_ODD_PROBE = (65, 99)
_HINT = "choose a convolutional backbone, such as mobilenetv4_conv_small (`timm.list_models()` names them all)"


def build_backbone(config: StudentConfig, *, pretrained: bool = False) -> nn.Module:
    """A module [B, 3, H, W] -> list of [B, C, H / stride, W / stride], one for each of ``config.feature_levels``.

    Raises:
        PocketiqaError: the name is unknown, the model is no convolutional pyramid that takes any size, or lacks one of
            the levels.
    """
    check_name(config.backbone)
    index_of = _index_of_strides(_create(config).feature_info)
    missing = sorted(set(config.feature_levels) - set(index_of))
    if missing:
        raise PocketiqaError(
            f"{config.backbone} has feature maps of the strides {sorted(index_of)}, but levels asks for {missing}: "
            f"change levels, or {_HINT}"
        )
    indices = [index_of[stride] for stride in config.feature_levels]
    backbone = _create_pretrained(config, indices) if pretrained else _create(config, out_indices=indices)
    if config.last_stage:
        _read_behind(backbone, config)
    _cut_unused_blocks(backbone)
    use_even_same(backbone)
    _accept_any_size(backbone, config)
    return backbone


def _index_of_strides(info: Any) -> dict[int, int]:
    """Stride to timm's index of the feature map that has it, which is not its position: some models hide the first.

    Args:
        info: timm's ``FeatureInfo`` of a model as it comes by default.
    """
    shown = [index % len(info.info) for index in info.out_indices]
    hidden = [index for index, one in enumerate(info.info) if index not in shown and one["module"]]
    # Where several maps have one stride, the deepest has seen the largest part of the image; of those that timm shows
    # by default, if it shows any: dict keeps the last.
    return {info.info[index]["reduction"]: index for index in [*hidden, *shown]}


def _create(config: StudentConfig, **options: Any) -> Any:
    try:
        return timm.create_model(config.backbone, features_only=True, **_options(config), **options)
    except TypeError as error:
        if config.pad_type and "pad_type" in str(error):
            raise PocketiqaError(f"{config.backbone} has no choice of padding: leave pad_type empty") from error
        raise _no_pyramid(config, error) from error
    except (AttributeError, AssertionError, RuntimeError, NotImplementedError) as error:
        raise _no_pyramid(config, error) from error


def _create_pretrained(config: StudentConfig, indices: list[int]) -> Any:
    """``_create`` with weights from timm's hub; the architecture was built once before, so only fetching can fail."""
    try:
        return timm.create_model(
            config.backbone, features_only=True, pretrained=True, out_indices=indices, **_options(config)
        )
    except Exception as error:  # the hub's client raises errors of several libraries
        reason = " ".join(str(error).split())[:160]
        raise PocketiqaError(
            f"timm could not fetch pretrained weights of {config.backbone} ({reason}): check the network and "
            "`timm.list_pretrained()`, or give a local file as init"
        ) from error


def _options(config: StudentConfig) -> dict[str, Any]:
    return {"pad_type": config.pad_type} if config.pad_type else {}


def check_name(name: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        PocketiqaError: timm has no such model; the message gives the most similar names.
    """
    # timm reads names with a colon or a slash as addresses, and would fetch them.
    if not set(name) & set(":/") and timm.is_model(name):
        return
    similar = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(similar)}?" if similar else "`timm.list_models()` names them all"
    raise PocketiqaError(f"timm has no backbone {name!r}: {hint}")


def stated_colours(name: str) -> tuple[Colour, Colour]:
    """Mean and standard deviation of RGB in [0, 1] that timm states for a backbone's pretrained weights."""
    stated = timm.get_pretrained_cfg(name)
    mean, std = (stated.mean, stated.std) if stated else ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return _colour(mean), _colour(std)


def _colour(values: Sequence[float]) -> Colour:
    red, green, blue = values
    return float(red), float(green), float(blue)


def channel_counts(backbone: Any) -> list[int]:
    """Channels of each feature map that ``build_backbone``'s module returns."""
    return [int(count) for count in backbone.feature_info.channels()]


def _no_pyramid(config: StudentConfig, error: Exception) -> PocketiqaError:
    reason = " ".join(str(error).split())[:120]
    return PocketiqaError(f"{config.backbone} gives no pyramid of feature maps ({reason}): {_HINT}")


def _read_behind(backbone: Any, config: StudentConfig) -> None:
    """Read the last level behind an earlier stage of the same stride than timm does.

    Raises:
        PocketiqaError: there is no such stage, it has another stride, or timm builds this family otherwise.
    """
    read = _stage_read_last(backbone)
    if read is None:
        raise PocketiqaError(f"{config.backbone} has no stages blocks.0, blocks.1, ...: leave last_stage out")
    info = backbone.feature_info.info
    last = backbone.feature_info.out_indices[-1]
    # Of the stages that timm lists as feature maps, the one before: behind it the last stride begins.
    before = info[last - 1]["stage"] if last > 0 else 0
    allowed = [f"blocks.{index}" for index in range(before, read + 1)]
    if config.last_stage not in allowed:
        raise PocketiqaError(
            f"last_stage is {config.last_stage!r}, but {config.backbone} has the stride {config.feature_levels[-1]} "
            f"behind {', '.join(allowed)}: name one of these"
        )
    index = allowed.index(config.last_stage) + before
    with torch.no_grad():
        channels = backbone.blocks[: index + 1](backbone.bn1(backbone.conv_stem(torch.zeros(1, 3, *_PROBE)))).shape[1]
    # timm keeps the stage of a map, counted from 1, in two places; both say what it returns.
    info[last] = {**info[last], "stage": index + 1, "module": config.last_stage, "num_chs": channels}
    backbone._stage_out_idx = {one["stage"]: one["index"] for one in backbone.feature_info.get_dicts()}


def _stage_read_last(backbone: Any) -> int | None:
    """Index of the stage behind which the last level is read, in timm's EfficientNet family; None in others."""
    # Known by name and form: where timm builds a family otherwise, nothing is cut, which costs time and no accuracy.
    names = str(backbone.feature_info.module_name()[-1]).split(".")
    is_known = isinstance(getattr(backbone, "blocks", None), nn.Sequential) and names[0] == "blocks" and len(names) == 2
    return int(names[1]) if is_known else None


def _cut_unused_blocks(backbone: Any) -> None:
    """Drop the stages behind the last level, which timm's EfficientNet family would still compute and train."""
    read = _stage_read_last(backbone)
    if read is not None:
        backbone.blocks = backbone.blocks[: read + 1]


def _accept_any_size(backbone: Any, config: StudentConfig) -> None:
    """Run small oblong images, which a model of one fixed size or with tokens instead of maps does not pass.

    A model that fails on sides which its strides do not divide, as those do that add maps of two strides, gets its
    images padded from then on.
    """
    maps = _probed(backbone, config, _PROBE)
    for level, channels, feature_map in zip(config.feature_levels, channel_counts(backbone), maps, strict=True):
        expected = (1, channels, _PROBE[0] // level, _PROBE[1] // level)
        if tuple(feature_map.shape) != expected:
            reason = f"stride {level} has the shape {tuple(feature_map.shape)}, not {expected}"
            raise _no_pyramid(config, ValueError(reason))
    try:
        _probed(backbone, config, _ODD_PROBE)
    except PocketiqaError:
        backbone.register_forward_pre_hook(_PadToMultiple(max(one["reduction"] for one in backbone.feature_info.info)))
        _probed(backbone, config, _ODD_PROBE)


def _probed(backbone: Any, config: StudentConfig, size: tuple[int, int]) -> list[Tensor]:
    was_training = backbone.training
    try:
        with torch.no_grad():
            return backbone.eval()(torch.zeros(1, 3, *size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise _no_pyramid(config, error) from error
    finally:
        backbone.train(was_training)


class _PadToMultiple:
    """A hook that repeats the last row and column of a batch until both sides are multiples; others stay as they are.

    Args:
        multiple: of pixels, the largest stride of the model.
    """

    def __init__(self, multiple: int):
        self._multiple = multiple

    def __call__(self, module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        """[B, C, H, W] -> [B, C, H', W']."""
        (images,) = inputs
        height, width = images.shape[-2:]
        # Without a branch, which the exporter would freeze as it was for the traced size.
        return functional.pad(images, (0, -width % self._multiple, 0, -height % self._multiple), mode="replicate")


def load_backbone_weights(backbone: nn.Module, path: Path) -> None:
    """Start from weights with timm's key names; those of the head and of stages that were cut off are ignored.

    Raises:
        PocketiqaError: the file is missing, not safetensors, or lacks tensors or has tensors of another shape.
    """
    try:
        given = load_file(path)
    except FileNotFoundError as error:
        raise PocketiqaError(f"no backbone weights at {path}: check the path given as init") from error
    except (SafetensorError, OSError) as error:
        raise PocketiqaError(f"the backbone weights at {path} are not a safetensors file ({error})") from error
    # timm's feature wrappers spell "stages.0" as "stages_0".
    by_name = {name.replace(".", "_"): tensor for name, tensor in given.items()}
    state = backbone.state_dict()
    tensors = {name: by_name[name.replace(".", "_")] for name in state if name.replace(".", "_") in by_name}
    # Files without batch normalisation's counter are common, and only training with momentum None reads it.
    missing = [name for name in state if name not in tensors and not name.endswith("num_batches_tracked")]
    if missing:
        raise PocketiqaError(
            f"{path} lacks {len(missing)} of the {len(state)} tensors of the backbone, first {missing[0]!r}: "
            "it was made for another model, or does not have timm's key names"
        )
    _copy(state, tensors, path)


def _copy(state: dict[str, Tensor], tensors: dict[str, Tensor], path: Path) -> None:
    # All shapes first: an error leaves the backbone as it was.
    for name, tensor in tensors.items():
        if state[name].shape != tensor.shape:
            raise PocketiqaError(
                f"{path} has the shape {tuple(tensor.shape)} for {name!r}, but the backbone needs "
                f"{tuple(state[name].shape)}: it was made for another model"
            )
    with torch.no_grad():
        for name, tensor in tensors.items():
            # In place and converted: weights in float16 become float32, as the backbone computes.
            state[name].copy_(tensor)


Pads = tuple[int, int, int, int]


class EvenSameConv2d(nn.Conv2d):
    """A strided convolution padded as TensorFlow pads an input whose sides the stride divides.

    TensorFlow's padding ("same") depends on the size of the input, and timm computes it anew for each. Here it is
    fixed, so that the exported graph takes any size; where the stride does not divide a side, it differs from timm's.
    """

    @property
    def pads(self) -> Pads:
        """Padding in pixels: top, left, bottom, right."""
        # What TensorFlow adds to a side that the stride divides; where it is odd, the larger half comes last.
        total = [
            max(dilation * (kernel - 1) + 1 - stride, 0)
            for kernel, stride, dilation in zip(self.kernel_size, self.stride, self.dilation, strict=True)
        ]
        before = [amount // 2 for amount in total]
        return before[0], before[1], total[0] - before[0], total[1] - before[1]

    def forward(self, input: Tensor) -> Tensor:
        """Convolve [B, C, H, W]; the output has ``H // stride`` rows (for kernels not smaller than the stride)."""
        # Elsewhere plain functions, which autograd can differentiate: ``_PaddedConv`` has no backward.
        if torch.onnx.is_in_onnx_export():
            return _PaddedConv.apply(input, self.weight, self.bias, self.pads, self)
        return _padded_conv(input, self.weight, self.bias, self.pads, self)


def use_even_same(module: nn.Module) -> None:
    """Replace timm's ``Conv2dSame`` within ``module`` by ``EvenSameConv2d`` with the same weights."""
    for name, child in module.named_children():
        if type(child).__name__ == "Conv2dSame" and isinstance(child, nn.Conv2d):
            setattr(module, name, _even_same(child))
        else:
            use_even_same(child)


def _even_same(conv: nn.Conv2d) -> EvenSameConv2d:
    new = EvenSameConv2d(
        conv.in_channels,
        conv.out_channels,
        kernel_size=(conv.kernel_size[0], conv.kernel_size[1]),
        stride=(conv.stride[0], conv.stride[1]),
        dilation=(conv.dilation[0], conv.dilation[1]),
        groups=conv.groups,
        bias=conv.bias is not None,
    )
    # The same parameters, not copies: names in the state dict and pretrained values stay.
    new.weight, new.bias = conv.weight, conv.bias
    return new


def _padded_conv(x: Tensor, weight: Tensor, bias: Tensor | None, pads: Pads, conv: nn.Conv2d) -> Tensor:
    top, left, bottom, right = pads
    padded = functional.pad(x, (left, right, top, bottom))
    return functional.conv2d(padded, weight, bias, stride=conv.stride, dilation=conv.dilation, groups=conv.groups)


class _PaddedConv(torch.autograd.Function):
    """A convolution whose padding differs from side to side: one ONNX node, used while exporting only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, pads: Pads, conv: nn.Conv2d) -> Tensor:
        return _padded_conv(x, weight, bias, pads, conv)

    @staticmethod
    def symbolic(graph: Any, x: Any, weight: Any, bias: Any, pads: Pads, conv: nn.Conv2d) -> Any:
        # PyTorch's convolution has no such padding; traced as it is computed, each would become a Pad and a Conv node.
        inputs = [x, weight] if conv.bias is None else [x, weight, bias]
        return graph.op(
            "Conv",
            *inputs,
            pads_i=list(pads),
            strides_i=list(conv.stride),
            dilations_i=list(conv.dilation),
            kernel_shape_i=list(conv.kernel_size),
            group_i=conv.groups,
        )
