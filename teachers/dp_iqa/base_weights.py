"""Weights from others: a Stable Diffusion folder in the diffusers layout, and the authors' DP-IQA checkpoint.

``load_base`` reads a U-Net and an autoencoder from a folder (that ``teachers.needs`` finds), and ``load_official``
reads the authors' whole teacher. Models are built empty and filled strictly: a half-downloaded folder or a model of
another family raises an error and never leaves random weights.

Any latent diffusion model of the Stable Diffusion 1.x and 2.x kind can be loaded (2.1, SD-Turbo, distilled ones with
fewer blocks or without a middle block). What it was trained to predict does not matter, because only the outputs of the
up blocks are used.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import read_json
from pseudo_labels.tensor_files import assign, read_tensors, refuse_misfits, some, tensors_only
from teachers.dp_iqa.model import Conditioning, DpIqa, meta_model
from teachers.dp_iqa.variants import build_unet, build_vae
from teachers.needs import STABLE_DIFFUSION_FILES

_STEM = "diffusion_pytorch_model"
# In order of preference: safetensors before pickles, and of each kind float32 before float16.
_NAMES = (
    f"{_STEM}.safetensors",
    f"{_STEM}.safetensors.index.json",
    f"{_STEM}.fp16.safetensors",
    f"{_STEM}.bin",
    f"{_STEM}.fp16.bin",
)
# Names of the autoencoder's attention layers before diffusers 0.19, as in the files of Stable Diffusion 1.x on the hub.
_OLD_ATTENTION = (
    (re.compile(r"(attentions\.\d+)\.query\."), r"\1.to_q."),
    (re.compile(r"(attentions\.\d+)\.key\."), r"\1.to_k."),
    (re.compile(r"(attentions\.\d+)\.value\."), r"\1.to_v."),
    (re.compile(r"(attentions\.\d+)\.proj_attn\."), r"\1.to_out.0."),
)
# Our names -> the authors' names. conv1 takes the finest tap, as ``QualityDecoder.reduce[0]`` does.
_THEIRS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(ours), theirs)
    for ours, theirs in (
        (r"text_adapter\.gamma", "gamma"),
        (r"text_adapter\.layers\.", "text_adapter.fc."),
        (r"image_adapter\.adapter\.", "img_adapter."),
        *((rf"decoder\.reduce\.{index}\.", f"QFD.conv{index + 1}.") for index in range(4)),
        *((rf"decoder\.weigh\.{index}\.layers\.", f"QFD.se{index + 1}.fc.") for index in range(4)),
        (r"decoder\.fuse\.", "QFD.fuse_conv."),
        (r"decoder\.weigh_fused\.layers\.", "QFD.se_fuse.fc."),
        *((rf"decoder\.narrow\.{2 * index}\.", f"QFD.conv_score{index + 1}.") for index in range(3)),
        *((rf"decoder\.tail\.{2 * index}\.", f"QFD.fc{index + 1}.") for index in range(3)),
    )
)
# Layers in the published file that no score is computed from.
_UNUSED = re.compile(r"(QFD\.)?(bnc1|classifier_dist)\..+")
_PARALLEL = "module."  # prefix that torch's data parallelism puts before every name


def load_base(folder: Path) -> tuple[UNet2DConditionModel, AutoencoderKL]:
    """U-Net and autoencoder in float32 on the CPU.

    Args:
        folder: folder with ``unet`` and ``vae``, each with ``config.json`` and weights.

    Raises:
        PocketiqaError: a part is missing, corrupt, or of a model that DP-IQA cannot be built on.
    """
    unet_config, vae_config = _configs(folder)
    # On the meta device the random weights, which the file's tensors replace at once, cost neither time nor memory.
    with torch.device("meta"):
        unet, vae = build_unet(unet_config), build_vae(vae_config)
    assign(unet, read_tensors(_weights(folder / "unet")), str(folder / "unet"))
    assign(vae, _with_current_names(read_tensors(_weights(folder / "vae"))), str(folder / "vae"))
    return unet, vae


def check_folder(folder: Path) -> None:
    """Check in a moment that the files are present and of the right family, without reading weights.

    Raises:
        PocketiqaError: a file is missing, or DP-IQA cannot be built on the model; the same messages as ``load_base``.
    """
    _configs(folder)
    for part in ("unet", "vae"):
        _weights(folder / part)


def _with_current_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """An autoencoder's tensors under the names of the current diffusers, whichever release wrote them."""
    return {_current_name(name): tensor for name, tensor in tensors.items()}


def _current_name(name: str) -> str:
    for old, new in _OLD_ATTENTION:
        name = old.sub(new, name)
    return name


def _configs(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    unet, vae = _config(folder, "unet", UNet2DConditionModel.__name__), _config(folder, "vae", AutoencoderKL.__name__)
    refuse_other_families(unet, vae, str(folder))
    return unet, vae


def _config(folder: Path, part: str, family: str) -> dict[str, Any]:
    if not (folder / part).is_dir():
        entries = ", ".join(sorted(path.name for path in folder.iterdir())[:6]) or "nothing"
        raise PocketiqaError(
            f"{folder} has no {part}/ (it holds {entries}): fetch {' and '.join(STABLE_DIFFUSION_FILES)} of a "
            "Stable Diffusion 1.x or 2.x repository in the diffusers layout"
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
    entries = ", ".join(sorted(path.name for path in folder.iterdir()))
    raise PocketiqaError(
        f"{folder} has no weights (it holds {entries}): the download is incomplete, fetch {_NAMES[0]} and put it there"
    )


def refuse_other_families(unet: dict[str, Any], vae: dict[str, Any], where: str) -> None:
    """Refuse a U-Net that needs more than latents, a timestep and one text context.

    Args:
        unet: configuration of the U-Net.
        vae: configuration of the autoencoder.
        where: origin of both, for the message.

    Raises:
        PocketiqaError: DP-IQA cannot be built on this model; the message gives the reason.
    """
    reason = _misfit(unet, vae)
    if reason:
        raise PocketiqaError(f"{where} cannot carry DP-IQA: {reason}; give a text-to-image Stable Diffusion 1.x or 2.x")


def _misfit(unet: dict[str, Any], vae: dict[str, Any]) -> str:
    """The reason why DP-IQA cannot be built on this model; empty if it can."""
    conditions = (
        "addition_embed_type",
        "class_embed_type",
        "encoder_hid_dim",
        "num_class_embeds",
        "only_cross_attention",
    )
    required = [name for name in conditions if unet.get(name)]
    if required:
        return f"its U-Net needs more than text ({required[0]} is {unet[required[0]]!r}), as SDXL and upscalers do"
    if not isinstance(unet.get("cross_attention_dim"), int):
        return f"its cross_attention_dim is {unet.get('cross_attention_dim')!r}, not one number"
    # 4 is the default of diffusers for both, which a configuration may leave out.
    channels, latents = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if channels != latents:
        return f"its U-Net takes {channels} channels, its autoencoder gives {latents} (inpainting and depth models)"
    blocks = unet.get("down_block_types", ())
    # diffusers adds the adapter's residual before the downsampler only in cross-attention blocks. The last block has no
    # downsampler, so a plain one will do there.
    plain = [name for name in blocks[:-1] if not str(name).startswith("CrossAttn")]
    if plain:
        return f"its down block {plain[0]} takes no adapter residual before its downsampler"
    return ""


@dataclass(frozen=True)
class Official:
    """The authors' teacher, loaded.

    Attributes:
        model: model in evaluation mode, in float32, on the device of the checkpoint's tensors.
        unused: names of the checkpoint's tensors that no score depends on.
    """

    model: DpIqa
    unused: tuple[str, ...]


def load_official(
    checkpoint: str | Path | Mapping[str, Tensor],
    *,
    prompts: Tensor | None = None,
    conditioning: Conditioning | None = None,
    trainable: str = "all",
    variant: str = "sd15",
) -> Official:
    """Load the authors' checkpoint.

    Args:
        checkpoint: a ``.pth`` or safetensors file, or its state dict.
        prompts: float32 features [1485, 768] of a prompt bank; without them, each call of ``taps`` must pass some.
        conditioning: settings of the forward pass; the authors use ``posterior: sample``.
        trainable: key of ``model.TRAINABLE``.
        variant: key of ``VARIANTS``, for the sizes; ``sd15`` is the published one.

    Raises:
        PocketiqaError: the file is missing, corrupt or holds more than tensors; a tensor that is used is missing or of
            another shape; a tensor is foreign. The message has the checkpoint's own names.
    """
    if isinstance(checkpoint, str | Path):
        where, content = str(checkpoint), read_tensors(Path(checkpoint))
    else:
        where, content = "the state dict", tensors_only(checkpoint, "the state dict")
    given = {_normalised(name): tensor for name, tensor in content.items()}
    unused = tuple(name for name in given if _UNUSED.fullmatch(name))
    model = meta_model(variant, prompts=prompts, conditioning=conditioning, trainable=trainable)
    own = model.state_dict()
    # Compared under the authors' names, so that messages name what stands in the caller's file.
    needed = {official_name(name): tensor for name, tensor in own.items()}
    if not set(needed) & set(given):
        names = some(given) or "nothing"
        raise PocketiqaError(f"{where} is no DP-IQA checkpoint: it holds {names}; give the authors' published teacher")
    refuse_misfits(needed, {name: tensor for name, tensor in given.items() if name not in unused}, where)
    assign(model, {name: given[official_name(name)] for name in own}, where)
    return Official(model.eval(), unused)


def official_name(name: str) -> str:
    """The authors' name of one of our tensors; the U-Net and the autoencoder have diffusers' names in both."""
    for ours, theirs in _THEIRS:
        match = ours.match(name)
        if match:
            return theirs + name[match.end() :]
    return name


def _normalised(name: str) -> str:
    """A checkpoint's name without the prefixes of data parallelism and diffusers' wrapper, attention named as now."""
    name = name.removeprefix(_PARALLEL)
    if name.startswith("img_adapter.adapter."):
        name = "img_adapter." + name.removeprefix("img_adapter.adapter.")
    return _current_name(name)
