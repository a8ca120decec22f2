"""Parts -> model: the one place where the widths of U-Net, autoencoder, prompts and decoder meet."""

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from teachers.dp_iqa.adapters import TextAdapter, build_image_adapter
from teachers.dp_iqa.decoder import DecoderSizes, QualityDecoder
from teachers.dp_iqa.model import Conditioning, DpIqa
from teachers.dp_iqa.variants import Variant, build_unet, build_vae, variant_named


def assemble(
    unet: UNet2DConditionModel, vae: AutoencoderKL, sizes: DecoderSizes, text_width: int, **options: Any
) -> DpIqa:
    """Build adapters and decoder, with random weights, around a U-Net and its autoencoder.

    Args:
        unet: any that ``base_weights.refuse_other_families`` lets pass.
        vae: its own.
        sizes: of the decoder.
        text_width: of the prompt features.
        options: the other arguments of ``DpIqa``.
    """
    widths = tuple(unet.config["block_out_channels"])
    downscale = 2 ** (len(vae.config["block_out_channels"]) - 1)
    return DpIqa(
        unet=unet,
        vae=vae,
        text_adapter=TextAdapter(text_width, unet.config["cross_attention_dim"]),
        image_adapter=build_image_adapter(widths, downscale),
        decoder=QualityDecoder(tuple(reversed(widths)), sizes),
        **options,
    )


def random_model(variant: Variant, **options: Any) -> DpIqa:
    """A model of a variant's sizes with random weights, on the current default device."""
    unet, vae = build_unet(variant.unet), build_vae(variant.vae)
    return assemble(unet, vae, variant.decoder, variant.text_width, **options)


def meta_model(
    variant: str,
    *,
    prompts: Tensor | None = None,
    conditioning: Conditioning | None = None,
    trainable: str = "all",
) -> DpIqa:
    """The same without memory for its weights: names and shapes, to be filled or counted."""
    with torch.device("meta"):
        return random_model(variant_named(variant), prompts=prompts, conditioning=conditioning, trainable=trainable)
