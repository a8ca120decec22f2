import copy
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from teachers.dp_iqa.unet_taps import UNetTaps
from teachers.dp_iqa.variants import VARIANTS, build_unet

RESIDUALS = [(2, 16, 8, 8), (2, 32, 4, 4), (2, 32, 2, 2), (2, 32, 1, 1)]


@pytest.fixture
def unet() -> UNet2DConditionModel:
    torch.manual_seed(3)
    return build_unet(VARIANTS["tiny"].unet).eval()


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(4)
    return torch.randn(2, 4, 8, 8), torch.randn(2, 5, 32), [torch.randn(shape) for shape in RESIDUALS]


def test_taps_are_the_outputs_of_the_up_blocks(unet: UNet2DConditionModel, inputs: Any):
    latents, context, residuals = inputs
    with torch.no_grad():
        taps = UNetTaps(unet)(latents, 1, context, residuals)
        # The layers that diffusers puts behind the last block, applied to the last tap, give its own output.
        norm, act = unet.conv_norm_out, unet.conv_act
        assert norm is not None
        assert act is not None
        expected = unet.conv_out(act(norm(taps[-1])))
        whole = unet(latents, 1, context, down_intrablock_additional_residuals=list(residuals)).sample
    assert [tuple(tap.shape[1:]) for tap in taps] == [(32, 2, 2), (32, 4, 4), (32, 8, 8), (16, 8, 8)]
    torch.testing.assert_close(whole, expected)


def test_residuals_are_added_at_the_end_of_each_down_block_before_its_downsampler(
    unet: UNet2DConditionModel, inputs: Any
):
    latents, context, residuals = inputs
    seen: list[torch.Tensor] = []

    def keep(_block: Any, _inputs: Any, output: Any) -> None:
        seen.append(output[1][-2].clone())  # what the up path gets, before the downsampler, whose output is the last

    unet.down_blocks[0].register_forward_hook(keep)
    taps = UNetTaps(unet)
    with torch.no_grad():
        taps(latents, 1, context, [torch.zeros_like(residual) for residual in residuals])
        plain = seen[0]
        seen.clear()
        taps(latents, 1, context, [residuals[0], *(torch.zeros_like(residual) for residual in residuals[1:])])
    torch.testing.assert_close(seen[0] - plain, residuals[0], atol=1e-5, rtol=1e-5)


def test_every_residual_reaches_every_tap(unet: UNet2DConditionModel, inputs: Any):
    latents, context, residuals = inputs
    taps = UNetTaps(unet)
    with torch.no_grad():
        before = taps(latents, 1, context, residuals)
        for index, residual in enumerate(residuals):
            changed = [*residuals]
            changed[index] = residual + 1
            after = taps(latents, 1, context, changed)
            assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_callers_list_of_residuals_is_left_alone_and_nothing_is_kept(unet: UNet2DConditionModel, inputs: Any):
    latents, context, residuals = inputs
    taps = UNetTaps(unet)
    with torch.no_grad():
        first = taps(latents, 1, context, residuals)
        assert len(residuals) == 4
        assert taps._outputs == []
        second = taps(latents, 1, context, residuals)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_copy_reads_its_own_unet(unet: UNet2DConditionModel, inputs: Any):
    latents, context, residuals = inputs
    taps = UNetTaps(unet)
    copied = copy.deepcopy(taps)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.zero_()
        found = copied(latents, 1, context, residuals)
        assert all(tap.abs().max() > 0 for tap in found)
        assert all(tap.abs().max() == 0 for tap in taps(latents, 1, context, residuals)[:1])
