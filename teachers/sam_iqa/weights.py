"""Official SAM checkpoints: found, read without trusting them, and told apart."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segment_anything.modeling import ImageEncoderViT
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from teachers.misfits import misfits, some
from teachers.sam_iqa.variants import VARIANTS, meta_vit
from teachers.torch_files import read_torch_file

WEIGHTS_VARIABLE = "POCKETIQA_WEIGHTS"
_DEFAULT_FOLDER = Path("~/.cache/pocketiqa/weights")
_PREFIX = "image_encoder."
_OTHER_PARTS = ("prompt_encoder.", "mask_decoder.")


def load_vit(name: str, weights: str | Path | None) -> ImageEncoderViT:
    """The encoder ``name`` with the weights of an official checkpoint, in float32 on the CPU.

    Args:
        name: key of ``VARIANTS``.
        weights: the file, or a folder that holds it under its official name; None looks into the folder that
            ``POCKETIQA_WEIGHTS`` names, else into ``~/.cache/pocketiqa/weights``.

    Raises:
        PocketiqaError: not there, damaged, not only tensors, or not of this encoder.
    """
    path = find_checkpoint(name, weights)
    tensors = _encoder_part(read_checkpoint(path), path)
    vit = meta_vit(VARIANTS[name])
    _check_fit(tensors, vit, name, path)
    vit.load_state_dict({key: value.float() for key, value in tensors.items()}, assign=True)
    return vit


def find_checkpoint(name: str, weights: str | Path | None) -> Path:
    """Where the checkpoint is.

    Raises:
        PocketiqaError: there is none; says which file to fetch and where to put it.
    """
    official = VARIANTS[name].checkpoint
    if weights is None and not official:
        raise PocketiqaError(f"SAM variant {name!r} has no official weights: give weights=FILE, or pretrained=False")
    place = Path(weights or os.environ.get(WEIGHTS_VARIABLE) or _DEFAULT_FOLDER).expanduser()
    path = place / official if official and (weights is None or place.is_dir()) else place
    if path.is_file():
        return path
    raise PocketiqaError(
        f"no SAM weights at {path}: fetch {official or 'the checkpoint'} (links in the README of facebookresearch/"
        f"segment-anything) and put it there, or name it with weights=FILE or {WEIGHTS_VARIABLE}=FOLDER"
    )


def read_checkpoint(path: Path) -> Any:
    """The content of a ``.pth`` file; nothing in it is ever run.

    Raises:
        PocketiqaError: it cannot be opened, is cut off or no checkpoint, or holds more than tensors.
    """
    _refuse_damaged(path)
    return read_torch_file(path)


def _refuse_damaged(path: Path) -> None:
    """Refuse a file with an official name and other content: torch checks no sums of what it reads."""
    official = next((variant.md5 for variant in VARIANTS.values() if variant.checkpoint == path.name), "")
    if not official:
        return
    try:
        with open(path, "rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise PocketiqaError(f"{path} cannot be read ({error.strerror}): mend that, or fetch it again") from error
    if md5 != official:
        raise PocketiqaError(
            f"{path} is damaged or half downloaded: its MD5 is {md5}, the official one {official}; fetch it again, "
            "or rename it if it is another file"
        )


def _encoder_part(content: Any, path: Path) -> dict[str, Tensor]:
    """The encoder's tensors, by their names within it."""
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        found = f"the entries {some(content)}" if isinstance(content, Mapping) else type(content).__name__
        raise PocketiqaError(f"{path} holds {found}, not SAM's tensors by name: give an official SAM checkpoint")
    foreign = [key for key in content if not key.startswith((_PREFIX, *_OTHER_PARTS))]
    encoder = {key.removeprefix(_PREFIX): value for key, value in content.items() if key.startswith(_PREFIX)}
    if foreign or not encoder:
        raise PocketiqaError(
            f"{path} is no SAM checkpoint: {'foreign' if foreign else 'only the'} entries {some(foreign or content)}; "
            f"needed are {_PREFIX}* (with {', '.join(part + '*' for part in _OTHER_PARTS)})"
        )
    return encoder


def _check_fit(tensors: Mapping[str, Tensor], vit: ImageEncoderViT, name: str, path: Path) -> None:
    """Refuse missing, foreign and misshapen tensors; say so if it is another size of SAM."""
    said = misfits(vit.state_dict(), tensors)
    if not said:
        return
    for other, variant in VARIANTS.items():
        if not misfits(meta_vit(variant).state_dict(), tensors):
            raise PocketiqaError(f"{path} holds SAM {other}, not {name}: give variant={other!r} or {_file_of(name)}")
    raise PocketiqaError(f"{path} does not fit the encoder of SAM {name}: {said}; give {_file_of(name)}")


def _file_of(name: str) -> str:
    return VARIANTS[name].checkpoint or f"a checkpoint of {name}"
