import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from pseudo_labels.errors import PocketiqaError
from students.backbone import (
    EvenSameConv2d,
    _index_of_strides,
    build_backbone,
    channel_counts,
    load_backbone_weights,
    stated_colours,
    use_even_same,
)
from students.config import StudentConfig
from tests.helpers.shared import shared_data

TINY = StudentConfig("test_efficientnet")


@pytest.mark.parametrize(
    "name", ["test_efficientnet", "lcnet_035", "mobilenetv4_conv_small_035", "test_resnet", "test_convnext"]
)
def test_any_convolutional_pyramid_works(name: str) -> None:
    backbone = build_backbone(StudentConfig(name)).eval()
    maps = backbone(torch.zeros(2, 3, 64, 160))
    assert [tuple(feature_map.shape) for feature_map in maps] == [
        (2, channels, 64 // stride, 160 // stride)
        for channels, stride in zip(channel_counts(backbone), (4, 8, 16, 32), strict=True)
    ]


def test_misspelt_name_gets_the_nearest_ones() -> None:
    with pytest.raises(
        PocketiqaError, match=r"no backbone 'mobilenetv4_conv_smal': did you mean mobilenetv4_conv_small"
    ):
        build_backbone(StudentConfig("mobilenetv4_conv_smal"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_vit", r"test_vit has feature maps of the strides \[16\], but levels asks for \[4, 8, 32\]"),
        ("swin_tiny_patch4_window7_224", "gives no pyramid of feature maps"),
        ("hf-hub:timm/resnet18.a1_in1k", "has no backbone"),
        ("timm/resnet18", "has no backbone"),
    ],
)
def test_unfit_backbones_are_refused_with_a_way_out(name: str, message: str) -> None:
    with pytest.raises(PocketiqaError, match=message):
        build_backbone(StudentConfig(name))


def test_pad_type_where_timm_has_no_choice() -> None:
    with pytest.raises(PocketiqaError, match="test_resnet has no choice of padding"):
        build_backbone(StudentConfig("test_resnet", pad_type="same"))


def test_stages_behind_the_last_level_are_left_out_and_change_nothing() -> None:
    torch.manual_seed(0)
    whole = build_backbone(TINY).eval()
    part = build_backbone(replace(TINY, levels=(4, 16))).eval()
    part.load_state_dict({name: value for name, value in whole.state_dict().items() if name in part.state_dict()})
    assert sum(p.numel() for p in part.parameters()) < sum(p.numel() for p in whole.parameters())
    x = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(list(part(x)), [whole(x)[0], whole(x)[2]], rtol=0, atol=0)
    torch.stack([feature_map.sum() for feature_map in part.train()(x)]).sum().backward()
    assert all(p.grad is not None for p in part.parameters())


def _intermediates(model: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """Timm's other way of reading feature maps."""
    return model.forward_intermediates(x, intermediates_only=True)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext"])
def test_init_gives_the_features_of_the_whole_model(name: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    whole = timm.create_model(name).eval()
    save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    backbone = build_backbone(StudentConfig(name)).eval()
    load_backbone_weights(backbone, tmp_path / "weights.safetensors")
    x = torch.randn(1, 3, 64, 64)
    expected = _intermediates(whole, x)[-1]
    torch.testing.assert_close(backbone(x)[-1], expected)


def test_init_errors_name_the_tensor(tmp_path: Path) -> None:
    backbone = build_backbone(TINY)
    state = dict(backbone.state_dict())
    missing = {name: value for name, value in state.items() if name != "conv_stem.weight"}
    save_file(missing, tmp_path / "missing.safetensors")
    with pytest.raises(PocketiqaError, match=r"lacks 1 of the .* first 'conv_stem.weight'"):
        load_backbone_weights(backbone, tmp_path / "missing.safetensors")
    save_file({**state, "conv_stem.weight": torch.zeros(1, 2)}, tmp_path / "shape.safetensors")
    before = state["bn1.weight"].clone()
    with pytest.raises(PocketiqaError, match=r"has the shape \(1, 2\) for 'conv_stem.weight'"):
        load_backbone_weights(backbone, tmp_path / "shape.safetensors")
    assert torch.equal(backbone.state_dict()["bn1.weight"], before)
    (tmp_path / "text.safetensors").write_text("not tensors")
    with pytest.raises(PocketiqaError, match="not a safetensors file"):
        load_backbone_weights(backbone, tmp_path / "text.safetensors")
    with pytest.raises(PocketiqaError, match="no backbone weights at"):
        load_backbone_weights(backbone, tmp_path / "nowhere.safetensors")


def test_half_precision_file_without_counters_loads(tmp_path: Path) -> None:
    backbone = build_backbone(TINY)
    half = {name: value.half() for name, value in backbone.state_dict().items() if "num_batches" not in name}
    save_file(half, tmp_path / "half.safetensors")
    load_backbone_weights(backbone, tmp_path / "half.safetensors")
    state = backbone.state_dict()
    assert all(torch.equal(state[name], value.float()) for name, value in half.items())
    assert state["conv_stem.weight"].dtype == torch.float32


def test_stated_colours_are_those_of_the_weights() -> None:
    assert stated_colours("resnet18") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert stated_colours("test_resnet") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(("stage", "channels"), [("", 320), ("blocks.6", 320), ("blocks.5", 160)])
def test_the_last_level_can_be_read_behind_an_earlier_stage(stage: str, channels: int) -> None:
    config = StudentConfig("mobilenetv2_100", levels=(8, 32), map_stride=32, last_stage=stage)
    backbone: Any = build_backbone(config).eval()
    assert channel_counts(backbone) == [32, channels]
    assert len(backbone.blocks) == (6 if stage == "blocks.5" else 7)
    x = torch.rand(1, 3, 96, 128)
    maps = backbone(x)
    assert [one.shape[1] for one in maps] == [32, channels]
    # What timm itself computes behind that stage, from the same weights.
    whole = backbone.bn1(backbone.conv_stem(x))
    torch.testing.assert_close(backbone.blocks(whole), maps[1])


@pytest.mark.parametrize(
    ("name", "stage", "message"),
    [
        ("mobilenetv2_100", "blocks.4", "stride 32 behind blocks.5, blocks.6: name one of these"),
        ("mobilenetv2_100", "5", "last_stage is '5'"),
        ("test_resnet", "blocks.3", "test_resnet has no stages blocks.0"),
    ],
)
def test_a_last_stage_that_does_not_fit_is_refused(name: str, stage: str, message: str) -> None:
    with pytest.raises(PocketiqaError, match=message):
        build_backbone(StudentConfig(name, levels=(8, 32), map_stride=32, last_stage=stage))


def test_real_imagenet_weights_give_timms_features() -> None:
    path = shared_data("weights", "mobilenetv2_100_in1k.safetensors")
    whole = timm.create_model("mobilenetv2_100", pad_type="same").eval()
    whole.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()})
    backbone = build_backbone(StudentConfig("mobilenetv2_100", pad_type="same")).eval()
    load_backbone_weights(backbone, path)
    x = torch.rand(1, 3, 96, 128) * 2 - 1
    with torch.inference_mode():
        expected = _intermediates(whole, x)[-4:]
        for ours, theirs in zip(backbone(x), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("dilation", [1, 2])
def test_sizes_that_the_stride_divides_agree_with_timm(kernel: int, stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    original = nn.Sequential(Conv2dSame(4, 6, kernel, stride, dilation=dilation, groups=2, bias=kernel == 3))
    ours = copy.deepcopy(original)
    use_even_same(ours)
    assert isinstance(ours[0], EvenSameConv2d)
    assert ours.state_dict().keys() == original.state_dict().keys()
    x = torch.randn(2, 4, 16, 24)
    torch.testing.assert_close(ours(x), original(x))


def test_odd_sizes_lose_no_pixel() -> None:
    same = Conv2dSame(1, 1, 3, 2, bias=False)
    same.load_state_dict({"weight": torch.ones(1, 1, 3, 3)})
    conv = nn.Sequential(same)
    use_even_same(conv)
    x = torch.ones(1, 1, 65, 97, requires_grad=True)
    output = conv(x)
    assert output.shape == (1, 1, 32, 48)
    output.sum().backward()
    assert x.grad is not None
    assert float(x.grad.min()) >= 1


def test_other_layers_stay() -> None:
    block = nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.Sequential(nn.ReLU()))
    before = list(block.modules())
    use_even_same(block)
    assert list(block.modules()) == before


@pytest.mark.parametrize(
    ("name", "size", "indices"),
    [
        ("dla34", (65, 97), (2, 3, 4, 5)),  # timm hides its first map: the position of a map is not its index
        ("tresnet_m", (65, 97), (1, 2, 3, 4)),
        ("hrnet_w18_small", (71, 127), (1, 2, 3, 4)),  # adds maps of two strides
    ],
)
def test_backbones_that_were_refused_or_failed_in_training_take_any_size(
    name: str, size: tuple[int, int], indices: tuple[int, ...]
) -> None:
    backbone: Any = build_backbone(StudentConfig(name))
    assert tuple(backbone.feature_info.out_indices) == indices
    assert backbone.feature_info.reduction() == [4, 8, 16, 32]
    x = torch.randn(2, 3, *size)
    maps = backbone.train()(x)
    padded = [-(-side // 32) * 32 for side in size]
    assert [tuple(one.shape[-2:]) for one in maps] == [(padded[0] // s, padded[1] // s) for s in (4, 8, 16, 32)]
    torch.stack([one.square().mean() for one in maps]).sum().backward()
    assert all(one.grad is not None for one in backbone.parameters())


def test_padding_repeats_the_border_and_changes_no_even_size() -> None:
    """Against numpy; an earlier student whose images had even sides scores as before."""
    backbone = build_backbone(StudentConfig("hrnet_w18_small", levels=(4,), map_stride=4)).eval()
    hook = next(iter(backbone._forward_pre_hooks.values()))
    x = torch.randn(1, 3, 65, 97)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (0, 31), (0, 31)), mode="edge")
    assert np.array_equal(hook(backbone, (x,)).numpy(), padded)
    even = torch.randn(1, 3, 64, 96)
    assert torch.equal(hook(backbone, (even,)), even)
    with torch.no_grad():
        assert torch.equal(backbone(x)[0], backbone(torch.from_numpy(padded))[0])


def test_backbones_that_take_any_size_are_not_padded() -> None:
    for name in ("test_efficientnet", "mobilenetv2_100", "test_resnet"):
        assert not build_backbone(StudentConfig(name))._forward_pre_hooks


@pytest.mark.parametrize("name", ["test_efficientnet", "mobilenetv2_100", "test_resnet", "selecsls42"])
def test_maps_are_those_that_earlier_versions_took(name: str) -> None:
    """Position and index agree where timm shows the first map: weights of earlier students still fit."""
    with torch.device("meta"):
        info: Any = timm.create_model(name, features_only=True).feature_info
    last = {stride: index for index, stride in enumerate(info.reduction())}
    assert _index_of_strides(info).items() >= last.items()


def test_a_map_that_timm_hides_can_be_asked_for() -> None:
    backbone: Any = build_backbone(StudentConfig("dla34", levels=(1, 4), map_stride=4))
    assert backbone.feature_info.reduction() == [1, 4]
