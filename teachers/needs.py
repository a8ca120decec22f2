"""What a teacher needs beside packages, determined without importing it: weights and heads that a user supplies.

So that whoever sets up a teacher of several gigabytes hears at once of all that is missing. Imports no torch.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import parse_json

NEW_HEAD = "new"
WEIGHTS_VARIABLE = "POCKETIQA_WEIGHTS"
STABLE_DIFFUSION_FILES = ("unet/*", "vae/*")
"""Files that are needed of a Stable Diffusion repository, as patterns of the hub's client."""
TEXT_ENCODER_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
)
"""Files that are needed of a CLIP repository."""
DP_IQA_SOURCES = {"sd15": ("stable-diffusion-v1-5/stable-diffusion-v1-5", "openai/clip-vit-large-patch14")}
"""Repositories on the hub of the default weights and text encoder, by variant of DP-IQA; others have none."""
SAM_CHECKPOINTS = {"vit_b": "sam_vit_b_01ec64.pth", "vit_l": "sam_vit_l_0b3195.pth", "vit_h": "sam_vit_h_4b8939.pth"}
"""Names of Meta's files, by variant of SAM's encoder; others have none."""

_DEFAULT_FOLDER = Path("~/.cache/pocketiqa/weights")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_PROJECTION = "text_projection.weight"

Options = Mapping[str, Any]


def weights_folder() -> Path:
    """Where weights are looked for: ``$POCKETIQA_WEIGHTS``, by default ``~/.cache/pocketiqa/weights``."""
    return Path(os.environ.get(WEIGHTS_VARIABLE) or _DEFAULT_FOLDER).expanduser()


def no_head(teacher: str, *others: str) -> str:
    """Words for a teacher without a head.

    Args:
        teacher: name, with its variant.
        others: further ways to give one.
    """
    ways = "".join(f"{way}, " for way in others)
    return (
        f"{teacher} has no head: give head=FILE of one that `pocketiqa fit-teacher` made, {ways}or head={NEW_HEAD!r} "
        "to fit one (its scores mean nothing before)"
    )


def missing_files(teacher: str, options: Options) -> list[str]:
    """Words for each file that a teacher lacks, with the way to supply it; all of them, as far as can be known.

    Args:
        teacher: name in the registry; of others nothing is known.
        options: of the teacher.
    """
    return _MISSING.get(teacher, _none)(options)


def find_folder(name: str | Path, *, option: str, patterns: Sequence[str], download: bool = False) -> Path:
    """The local folder of a model repository.

    Three locations are tried in this order: ``name`` as a folder; a folder with the repository's name (without its
    owner) inside ``weights_folder``; the cache of the Hugging Face hub.

    Args:
        name: a folder, or ``owner/repository`` on the hub.
        option: name of the caller's option, for the message.
        patterns: the files needed, as patterns of the hub's client.
        download: fetch the files from the hub if they are not on this machine.

    Raises:
        PocketiqaError: the repository is not on this machine (the message names the files to fetch and their folder),
            or the download failed.
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
    local = weights_folder() / path.name
    return local if local.is_dir() else _from_hub(str(name), local, option, patterns, download)


def _from_hub(name: str, local: Path, option: str, patterns: Sequence[str], download: bool) -> Path:
    """The repository in the hub's cache, downloaded if allowed; ``local`` is the folder that a message proposes."""
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=list(patterns), local_files_only=not download))
    except Exception as error:  # the hub's client raises errors of several libraries, or is not installed
        if download:
            reason = " ".join(str(error).split())[:160]
            raise PocketiqaError(
                f"{name} could not be fetched from the Hugging Face hub ({reason}): check the network, or fetch it "
                f"elsewhere and put it at {local}"
            ) from error
        raise PocketiqaError(
            f"no weights of {name} on this machine: fetch {', '.join(patterns)} of {name} from the Hugging Face hub "
            f"and put them at {local} (or give {option}=FOLDER, or download=True)"
        ) from error


def has_projection(folder: Path) -> bool:
    """Whether this folder's text encoder has its projection; reads only the header of the weights."""
    path = text_model_folder(folder) / "model.safetensors"
    try:
        with open(path, "rb") as file:
            # A safetensors file begins with the length of its JSON header. The limit keeps a large file of another kind
            # from being read whole.
            size = int.from_bytes(file.read(8), "little")
            return _PROJECTION in parse_json(file.read(min(size, 1 << 26)))
    except (OSError, ValueError):
        return False


def text_model_folder(folder: Path) -> Path:
    """Where a text encoder's weights lie in a CLIP repository, or in one of Stable Diffusion."""
    return folder / "text_encoder" if (folder / "text_encoder").is_dir() else folder


def find_sam_checkpoint(name: str, weights: str | Path | None) -> Path:
    """Path of a checkpoint of SAM.

    Args:
        name: variant of the encoder.
        weights: the file, or a folder with the file under its official name; None means ``weights_folder``.

    Raises:
        PocketiqaError: there is no such file; the message names the file to fetch and its folder.
    """
    official = SAM_CHECKPOINTS.get(name, "")
    if weights is None and not official:
        raise PocketiqaError(f"SAM variant {name!r} has no official weights: give weights=FILE, or pretrained=False")
    location = Path(weights).expanduser() if weights else weights_folder()
    path = location / official if official and (weights is None or location.is_dir()) else location
    if path.is_file():
        return path
    raise PocketiqaError(
        f"no SAM weights at {path}: fetch {official or 'the checkpoint'} (links in the README of facebookresearch/"
        f"segment-anything) and put it there, or name it with weights=FILE or {WEIGHTS_VARIABLE}=FOLDER"
    )


def _none(_options: Options) -> list[str]:
    return []


def _dp_iqa(options: Options) -> list[str]:
    variant, official = str(options.get("variant", "sd15")), options.get("official")
    pretrained, download = options.get("pretrained", True), bool(options.get("download"))
    words = _files(options, "head", "official", "prompts")
    if options.get("head") is None and not official and pretrained:
        words.append(no_head(f"dp_iqa {variant}", "official=FILE of the authors"))
    weights, clip = DP_IQA_SOURCES.get(variant, ("", ""))
    base: Path | None = None
    if pretrained and not official and (given := options.get("weights") or weights):
        try:
            base = find_folder(given, option="weights", patterns=STABLE_DIFFUSION_FILES, download=download)
        except PocketiqaError as error:
            words.append(str(error))
    clip = options.get("clip") or (clip if pretrained else "")
    has_text = options.get("prompts") or (base is not None and not options.get("clip") and has_projection(base))
    if clip and not has_text:
        try:
            find_folder(clip, option="clip", patterns=TEXT_ENCODER_FILES, download=download)
        except PocketiqaError as error:
            words.append(str(error))
    return words


def _sam_iqa(options: Options) -> list[str]:
    variant, pretrained = str(options.get("variant", "vit_b")), options.get("pretrained", True)
    words = _files(options, "head")
    if options.get("head") is None and pretrained:
        words.append(no_head(f"sam_iqa {variant}"))
    if pretrained:
        try:
            find_sam_checkpoint(variant, options.get("weights"))
        except PocketiqaError as error:
            words.append(str(error))
    return words


def _on_timm(teacher: str, options: Options) -> list[str]:
    backbone, pretrained = options.get("backbone", "mobilenetv2_100"), options.get("pretrained")
    words = _files(options, "head", "weights")
    if options.get("head") is None and pretrained is not False:
        words.append(no_head(teacher))
    if pretrained is None and options.get("weights") is None:
        words.append(no_backbone_weights(teacher, str(backbone)))
    return words


def check_backbone_choice(
    teacher: str, backbone: str, weights: str | Path | None, pretrained: bool | None, head: str | Path | None
) -> None:
    """Refuse options of a teacher on a backbone of timm that leave open, or state twice, where its weights come from.

    Raises:
        PocketiqaError: no head, no weights of the backbone, or two sources of them.
    """
    # Nothing random without a word of the caller: a forgotten option would give scores that mean nothing.
    if head is None and pretrained is not False:
        raise PocketiqaError(no_head(teacher))
    if pretrained is not None and weights is not None:
        raise PocketiqaError(f"pretrained is {pretrained} and weights is {str(weights)!r}: only one can hold")
    if pretrained is None and weights is None:
        raise PocketiqaError(no_backbone_weights(teacher, backbone))


def no_backbone_weights(teacher: str, backbone: str) -> str:
    """Words for a teacher on a backbone of timm whose options do not say where its weights come from."""
    return (
        f"{teacher} has no weights of {backbone}: give weights=FILE, pretrained=true for timm's (which may be "
        "fetched from its hub), or pretrained=false for random ones"
    )


def _files(options: Options, *names: str) -> list[str]:
    """Words for each of these options that names a file which is not there."""
    given = {name: options[name] for name in names if options.get(name) and str(options[name]) != NEW_HEAD}
    return [
        f"{name} is {str(value)!r}, but there is no such file: check the path"
        for name, value in given.items()
        if not Path(str(value)).expanduser().is_file()
    ]


_MISSING: dict[str, Callable[[Options], list[str]]] = {
    "dp_iqa": _dp_iqa,
    "sam_iqa": _sam_iqa,
    "qfm_iqm": partial(_on_timm, "qfm_iqm"),
    "kernel_ridge": partial(_on_timm, "kernel_ridge"),
}
