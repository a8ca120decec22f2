from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Attention
from torch import Tensor, nn

from pseudo_labels.errors import PocketiqaError
from teachers.sam_iqa.model import (
    FourierUnit,
    FusedAttention,
    RegressionBlock,
    SamEncoder,
    SamIqa,
    SamIqaConfig,
    fourier_convolution,
    resize_position_embedding,
)
from teachers.sam_iqa.variants import VARIANTS, build_vit, meta_vit, parameter_count
from tests.teachers.sam_iqa.tiny_sam import random_vit


def model(**options: Any) -> SamIqa:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SamIqa(SamIqaConfig("tiny", input_side_px=64, **options), random_vit())


def images(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 64, 64), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("trainable", "inside", "outside"),
    [
        ("head", ["branches.frequency.2.mix.0.weight", "regression.fuse.0.bias"], ["encoder.vit.neck.0.weight"]),
        ("neck", ["encoder.vit.neck.0.weight", "regression.fuse.0.bias"], ["encoder.vit.blocks.7.norm1.bias"]),
        ("all", ["encoder.vit.pos_embed", "encoder.vit.blocks.0.attn.rel_pos_h", "encoder.vit.neck.2.weight"], []),
    ],
)
def test_trainable_parameters(trainable: str, inside: list[str], outside: list[str]):
    trained = {name for name, parameter in model(trainable=trainable).named_parameters() if parameter.requires_grad}
    assert trained.issuperset(inside)
    assert trained.isdisjoint(outside)


@torch.no_grad()
def test_the_full_reference_form_sees_differences_only():
    built = model(form="fr")
    equal = built(images(3), images(3))
    torch.testing.assert_close(equal.score, equal.score[:1].expand(3), atol=1e-6, rtol=0)
    one, other = built(images(3), images(3, 1)).score, built(images(3, 1), images(3)).score
    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)  # L1 differences have no sign
    assert bool((one - equal.score).abs().max() > 1e-4)


def test_each_form_takes_its_own_inputs():
    with pytest.raises(ValueError, match="'nr' with reference"):
        model()(images(1), images(1))
    with pytest.raises(ValueError, match="'fr' without reference"):
        model(form="fr")(images(1))


def test_pooling_is_mean_and_deviation_of_the_map():
    block = RegressionBlock(12, 32)
    quality = block(torch.randn(2, 12, 16, 16, generator=torch.Generator().manual_seed(0)))
    flat = quality.map.detach().flatten(2).numpy()  # 16x16 cells: nothing was averaged
    pooled = quality.pooled.detach().numpy()
    assert pooled[:, :8] == pytest.approx(flat.mean(2), abs=1e-6)
    assert pooled[:, 8:] ** 2 == pytest.approx(flat.var(2) + 1e-6, abs=1e-6)
    assert bool(((quality.score > 0) & (quality.score < 1)).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "vit_g"}, "unknown SAM variant 'vit_g': choose vit_b, vit_l, vit_h, tiny"),
        ({"form": "both"}, "form 'both': choose nr, fr"),
        ({"trainable": "everything"}, "trainable 'everything': choose head, neck, all"),
        ({"input_side_px": 1000}, "input_side_px 1000: it must be a multiple of 16 from 224 to 1024"),
    ],
)
def test_unknown_choices_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(PocketiqaError, match=message):
        SamIqaConfig(**options)


TINY = VARIANTS["tiny"]


def pictures(side: int) -> Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (2, 3, side, side), generator=generator, dtype=torch.uint8)


def segment_anythings_own(vit: ImageEncoderViT, rgb: Tensor) -> list[Tensor]:
    """Outputs of blocks 3, 5, 7 (the last three global ones) and of the neck, block by block without hooks."""
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    x = vit.patch_embed(((rgb.permute(0, 2, 3, 1) - mean) / std).permute(0, 3, 1, 2))
    assert vit.pos_embed is not None
    x = x + vit.pos_embed
    outputs = []
    for index, block in enumerate(vit.blocks):
        x = block(x)
        outputs += [x.permute(0, 3, 1, 2)] if index in (3, 5, 7) else []
    return [*outputs, vit.neck(x.permute(0, 3, 1, 2))]


@pytest.mark.parametrize(
    ("name", "parameters"), [("vit_b", 89_670_912), ("vit_l", 308_278_272), ("vit_h", 637_026_048)]
)
def test_parameter_counts(name: str, parameters: int):
    assert parameter_count(meta_vit(VARIANTS[name])) == parameters


@pytest.mark.parametrize("name", VARIANTS)
def test_taps_are_the_last_three_global_blocks(name: str):
    variant = VARIANTS[name]
    blocks = meta_vit(variant).blocks
    assert variant.taps == tuple(index for index, block in enumerate(blocks) if block.window_size == 0)[-3:]


@torch.no_grad()
def test_features_at_the_native_size_are_segment_anythings():
    rgb = pictures(128)
    expected = segment_anythings_own(random_vit(), rgb)
    taps, neck = SamEncoder(random_vit(), TINY, 128)(rgb)
    assert [tuple(tap.shape) for tap in taps] == [(2, 48, 16, 16)] * 3
    for ours, theirs in zip([*taps, neck], expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_smaller_input_equals_an_encoder_made_for_it():
    """Position tables stretched by numpy and Pillow, put into segment-anything's encoder for 72 pixels (9 patches)."""
    state = random_vit().state_dict()
    small = build_vit(type(TINY)(**{**vars(TINY), "native_side_px": 72})).eval()
    planes = state["pos_embed"][0].permute(2, 0, 1).numpy()
    resized = [np.asarray(Image.fromarray(plane).resize((9, 9), Image.Resampling.BICUBIC)) for plane in planes]
    state["pos_embed"] = torch.from_numpy(np.stack(resized, axis=-1))[None]
    positions = (np.arange(17) + 0.5) * 31 / 17 - 0.5
    for name, table in state.items():
        if "rel_pos" in name and len(table) == 31:
            columns = [np.interp(positions, np.arange(31), column) for column in table.numpy().T]
            state[name] = torch.from_numpy(np.stack(columns, axis=-1)).float()
    small.load_state_dict(state)
    rgb = pictures(72)
    taps, neck = SamEncoder(random_vit(), TINY, 72)(rgb)
    for ours, theirs in zip([*taps, neck], segment_anythings_own(small, rgb), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_the_position_embedding_at_its_own_size_is_untouched():
    embedding = torch.randn(1, 64, 64, 8)
    assert resize_position_embedding(embedding, 64) is embedding


@torch.no_grad()
def test_no_output_is_held_after_a_pass_even_a_failed_one():
    encoder = SamEncoder(random_vit(), TINY, 128)
    encoder(pictures(128))
    assert not encoder._outputs
    with pytest.raises(RuntimeError):
        encoder(pictures(64))  # does not fit the position embedding
    assert not encoder._outputs


def test_checkpointing_stores_less_and_changes_no_gradient():
    gradients, stored_bytes = [], []
    for checkpointed in (False, True):
        encoder = SamEncoder(random_vit(), TINY, 64)
        if checkpointed:
            encoder.checkpoint_blocks()
        stored = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal stored
            stored += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            taps, neck = encoder(pictures(64))
        torch.cat([*(tap.flatten() for tap in taps), neck.flatten()]).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in encoder.named_parameters()})
        stored_bytes.append(stored)
    assert stored_bytes[1] < stored_bytes[0] / 4
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize("side", [500, 1040, 208, 0, 512.0, "512"])
def test_sizes_that_do_not_fit_are_refused(side: int):
    with pytest.raises(PocketiqaError, match=rf"input_side_px {side!r}: .*multiple of 16 from 224 to 1024"):
        VARIANTS["vit_b"].check_side(side)


def attention(side: int) -> Attention:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(side)
        original = Attention(24, num_heads=3, use_rel_pos=True, input_size=(side, side))
        for table in (original.rel_pos_h, original.rel_pos_w):
            torch.nn.init.normal_(table)
    return original


@pytest.mark.parametrize(("native", "height", "width"), [(5, 5, 5), (8, 8, 8), (8, 4, 4), (8, 3, 6)])
def test_values_and_gradients_are_those_of_segment_anything(native: int, height: int, width: int):
    original = attention(native)
    x = torch.randn(2, height, width, 24, generator=torch.Generator().manual_seed(0))
    results = []
    for module in (original, FusedAttention(original)):
        values = x.clone().requires_grad_()
        original.zero_grad()
        output = module(values)
        output.square().sum().backward()
        gradients = [p.grad.clone() for _, p in sorted(original.named_parameters()) if p.grad is not None]
        assert len(gradients) == 6
        results.append([output, values.grad, *gradients])
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_parameters_are_shared_under_their_names():
    original = attention(5)
    fused = dict(FusedAttention(original).named_parameters())
    theirs = dict(original.named_parameters())
    assert fused.keys() == theirs.keys()
    assert all(fused[name] is theirs[name] for name in theirs)


SIZES = [(6, 8), (5, 7), (7, 4), (4, 7), (1, 9), (9, 1), (1, 1), (2, 2)]


def circular_convolution(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """From its definition, without a transform: y[i, j] = sum_uv kernel[u, v] x[i - u, j - v], indices modulo size."""
    y = np.zeros_like(x)
    for u, v in np.ndindex(*kernel.shape[-2:]):
        y += kernel[..., u, v, None, None] * np.roll(x, (u, v), axis=(-2, -1))
    return y


def multiply_by(response: np.ndarray):
    """A mix that multiplies the half spectrum, [C, H, W // 2 + 1], by complex constants."""

    def mix(stacked: Tensor) -> Tensor:
        real, imaginary = stacked.chunk(2, dim=1)
        product = torch.complex(real, imaginary) * torch.from_numpy(response)
        return torch.cat((product.real, product.imag), dim=1)

    return mix


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_equals_a_circular_convolution_over_the_whole_image(height: int, width: int):
    rng = np.random.default_rng(height * 10 + width)
    x, kernel = rng.normal(size=(2, 3, height, width)), rng.normal(size=(3, height, width))
    result = fourier_convolution(torch.from_numpy(x), multiply_by(np.fft.rfft2(kernel)))
    np.testing.assert_allclose(result.numpy(), circular_convolution(x, kernel), atol=1e-12)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_equal_weights_for_real_and_imaginary_parts_are_a_pointwise_convolution(height: int, width: int):
    rng = np.random.default_rng(1)
    x, matrix = rng.normal(size=(2, 3, height, width)), rng.normal(size=(4, 3))
    mix = nn.Conv2d(6, 8, 1, bias=False, dtype=torch.float64)
    block = np.block([[matrix, np.zeros((4, 3))], [np.zeros((4, 3)), matrix]])
    mix.weight.data = torch.from_numpy(block)[..., None, None]
    result = fourier_convolution(torch.from_numpy(x), mix).detach()
    np.testing.assert_allclose(result.numpy(), np.einsum("oc,bchw->bohw", matrix, x), atol=1e-12)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_spectrum_of_no_real_image_is_inverted_as_numpy_does(height: int, width: int):
    rng = np.random.default_rng(2)
    shape = (1, 2, height, width // 2 + 1)
    spectrum = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    stacked = torch.from_numpy(np.concatenate((spectrum.real, spectrum.imag), axis=1))
    result = fourier_convolution(torch.zeros(1, 2, height, width, dtype=torch.float64), lambda _: stacked)
    np.testing.assert_allclose(result.numpy(), np.fft.irfft2(spectrum, (height, width), norm="ortho"), atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (3, 5), (1, 2)])
def test_gradients_of_input_and_weights(height: int, width: int):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 2, height, width, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(4, 4, 1, 1, dtype=torch.float64, generator=generator, requires_grad=True)

    def convolve(x: Tensor, weight: Tensor) -> Tensor:
        return fourier_convolution(x, lambda stacked: torch.tanh(nn.functional.conv2d(stacked, weight)))

    assert torch.autograd.gradcheck(convolve, (x, weight))


def test_half_precision_is_computed_in_single():
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(4)).bfloat16()
    result = fourier_convolution(x, lambda stacked: 2 * stacked)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result, 2 * x, atol=0, rtol=2**-8)


def test_the_unit_adds_its_spectral_part_to_the_input():
    """Without normalisation and activation, and with weights that are a complex multiplication, the unit is linear and
    commutes with circular shifts, as a convolution must; a zero weight returns the input.
    """
    unit, convolution = FourierUnit(16), nn.Conv2d(32, 32, 1, bias=False)
    unit.mix = nn.Sequential(convolution)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(1, 16, 6, 9, generator=generator)
    real, imaginary = torch.randn(2, 16, 16, generator=generator)
    rows = torch.cat((real, -imaginary), dim=1), torch.cat((imaginary, real), dim=1)
    with torch.no_grad():
        convolution.weight.copy_(torch.cat(rows)[..., None, None])
        torch.testing.assert_close(unit(x.roll((2, 4), (2, 3))), unit(x).roll((2, 4), (2, 3)), atol=1e-4, rtol=0)
        assert not torch.allclose(unit(x), x)
        convolution.weight.zero_()
        assert torch.equal(unit(x), x)
