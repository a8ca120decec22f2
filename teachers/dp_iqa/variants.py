"""Sizes of DP-IQA: Stable Diffusion 1.5 with the paper's decoder, and a small model of the same structure for tests."""

from dataclasses import dataclass, field
from typing import Any, cast

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from pseudo_labels.errors import PocketiqaError
from teachers.dp_iqa.decoder import DecoderSizes
from teachers.needs import DP_IQA_SOURCES

_CROSS = "CrossAttnDownBlock2D"
_CROSS_UP = "CrossAttnUpBlock2D"


@dataclass(frozen=True)
class Variant:
    """Sizes and default sources of a model.

    ``unet``, ``vae`` and ``text_width`` are used for random weights and for the authors' checkpoint. A folder of
    weights in the diffusers layout has its own.

    Attributes:
        unet: configuration of ``UNet2DConditionModel``.
        vae: configuration of ``AutoencoderKL``.
        text_width: channels of a prompt feature.
        decoder: sizes of the quality feature decoder.
        input_side_px: default side of the square input, in pixels.
        repository: ``owner/name`` on the hub of the weights that are used when none are given; empty if there are none.
        clip: ``owner/name`` on the hub of the text encoder that is used when none is given; empty if there is none.
    """

    unet: dict[str, Any]
    vae: dict[str, Any]
    text_width: int
    decoder: DecoderSizes = field(default_factory=DecoderSizes)
    input_side_px: int = 512
    repository: str = ""
    clip: str = ""


def _unet(widths: tuple[int, ...], **others: Any) -> dict[str, Any]:
    # Stable Diffusion has cross-attention at all sizes but the coarsest, on both sides of the U.
    coarse = len(widths) - 1
    return {
        "block_out_channels": widths,
        "down_block_types": (_CROSS,) * coarse + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + (_CROSS_UP,) * coarse,
        **others,
    }


def _vae(widths: tuple[int, ...], **others: Any) -> dict[str, Any]:
    return {
        "block_out_channels": widths,
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "latent_channels": 4,
        **others,
    }


VARIANTS: dict[str, Variant] = {
    "sd15": Variant(
        # In the configurations of Stable Diffusion 1.x, ``attention_head_dim`` is the number of heads.
        unet=_unet((320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8),
        vae=_vae((128, 256, 512, 512), layers_per_block=2),
        text_width=768,
        repository=DP_IQA_SOURCES["sd15"][0],
        clip=DP_IQA_SOURCES["sd15"][1],
    ),
    # The same structure with few channels, so that tests pass through every layer in seconds.
    "tiny": Variant(
        unet=_unet(
            (16, 32, 32, 32), cross_attention_dim=32, attention_head_dim=2, layers_per_block=1, norm_num_groups=8
        ),
        vae=_vae((8, 8, 16, 16), layers_per_block=1, norm_num_groups=4),
        text_width=32,
        decoder=DecoderSizes(width=16, reduction=4, narrow=(16, 16, 8), hidden=64, map_side=16),
        input_side_px=64,
    ),
}


def variant_named(name: str) -> Variant:
    """The variant of this name.

    Raises:
        PocketiqaError: ``name`` is no key of ``VARIANTS``; lists them.
    """
    if name not in VARIANTS:
        raise PocketiqaError(
            f"variant {name!r}: choose {', '.join(VARIANTS)}; other Stable Diffusion checkpoints are given as weights"
        )
    return VARIANTS[name]


def build_unet(config: dict[str, Any]) -> UNet2DConditionModel:
    """The U-Net of diffusers with random weights, on the current default device (``meta`` takes no memory)."""
    return cast(UNet2DConditionModel, UNet2DConditionModel.from_config(config))


def build_vae(config: dict[str, Any]) -> AutoencoderKL:
    """The autoencoder of diffusers with random weights, on the current default device (``meta`` takes no memory)."""
    return cast(AutoencoderKL, AutoencoderKL.from_config(config))
