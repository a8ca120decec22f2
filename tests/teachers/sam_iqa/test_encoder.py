import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from teachers.sam_iqa.encoder import SamEncoder, resize_position_embedding
from teachers.sam_iqa.variants import VARIANTS, build_vit, meta_vit, parameter_count
from tests.teachers.sam_iqa.tiny_sam import random_vit

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
    places = (np.arange(17) + 0.5) * 31 / 17 - 0.5
    for name, table in state.items():
        if "rel_pos" in name and len(table) == 31:
            columns = [np.interp(places, np.arange(31), column) for column in table.numpy().T]
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


def test_checkpointing_keeps_less_and_changes_no_gradient():
    gradients, kept_bytes = [], []
    for checkpointed in (False, True):
        encoder = SamEncoder(random_vit(), TINY, 64)
        if checkpointed:
            encoder.checkpoint_blocks()
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            taps, neck = encoder(pictures(64))
        torch.cat([*(tap.flatten() for tap in taps), neck.flatten()]).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in encoder.named_parameters()})
        kept_bytes.append(kept)
    assert kept_bytes[1] < kept_bytes[0] / 4
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize("side", [500, 1040, 208, 0, 512.0, "512"])
def test_sizes_that_do_not_fit_are_refused(side: int):
    with pytest.raises(PocketiqaError, match=rf"input_side_px {side!r}: .*multiple of 16 from 224 to 1024"):
        VARIANTS["vit_b"].check_side(side)
