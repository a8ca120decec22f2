"""The sizes of SAM's image encoder, every number in one place, and how an encoder is built from them."""

from dataclasses import dataclass
from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import nn

from pseudo_labels.errors import PocketiqaError

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
