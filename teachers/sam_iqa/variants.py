"""SAM's image encoder: its sizes, and encoders with random weights or with those of an official checkpoint.

``VARIANTS`` holds all sizes. ``build_vit`` and ``meta_vit`` build an encoder from them, and ``load_vit`` reads one of
Meta's checkpoints into it.
"""

import hashlib
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
from teachers.needs import SAM_CHECKPOINTS, find_sam_checkpoint

TAPS = 3
"""Number of feature maps that the head reads: the outputs of the last three global-attention blocks (our choice)."""

# Names of tensors in a checkpoint of a whole SAM begin with one of these.
_PREFIX = "image_encoder."
_OTHER_PARTS = ("prompt_encoder.", "mask_decoder.")


@dataclass(frozen=True)
class SamVariant:
    """One size of the encoder (Kirillov et al. 2023, arXiv 2304.02643, appendix A; values of the official release).

    Attributes:
        embed_dim: channels of a token.
        depth: number of transformer blocks.
        num_heads: attention heads of a block.
        global_blocks: indices of the blocks that attend to the whole image; the others attend within windows.
        checkpoint: name of the official file; empty where Meta published none.
        md5: MD5 of the official file, hex; its first digits are in the file's name.
        native_side_px: side of the square input in training, in pixels.
        patch_px: side of a patch, in pixels.
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
        """Indices of the blocks whose outputs the head reads."""
        return self.global_blocks[-TAPS:]

    def check_side(self, side_px: int) -> None:
        """Refuse an input size that this encoder cannot take.

        Raises:
            PocketiqaError: ``side_px`` is no multiple of the patch, or out of range.
        """
        # Below one window, attention within windows would read more padding than image. Above the native size, the
        # position embeddings would have to be extrapolated.
        least = self.window * self.patch_px
        if not isinstance(side_px, int) or side_px % self.patch_px or not least <= side_px <= self.native_side_px:
            raise PocketiqaError(
                f"input_side_px {side_px!r}: it must be a multiple of {self.patch_px} from {least} to "
                f"{self.native_side_px}, such as {self.native_side_px // 2}"
            )


VARIANTS: dict[str, SamVariant] = {
    "vit_b": SamVariant(
        embed_dim=768,
        depth=12,
        num_heads=12,
        global_blocks=(2, 5, 8, 11),
        checkpoint=SAM_CHECKPOINTS["vit_b"],
        md5="01ec64d29a2fca3f0661936605ae66f8",
    ),
    "vit_l": SamVariant(
        embed_dim=1024,
        depth=24,
        num_heads=16,
        global_blocks=(5, 11, 17, 23),
        checkpoint=SAM_CHECKPOINTS["vit_l"],
        md5="0b3195507c641ddb6910d2bb5adee89c",
    ),
    "vit_h": SamVariant(
        embed_dim=1280,
        depth=32,
        num_heads=16,
        global_blocks=(7, 15, 23, 31),
        checkpoint=SAM_CHECKPOINTS["vit_h"],
        md5="4b8939a88964f0f4ff5f5b2642c598a6",
    ),
    # The same structure for tests: windows that need padding (16 patches in windows of 5), four global blocks of eight.
    "tiny": SamVariant(
        embed_dim=48,
        depth=8,
        num_heads=3,
        global_blocks=(1, 3, 5, 7),
        checkpoint="",
        md5="",
        native_side_px=128,
        patch_px=8,
        window=5,
        neck_width=32,
    ),
}


def variant_named(name: str) -> SamVariant:
    """The variant of this name.

    Raises:
        PocketiqaError: ``name`` is no key of ``VARIANTS``; lists them.
    """
    if name not in VARIANTS:
        raise PocketiqaError(f"unknown SAM variant {name!r}: choose {', '.join(VARIANTS)}")
    return VARIANTS[name]


def build_vit(variant: SamVariant) -> ImageEncoderViT:
    """segment-anything's own encoder, with random weights, on the current default device (``meta`` takes no memory)."""
    return ImageEncoderViT(
        img_size=variant.native_side_px,
        patch_size=variant.patch_px,
        embed_dim=variant.embed_dim,
        depth=variant.depth,
        num_heads=variant.num_heads,
        out_chans=variant.neck_width,
        # As in the official builder; with torch's own epsilon, 1e-5, all features would differ slightly.
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),  # type: ignore[arg-type] - typed as a class, called as a factory
        use_rel_pos=True,
        window_size=variant.window,
        global_attn_indexes=variant.global_blocks,
    )


def meta_vit(variant: SamVariant) -> ImageEncoderViT:
    """The encoder on the meta device: names and shapes without memory for weights."""
    with torch.device("meta"):
        return build_vit(variant)


def parameter_count(module: nn.Module) -> int:
    """Number of parameters, frozen ones too."""
    return sum(parameter.numel() for parameter in module.parameters())


def load_vit(name: str, weights: str | Path | None) -> ImageEncoderViT:
    """An encoder with the weights of an official checkpoint, in float32 on the CPU.

    Args:
        name: key of ``VARIANTS``.
        weights: the file, or a folder with the file under its official name; None means the folder
            ``$POCKETIQA_WEIGHTS``, by default ``~/.cache/pocketiqa/weights``.

    Raises:
        PocketiqaError: the file is missing, corrupt, holds more than tensors, or is of another encoder.
    """
    path = find_sam_checkpoint(name, weights)
    tensors = _encoder_part(read_checkpoint(path), path)
    vit = meta_vit(VARIANTS[name])
    _check_fit(tensors, vit, name, path)
    # Assigned, not copied: the meta encoder has no memory to copy into.
    vit.load_state_dict({key: value.float() for key, value in tensors.items()}, assign=True)
    return vit


def read_checkpoint(path: Path) -> Any:
    """The content of a ``.pth`` file; code in its pickle is never run.

    Raises:
        PocketiqaError: the file cannot be read, is cut off, is no checkpoint, or holds more than tensors.
    """
    _refuse_corrupt(path)
    return read_torch_file(path)


def _refuse_corrupt(path: Path) -> None:
    """Refuse a file that has an official name but not the official content."""
    # torch verifies no checksums: altered numbers in a file of the right length would load without an error.
    # MD5 is what Meta states: enough to notice a broken download. ``read_torch_file`` protects against code in a file.
    official = next((variant.md5 for variant in VARIANTS.values() if variant.checkpoint == path.name), "")
    if not official:
        return
    try:
        with open(path, "rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise PocketiqaError(f"{path} cannot be read ({error.strerror}): correct that, or fetch it again") from error
    if md5 != official:
        raise PocketiqaError(
            f"{path} is corrupt or half downloaded: its MD5 is {md5}, the official one {official}; fetch it again, "
            "or rename it if it is another file"
        )


def _encoder_part(content: Any, path: Path) -> dict[str, Tensor]:
    """The encoder's tensors of a whole SAM, by their names within the encoder."""
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        actual = f"the entries {some(content)}" if isinstance(content, Mapping) else type(content).__name__
        raise PocketiqaError(f"{path} holds {actual}, not SAM's tensors by name: give an official SAM checkpoint")
    # A file with anything else is of another model, even if some of its names happen to fit.
    foreign = [key for key in content if not key.startswith((_PREFIX, *_OTHER_PARTS))]
    encoder = {key.removeprefix(_PREFIX): value for key, value in content.items() if key.startswith(_PREFIX)}
    if foreign or not encoder:
        raise PocketiqaError(
            f"{path} is no SAM checkpoint: {'foreign' if foreign else 'only the'} entries {some(foreign or content)}; "
            f"needed are {_PREFIX}* (with {', '.join(part + '*' for part in _OTHER_PARTS)})"
        )
    return encoder


def _check_fit(tensors: Mapping[str, Tensor], vit: ImageEncoderViT, name: str, path: Path) -> None:
    """Refuse missing, foreign and misshapen tensors; the message names another variant if the tensors are of one."""
    reason = misfits(vit.state_dict(), tensors)
    if not reason:
        return
    # A variant and a file of different sizes are the most likely mistake, and easily named.
    for other, variant in VARIANTS.items():
        if not misfits(meta_vit(variant).state_dict(), tensors):
            raise PocketiqaError(f"{path} holds SAM {other}, not {name}: give variant={other!r} or {_file_of(name)}")
    raise PocketiqaError(f"{path} does not fit the encoder of SAM {name}: {reason}; give {_file_of(name)}")


def _file_of(name: str) -> str:
    return VARIANTS[name].checkpoint or f"a checkpoint of {name}"
