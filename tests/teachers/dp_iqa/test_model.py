import copy
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from teachers.dp_iqa.decoder import DecoderSizes
from teachers.dp_iqa.model import (
    Conditioning,
    DpIqa,
    SharedContextAttention,
    TextAdapter,
    UNetTaps,
    assemble,
    build_image_adapter,
    random_model,
    share_context,
)
from teachers.dp_iqa.prompts import stand_in_bank
from teachers.dp_iqa.variants import VARIANTS, build_unet, build_vae

TINY = VARIANTS["tiny"]


def build(**options: Any) -> DpIqa:
    torch.manual_seed(11)
    return random_model(TINY, prompts=stand_in_bank(32, 1).features, **options).eval()


@pytest.fixture(scope="module")
def model() -> DpIqa:
    return build()


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(12)
    return torch.rand(3, 3, 64, 64)


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


def test_the_parts_one_after_another_are_the_forward_pass(model: DpIqa, images: Tensor):
    with torch.no_grad():
        whole = model(images)
        parts = model.decoder(model.taps(model.encode(images), images))
    assert torch.equal(whole.score, parts.score)
    assert torch.equal(whole.feature_map, parts.feature_map)


def test_latents_are_the_posterior_mode_times_the_scaling_factor(model: DpIqa, images: Tensor):
    vae: Any = model.vae
    with torch.no_grad():
        moments = vae.quant_conv(vae.encoder(images))
        close(model.encode(images), moments[:, :4] * 0.18215)


def test_sampling_has_the_posteriors_moments_one_noise_for_all_images_and_new_ones_in_training(images: Tensor):
    model = build(conditioning=Conditioning(posterior="sample", seed=5))
    vae: Any = model.vae
    with torch.no_grad():
        mean, log_variance = vae.quant_conv(vae.encoder(images)).chunk(2, 1)
        noise = torch.randn(1, *mean.shape[1:], generator=torch.Generator().manual_seed(5))
        drawn = model.encode(images)
        close(drawn, (mean + (log_variance / 2).exp() * noise) * 0.18215)
        close(model.encode(images[2:]), drawn[2:])
        torch.manual_seed(6)
        other = model.train().encode(images)
        noises = (other / 0.18215 - mean) / (log_variance / 2).exp()
        torch.manual_seed(6)
        close(noises, torch.randn(mean.shape), 1e-3)
        close(model.eval().encode(images), drawn)
    assert noises.std() == pytest.approx(1, abs=0.15)
    assert (noises[0] - noises[1]).abs().max() > 0.5


def test_scaling_gives_the_autoencoder_the_range_it_was_trained_on(model: DpIqa, images: Tensor):
    scaled = build(conditioning=Conditioning(scale_input=True))
    with torch.no_grad():
        close(scaled.encode(images), model.encode(images * 2 - 1))
        latents = model.encode(images)
        for one, other in zip(scaled.taps(latents, images), model.taps(latents, images), strict=True):
            close(one, other)  # the image adapter sees [0, 1] either way


def test_the_timestep_matters_and_is_one(model: DpIqa, images: Tensor):
    latents = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        default = model.taps(latents, images[:1])
        first = build(conditioning=Conditioning(timestep=1)).taps(latents, images[:1])
        late = build(conditioning=Conditioning(timestep=500)).taps(latents, images[:1])
    close(first[-1], default[-1])
    assert (late[-1] - default[-1]).abs().max() > 1e-3


def test_prompts_condition_the_score_and_their_order_does_not(model: DpIqa, images: Tensor):
    assert model.prompts is not None
    latents = torch.randn(3, 4, 8, 8)
    with torch.no_grad():
        own = model.taps(latents, images)
        turned = model.taps(latents, images, model.prompts.flip(0))
        others = model.taps(latents, images, model.prompts + 1)
    close(turned[-1], own[-1])
    assert (others[-1] - own[-1]).abs().max() > 1e-3


def test_scores_do_not_depend_on_the_batch(model: DpIqa, images: Tensor):
    with torch.no_grad():
        together = model(images)
        alone = [model(images[index : index + 1]) for index in range(3)]
        turned = model(images.flip(0))
    close(torch.cat([quality.score for quality in alone]), together.score)
    close(torch.cat([quality.feature_map for quality in alone]), together.feature_map)
    close(turned.score.flip(0), together.score)


@pytest.mark.parametrize("size", ["auto", "max", 1])
def test_sliced_attention_gives_the_same(model: DpIqa, images: Tensor, size: str | int):
    sliced = copy.deepcopy(model)
    sliced.slice_attention(size)
    with torch.no_grad():
        close(sliced(images).feature_map, model(images).feature_map)


def test_slicing_by_nonsense_is_refused(model: DpIqa):
    for size in ("half", 0, 99, True):
        with pytest.raises(PocketiqaError, match="attention_slicing is"):
            copy.deepcopy(model).slice_attention(size)


def test_channels_last_gives_the_same(model: DpIqa, images: Tensor):
    other: Any = copy.deepcopy(model)
    other.to(memory_format=torch.channels_last)
    assert other.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        close(other(images).feature_map, model(images).feature_map)


def test_bf16_is_close_and_its_scores_are_not_rounded_to_bf16(model: DpIqa, images: Tensor):
    low = copy.deepcopy(model)
    low.lower_precision(torch.bfloat16)
    with torch.no_grad():
        rounded, exact = low(images), model(images)
    assert low.unet.dtype == torch.bfloat16
    assert rounded.score.dtype == rounded.feature_map.dtype == torch.float32
    assert (rounded.score != rounded.score.bfloat16().float()).any()
    spread = exact.feature_map.std()
    assert (rounded.feature_map - exact.feature_map).abs().mean() < 0.1 * spread


@pytest.mark.parametrize(("trainable", "parts"), [("all", {"unet"}), ("head", set())])
def test_what_is_trained_and_what_is_frozen(trainable: str, parts: set[str]):
    model = build(trainable=trainable)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"text_adapter", "image_adapter", "decoder"} | parts
    assert trained.isdisjoint(model.frozen_state())
    assert any(name.startswith("unet.") for name in model.frozen_state()) == (trainable == "head")
    assert "prompts" in model.frozen_state()


def test_another_part_cannot_be_trained():
    with pytest.raises(PocketiqaError, match="trainable is 'neck': choose all or head"):
        build(trainable="neck")


def test_a_compiled_model_gives_the_same_taps_and_keeps_its_names(images: Tensor):
    torch.manual_seed(13)
    few = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    down, up = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
    unet = build_unet({**TINY.unet, **few, "down_block_types": down, "up_block_types": up})
    ends = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = build_vae({**TINY.vae, **few, **ends})
    sizes = DecoderSizes(width=4, reduction=2, narrow=(4,), hidden=4, map_side=16)
    model = assemble(unet, vae, sizes, 32, prompts=torch.randn(6, 32)).eval()
    assert model.patch_px == 4
    with torch.no_grad():
        before = model(images)
        names = list(model.state_dict())
        model.compile_parts(backend="eager")
        after = model(images)
    assert list(model.state_dict()) == names
    close(after.feature_map, before.feature_map)
    close(after.score, before.score)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 64, 63), (1, 3, 32, 64), (1, 3, 0, 64)])
def test_images_of_other_shapes_are_refused(model: DpIqa, shape: tuple[int, ...]):
    with pytest.raises(PocketiqaError, match=r"H and W a multiple of 64 is needed") as caught:
        model.encode(torch.zeros(shape))
    assert str(list(shape)) in str(caught.value)


def test_any_multiple_of_the_patch_will_do(model: DpIqa):
    with torch.no_grad():
        assert tuple(model(torch.rand(1, 3, 64, 128)).feature_map.shape) == (1, 8, 16, 16)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"timestep": 1000}, "timestep is 1000, but an integer from 0 to 999"),
        ({"timestep": 1.5}, "timestep is 1.5"),
        ({"timestep": True}, "timestep is True"),
        ({"posterior": "mean"}, "posterior is 'mean': choose mode or sample"),
    ],
)
def test_conditioning_out_of_range_is_refused(values: dict[str, Any], message: str):
    with pytest.raises(PocketiqaError, match=message):
        Conditioning(**values)


def test_text_adapter_adds_gamma_times_the_mlp_and_starts_small():
    torch.manual_seed(0)
    adapter = TextAdapter(6, 6)
    features = torch.randn(5, 6)
    assert torch.all(adapter.gamma == 1e-4)
    first, second = (layer for layer in adapter.layers if isinstance(layer, torch.nn.Linear))
    inner = features @ first.weight.T + first.bias
    inner = 0.5 * inner * (1 + torch.erf(inner / 2**0.5))  # GELU in closed form
    change = inner @ second.weight.T + second.bias
    torch.testing.assert_close(adapter(features), features + 1e-4 * change)
    with torch.no_grad():
        adapter.gamma.copy_(torch.arange(6.0))
    torch.testing.assert_close(adapter(features), features + torch.arange(6.0) * change)


def test_text_adapter_leads_to_another_width_by_a_linear_map():
    adapter = TextAdapter(6, 10)
    with torch.no_grad():
        adapter.gamma.zero_()
    features = torch.randn(5, 6)
    context = adapter(features)
    assert tuple(context.shape) == (5, 10)
    torch.testing.assert_close(adapter(3 * features), 3 * context)


def test_image_adapter_has_a_residual_for_each_down_block():
    adapter = build_image_adapter((8, 16, 24, 24), downscale=8)
    residuals = adapter(torch.rand(2, 3, 128, 64))
    assert [tuple(residual.shape) for residual in residuals] == [
        (2, 8, 16, 8),
        (2, 16, 8, 4),
        (2, 24, 4, 2),
        (2, 24, 2, 1),
    ]


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
        # The layers that diffusers puts after the last block, applied to the last tap, give its own output.
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


def test_the_callers_residuals_are_left_alone_and_no_output_stays_in_memory(unet: UNet2DConditionModel, inputs: Any):
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
        copied_taps = copied(latents, 1, context, residuals)
        assert all(tap.abs().max() > 0 for tap in copied_taps)
        assert all(tap.abs().max() == 0 for tap in taps(latents, 1, context, residuals)[:1])


def attend(processor: Any, tokens: Tensor, context: Tensor) -> Tensor:
    torch.manual_seed(1)
    attention = Attention(query_dim=12, cross_attention_dim=10, heads=3, dim_head=4, processor=processor)
    return attention(tokens, encoder_hidden_states=context)


def test_one_context_for_all_images_is_attended_to_as_by_diffusers():
    tokens, context = torch.randn(4, 7, 12), torch.randn(1, 9, 10)
    expected = attend(AttnProcessor2_0(), tokens, context.repeat(4, 1, 1))
    torch.testing.assert_close(attend(SharedContextAttention(), tokens, context), expected)


def test_a_context_for_each_image_is_attended_to_as_by_diffusers():
    tokens, context = torch.randn(4, 7, 12), torch.randn(4, 9, 10)
    expected = attend(AttnProcessor2_0(), tokens, context)
    torch.testing.assert_close(attend(SharedContextAttention(), tokens, context), expected)
    assert (expected - attend(AttnProcessor2_0(), tokens, context.flip(0))).abs().max() > 1e-3


def test_a_unet_that_shares_its_context_gives_what_it_gave_before():
    torch.manual_seed(2)
    before = build_unet(VARIANTS["tiny"].unet).eval()
    after = copy.deepcopy(before)
    share_context(after)
    latents, context = torch.randn(3, 4, 8, 8), torch.randn(1, 20, 32)
    with torch.no_grad():
        expected = before(latents, 1, encoder_hidden_states=context.repeat(3, 1, 1)).sample
        shared = after(latents, 1, encoder_hidden_states=context).sample
    torch.testing.assert_close(shared, expected, atol=1e-5, rtol=1e-5)
