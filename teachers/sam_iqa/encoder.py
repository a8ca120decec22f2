"""SAM's image encoder as a source of feature maps: segment-anything's own module, read through forward hooks."""

from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from teachers.sam_iqa.attention import fuse_attention
from teachers.sam_iqa.variants import SamVariant

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


def resize_position_embedding(embedding: Tensor, grid: int) -> Tensor:
    """Absolute position embedding for another number of patches: bicubic, antialiased when it shrinks.

    The image is resized with the input, so a position keeps its relative place in the image. The relative position
    embeddings of the global blocks need no help: segment-anything stretches them to the grid in every forward pass, and
    those of the windows do not depend on the grid.

    Args:
        embedding: [1, native grid, native grid, channels].
        grid: side of the new grid, in patches.

    Returns:
        [1, grid, grid, channels]; ``embedding`` itself at the native size.
    """
    if embedding.shape[1:3] == (grid, grid):
        return embedding
    planes = embedding.permute(0, 3, 1, 2)
    resized = functional.interpolate(planes, (grid, grid), mode="bicubic", antialias=True, align_corners=False)
    return resized.permute(0, 2, 3, 1).contiguous()


class SamEncoder(nn.Module):
    """Images -> outputs of chosen blocks and of the neck.

    Args:
        vit: at its native size, weights loaded; its position embedding is replaced to fit ``side_px``.
        variant: that it was built from.
        side_px: side of the square input, checked by ``SamVariant.check_side``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, vit: ImageEncoderViT, variant: SamVariant, side_px: int):
        super().__init__()
        if vit.pos_embed is None:
            raise ValueError("SAM's encoder has an absolute position embedding, this one has none")
        resized = resize_position_embedding(vit.pos_embed.detach(), side_px // variant.patch_px)
        vit.pos_embed = nn.Parameter(resized)
        vit.img_size = side_px
        fuse_attention(vit)
        self.vit = vit
        self.side_px = side_px
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(PIXEL_STD).reshape(3, 1, 1), persistent=False)
        self._outputs: dict[int, Tensor] = {}
        for index in variant.taps:
            vit.blocks[index].register_forward_hook(partial(self._keep, index))

    def _keep(self, index: int, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self._outputs[index] = output

    def forward(self, rgb: Tensor) -> tuple[list[Tensor], Tensor]:
        """Encode images.

        Args:
            rgb: uint8 [B, 3, side_px, side_px].

        Returns:
            Each tap [B, embed_dim, grid, grid], from the shallowest, and the neck's output [B, neck_width, grid, grid],
            in float32 whatever the encoder computes in.
        """
        weight = self.vit.patch_embed.proj.weight
        images = ((rgb.float() - self.mean) / self.std).to(weight.dtype)
        trained = any(parameter.requires_grad for parameter in self.vit.parameters())
        try:
            # A frozen encoder takes the time and memory of inference while the head is fitted.
            with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
                neck = self.vit(images)
                taps = [output.permute(0, 3, 1, 2).float() for output in self._outputs.values()]
        finally:
            self._outputs.clear()  # or the last batch would keep its memory
        return taps, neck.float()

    def checkpoint_blocks(self) -> None:
        """Keep the blocks' inputs and compute the rest again in the backward pass: same gradients, less memory."""
        for block in self.vit.blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
