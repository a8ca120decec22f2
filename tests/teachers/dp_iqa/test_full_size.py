"""The paper's sizes, on the meta device: nothing is stored, shapes and counts are exact."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from teachers.dp_iqa.model import DpIqa, meta_model


@pytest.fixture(scope="module")
def model() -> DpIqa:
    return meta_model("sd15", prompts=torch.empty(1485, 768, device="meta"))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts_are_those_of_the_fact_sheet(model: DpIqa):
    assert count(model.unet) == 859_520_964
    assert count(model.vae) == 83_653_863
    assert count(model.image_adapter) == 77_369_280
    # The fact sheet counts the two linear layers only; its total is right with gamma's 768 added.
    assert count(model.text_adapter.layers) == 1_181_184
    assert model.text_adapter.gamma.numel() == 768
    assert count(model.decoder) == 42_934_697
    assert count(model) == 1_064_660_756


def test_what_is_trained_is_all_but_the_autoencoder_and_the_layers_behind_the_last_tap(model: DpIqa):
    unused = 2 * 320 + (320 * 9 + 1) * 4  # conv_norm_out and conv_out
    trained = 981_020_229 - 13_336 - unused  # the fact sheet's number, without the layers that no score depends on
    assert sum(value.numel() for value in model.parameters() if value.requires_grad) == trained


def test_shapes_and_multiply_accumulates_are_those_of_the_fact_sheet(model: DpIqa):
    images = torch.empty(1, 3, 512, 512, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        latents = model.encode(images)
        encoder = counter.get_total_flops()
        taps = model.taps(latents, images)
        middle = counter.get_total_flops()
        quality = model.decoder(taps)
        total = counter.get_total_flops()
    assert tuple(latents.shape) == (1, 4, 64, 64)
    assert [tuple(tap.shape[1:]) for tap in taps] == [(1280, 16, 16), (1280, 32, 32), (640, 64, 64), (320, 64, 64)]
    assert tuple(quality.feature_map.shape) == (1, 8, 64, 64)
    assert tuple(quality.score.shape) == (1,)
    billions = [flops / 2e9 for flops in (encoder, middle - encoder, total - middle, total)]
    assert billions == pytest.approx([558, 461 + 30, 105, 1157], rel=0.005)


def test_prompts_are_projected_once_a_batch(model: DpIqa):
    def macs(batch: int) -> float:
        latents = torch.empty(batch, 4, 64, 64, device="meta")
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.taps(latents, torch.empty(batch, 3, 512, 512, device="meta"))
        return counter.get_total_flops() / 2

    # Widths of the cross-attentions: two or three in each of the blocks that have them, one in the middle.
    widths = [320] * 5 + [640] * 5 + [1280] * 6
    context = 1485 * (sum(2 * 768 * width for width in widths) + 2 * 768 * 768)
    assert 2 * macs(1) - macs(2) == pytest.approx(context, rel=1e-6)
