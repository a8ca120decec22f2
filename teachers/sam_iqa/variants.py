"""The sizes of SAM's image encoder, every number in one place, and how an encoder is built from them."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.tensor_files import misfits, read_torch_file, some

TAPS = 3
"""Feature maps that the head sees: the outputs of the last three global-attention blocks (our choice)."""


@dataclass(frozen=True)
class SamVariant:
    """One size of the encoder (Kirillov et al. 2023, arXiv 2304.02643, appendix A; values of the official release).

    Attributes:
        embed_dim: channels of a token.
        depth: transformer blocks.
        num_heads: attention heads.
        global_blocks: blocks that attend to the whole image; the others attend within windows.
        checkpoint: official file name; empty where Meta published none.
        md5: of the official file, hex; its first digits are in the file's name.
        native_side_px: side of the square input that it was trained on.
        patch_px: side of a patch.
        window: side of an attention window, in patches.
        neck_width: channels of the encoder's output.
    """

    embed_dim: int
    depth: int
    num_heads: int
    global_blocks: tuple[int, ...]
    checkpoint: str
    md5: str
    native_side_px: int = 1024
    patch_px: int = 16
    window: int = 14
    neck_width: int = 256

    @property
    def taps(self) -> tuple[int, ...]:
        """Indices of the blocks whose outputs the head sees."""
        return self.global_blocks[-TAPS:]

    def check_side(self, side_px: int) -> None:
        """Refuse an input size that this encoder cannot take.

        Below one window, windowed attention would look at more padding than image; above the native size the position
        embeddings would have to be extrapolated.

        Raises:
            PocketiqaError: not a multiple of the patch, or out of range.
        """
        least = self.window * self.patch_px
        if not isinstance(side_px, int) or side_px % self.patch_px or not least <= side_px <= self.native_side_px:
            raise PocketiqaError(
                f"input_side_px {side_px!r}: it must be a multiple of {self.patch_px} from {least} to "
                f"{self.native_side_px}, such as {self.native_side_px // 2}"
            )


VARIANTS: dict[str, SamVariant] = {
    "vit_b": SamVariant(768, 12, 12, (2, 5, 8, 11), "sam_vit_b_01ec64.pth", "01ec64d29a2fca3f0661936605ae66f8"),
    "vit_l": SamVariant(1024, 24, 16, (5, 11, 17, 23), "sam_vit_l_0b3195.pth", "0b3195507c641ddb6910d2bb5adee89c"),
    "vit_h": SamVariant(1280, 32, 16, (7, 15, 23, 31), "sam_vit_h_4b8939.pth", "4b8939a88964f0f4ff5f5b2642c598a6"),
    # The same graph for tests: windows that need padding (16 patches in windows of 5), four global blocks of eight.
    "tiny": SamVariant(48, 8, 3, (1, 3, 5, 7), "", "", native_side_px=128, patch_px=8, window=5, neck_width=32),
}


def variant_named(name: str) -> SamVariant:
    """Look a variant up.

    Raises:
        PocketiqaError: there is none of this name.
    """
    if name not in VARIANTS:
        raise PocketiqaError(f"unknown SAM variant {name!r}: choose {', '.join(VARIANTS)}")
    return VARIANTS[name]


def build_vit(variant: SamVariant) -> ImageEncoderViT:
    """segment-anything's own encoder, with random weights, on the current default device (``meta`` costs nothing)."""
    return ImageEncoderViT(
        img_size=variant.native_side_px,
        patch_size=variant.patch_px,
        embed_dim=variant.embed_dim,
        depth=variant.depth,
        num_heads=variant.num_heads,
        out_chans=variant.neck_width,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),  # type: ignore[arg-type] - a factory of one
        use_rel_pos=True,
        window_size=variant.window,
        global_attn_indexes=variant.global_blocks,
    )


def meta_vit(variant: SamVariant) -> ImageEncoderViT:
    """The encoder without memory for its weights: names and shapes only."""
    with torch.device("meta"):
        return build_vit(variant)


def parameter_count(module: nn.Module) -> int:
    """Number of parameters, trained or not."""
    return sum(parameter.numel() for parameter in module.parameters())


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
