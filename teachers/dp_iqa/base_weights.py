"""A Stable Diffusion checkpoint in the diffusers layout -> its U-Net and its autoencoder, or one line why not.

The modules are built empty from their ``config.json`` and given their tensors strictly, so that a half-downloaded
folder or another family of models ends in a message and never in random weights. Any latent diffusion model of the
Stable Diffusion 1.x and 2.x kind will do (2.1, SD-Turbo, distilled ones with fewer blocks or without a middle block):
what it was trained to predict does not matter, because only the up blocks' outputs are used.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from huggingface_hub import snapshot_download
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import read_json
from pseudo_labels.tensor_files import assign, read_tensors, refuse_misfits, some, tensors_only
from teachers.dp_iqa.model import Conditioning, DpIqa, meta_model
from teachers.dp_iqa.variants import build_unet, build_vae

WEIGHTS_VARIABLE = "POCKETIQA_WEIGHTS"
_DEFAULT_FOLDER = Path("~/.cache/pocketiqa/weights")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def find_folder(name: str | Path, *, option: str, patterns: Sequence[str], download: bool = False) -> Path:
    """The local folder of a model repository.

    Looked for, in this order: ``name`` as a folder; the repository's last name inside the folder that
    ``POCKETIQA_WEIGHTS`` names, or else inside ``~/.cache/pocketiqa/weights``; the cache of the Hugging Face hub.

    Args:
        name: a folder, or ``owner/repository`` on the hub.
        option: what the caller's option is called, for the message.
        patterns: the files needed, as the hub's client takes them.
        download: fetch them from the hub if they are not there.

    Raises:
        PocketiqaError: it is not on this machine; says what to fetch and where to put it. Or the download failed.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise PocketiqaError(
            f"{option} is the file {path}, but a folder in the diffusers layout is needed (unet/, vae/ with "
            "config.json and safetensors)"
        )
    if not _HUB_NAME.fullmatch(str(name)):
        raise PocketiqaError(f"{option} is {str(name)!r}: no such folder, and no repository name of the hub")
    place = Path(os.environ.get(WEIGHTS_VARIABLE) or _DEFAULT_FOLDER).expanduser() / path.name
    return place if place.is_dir() else _from_hub(str(name), place, option, patterns, download)


def _from_hub(name: str, place: Path, option: str, patterns: Sequence[str], download: bool) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns), local_files_only=not download))
    except Exception as error:  # the hub's client raises errors of several libraries
        if download:
            reason = " ".join(str(error).split())[:160]
            raise PocketiqaError(
                f"{name} could not be fetched from the Hugging Face hub ({reason}): check the network, or fetch it "
                f"elsewhere and put it at {place}"
            ) from error
        raise PocketiqaError(
            f"no weights of {name} on this machine: fetch {', '.join(patterns)} of {name} from the Hugging Face hub "
            f"and put them at {place} (or give {option}=FOLDER, or download=True)"
        ) from error


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


# Ours -> theirs. conv1 takes the finest tap, as ``QualityDecoder.reduce[0]`` does.
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
_PLAYS_NO_PART = re.compile(r"(QFD\.)?(bnc1|classifier_dist)\..+")
_PARALLEL = "module."


@dataclass(frozen=True)
class Official:
    """A loaded checkpoint.

    Attributes:
        model: in evaluation mode, float32, on the device of the tensors.
        unused: names in the checkpoint that play no part in a score.
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
        prompts: features [1485, 768] of a prompt bank; without them, ``taps`` must be given some.
        conditioning: the authors' own choice is ``posterior: sample``.
        trainable: what stays trainable.
        variant: sizes; ``sd15`` is the published one.

    Raises:
        PocketiqaError: the file is missing, damaged or not tensors alone; an entry that is used is missing or of
            another shape; an entry is foreign. The message has the checkpoint's own names.
    """
    if isinstance(checkpoint, str | Path):
        where, content = str(checkpoint), read_tensors(Path(checkpoint))
    else:
        where, content = "the state dict", tensors_only(checkpoint, "the state dict")
    given = {_one_spelling(name): tensor for name, tensor in content.items()}
    unused = tuple(name for name in given if _PLAYS_NO_PART.fullmatch(name))
    model = meta_model(variant, prompts=prompts, conditioning=conditioning, trainable=trainable)
    own = model.state_dict()
    wanted = {official_name(name): tensor for name, tensor in own.items()}
    if not set(wanted) & set(given):
        found = some(given) or "nothing"
        raise PocketiqaError(f"{where} is no DP-IQA checkpoint: it holds {found}; give the authors' published teacher")
    refuse_misfits(wanted, {name: tensor for name, tensor in given.items() if name not in unused}, where)
    assign(model, {name: given[official_name(name)] for name in own}, where)
    return Official(model.eval(), unused)


def official_name(name: str) -> str:
    """The authors' name of one of our tensors."""
    for ours, theirs in _THEIRS:
        match = ours.match(name)
        if match:
            return theirs + name[match.end() :]
    return name


def _one_spelling(name: str) -> str:
    """Without what data parallelism and diffusers' wrapper put in front, and with today's names of attention."""
    name = name.removeprefix(_PARALLEL)
    if name.startswith("img_adapter.adapter."):
        name = "img_adapter." + name.removeprefix("img_adapter.adapter.")
    return today_name(name)
