import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from teachers.dp_iqa.variants import VARIANTS, build_unet, build_vae, variant_named


def test_the_tiny_variant_has_the_blocks_of_stable_diffusion():
    tiny, published = VARIANTS["tiny"], VARIANTS["sd15"]
    for key in ("down_block_types", "up_block_types"):
        assert tiny.unet[key] == published.unet[key]
        assert tiny.vae[key] == published.vae[key]
    # Stable Diffusion 1.5: cross-attention at the three finer levels, none at the coarsest.
    assert [name.startswith("CrossAttn") for name in published.unet["down_block_types"]] == [True, True, True, False]
    assert [name.startswith("CrossAttn") for name in published.unet["up_block_types"]] == [False, True, True, True]


@pytest.mark.parametrize("name", VARIANTS)
def test_the_parts_of_a_variant_fit_together(name: str):
    variant = variant_named(name)
    with torch.device("meta"):
        unet, vae = build_unet(variant.unet), build_vae(variant.vae)
        image = torch.empty(1, 3, variant.input_side_px, variant.input_side_px)
        latents = vae.encode(image).latent_dist.mode()  # type: ignore[union-attr] - typed for its tuple form too
        context = torch.empty(1, 3, variant.text_width)
        output = unet(latents, 1, encoder_hidden_states=context).sample
    side = variant.input_side_px // 8
    assert latents.shape == output.shape == (1, 4, side, side)
    assert all(parameter.is_meta for part in (unet, vae) for parameter in part.parameters())
    assert variant.decoder.width % variant.decoder.reduction == 0


def test_the_paper_maps_have_the_side_of_the_latents():
    published = VARIANTS["sd15"]
    assert published.decoder.map_side == published.input_side_px // 8 == 64
    assert published.decoder.narrow[-1] == 8


def test_an_unknown_variant_is_refused_with_the_known_ones():
    with pytest.raises(PocketiqaError, match="variant 'sd21': choose sd15, tiny; other Stable Diffusion checkpoints"):
        variant_named("sd21")
