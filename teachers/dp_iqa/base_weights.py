"""A Stable Diffusion checkpoint in the diffusers layout -> its U-Net and its autoencoder, or one line why not.

The modules are built empty from their ``config.json`` and given their tensors strictly, so that a half-downloaded
folder or another family of models ends in a message and never in random weights. Any latent diffusion model of the
Stable Diffusion 1.x and 2.x kind will do (2.1, SD-Turbo, distilled ones with fewer blocks or without a middle block):
what it was trained to predict does not matter, because only the up blocks' outputs are used.
"""

import re
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import read_json
from teachers.dp_iqa.tensors import assign, read_tensors
from teachers.dp_iqa.variants import build_unet, build_vae

FILES = ("unet/*", "vae/*")
"""What is needed of a repository."""

_STEM = "diffusion_pytorch_model"
_NAMES = (
    f"{_STEM}.safetensors",
    f"{_STEM}.safetensors.index.json",
    f"{_STEM}.fp16.safetensors",
    f"{_STEM}.bin",
    f"{_STEM}.fp16.bin",
)
# How the autoencoder's attention was called before diffusers 0.19, as in the files of Stable Diffusion 1.x on the hub.
_OLD_ATTENTION = (
    (re.compile(r"(attentions\.\d+)\.query\."), r"\1.to_q."),
    (re.compile(r"(attentions\.\d+)\.key\."), r"\1.to_k."),
    (re.compile(r"(attentions\.\d+)\.value\."), r"\1.to_v."),
    (re.compile(r"(attentions\.\d+)\.proj_attn\."), r"\1.to_out.0."),
)


def load_base(folder: Path) -> tuple[UNet2DConditionModel, AutoencoderKL]:
    """U-Net and autoencoder in float32 on the CPU.

    Args:
        folder: with ``unet`` and ``vae``, each with ``config.json`` and weights.

    Raises:
        PocketiqaError: a part is missing, damaged, or of a model that DP-IQA cannot be built on.
    """
    unet_config, vae_config = _configs(folder)
    with torch.device("meta"):
        unet, vae = build_unet(unet_config), build_vae(vae_config)
    assign(unet, read_tensors(_weights(folder / "unet")), str(folder / "unet"))
    assign(vae, with_today_names(read_tensors(_weights(folder / "vae"))), str(folder / "vae"))
    return unet, vae


def check_folder(folder: Path) -> None:
    """Refuse at once, without reading weights, what ``load_base`` would refuse for its kind or for a missing file.

    Raises:
        PocketiqaError: as there.
    """
    _configs(folder)
    for part in ("unet", "vae"):
        _weights(folder / part)


def with_today_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """An autoencoder's tensors under the names of today's diffusers, whatever release wrote them."""
    return {today_name(name): tensor for name, tensor in tensors.items()}


def today_name(name: str) -> str:
    """One name of an autoencoder's tensor."""
    for old, new in _OLD_ATTENTION:
        name = old.sub(new, name)
    return name


def _configs(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    unet, vae = _config(folder, "unet", UNet2DConditionModel.__name__), _config(folder, "vae", AutoencoderKL.__name__)
    refuse_other_families(unet, vae, str(folder))
    return unet, vae


def _config(folder: Path, part: str, family: str) -> dict[str, Any]:
    if not (folder / part).is_dir():
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:6]) or "nothing"
        raise PocketiqaError(
            f"{folder} has no {part}/ (it holds {found}): fetch {' and '.join(FILES)} of a Stable Diffusion 1.x or 2.x "
            "repository in the diffusers layout"
        )
    config = read_json(folder / part / "config.json", what=f"configuration of the {part} (an incomplete download?)")
    name = config.get("_class_name") if isinstance(config, dict) else None
    if name != family:
        raise PocketiqaError(
            f"{folder / part} holds {name!r}, but DP-IQA is built on {family}: give Stable Diffusion 1.x or 2.x"
        )
    return config


def _weights(folder: Path) -> Path:
    for name in _NAMES:
        if (folder / name).is_file():
            return folder / name
    found = ", ".join(sorted(path.name for path in folder.iterdir()))
    raise PocketiqaError(
        f"{folder} has no weights (it holds {found}): the download is incomplete, fetch {_NAMES[0]} and put it there"
    )


def refuse_other_families(unet: dict[str, Any], vae: dict[str, Any], where: str) -> None:
    """Refuse a U-Net that needs more than latents, a timestep and one text context.

    Raises:
        PocketiqaError: names what it needs, or what does not fit together.
    """
    reason = _misfit(unet, vae)
    if reason:
        raise PocketiqaError(f"{where} cannot carry DP-IQA: {reason}; give a text-to-image Stable Diffusion 1.x or 2.x")


def _misfit(unet: dict[str, Any], vae: dict[str, Any]) -> str:
    conditions = (
        "addition_embed_type",
        "class_embed_type",
        "encoder_hid_dim",
        "num_class_embeds",
        "only_cross_attention",
    )
    asked = [name for name in conditions if unet.get(name)]
    if asked:
        return f"its U-Net wants more than text ({asked[0]} is {unet[asked[0]]!r}), as SDXL and upscalers do"
    if not isinstance(unet.get("cross_attention_dim"), int):
        return f"its cross_attention_dim is {unet.get('cross_attention_dim')!r}, not one number"
    channels, latents = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if channels != latents:
        return f"its U-Net takes {channels} channels, its autoencoder gives {latents} (inpainting and depth models)"
    blocks = unet.get("down_block_types", ())
    plain = [name for name in blocks[:-1] if not str(name).startswith("CrossAttn")]
    if plain:
        return f"its down block {plain[0]} takes no adapter residual before its downsampler"
    return ""
