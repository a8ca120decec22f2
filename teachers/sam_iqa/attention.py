"""SAM's attention by torch's fused kernel: the same parameters and values, computed without storing every weight.

segment-anything builds the 4096 x 4096 weights of each head several times over (a global block of ``vit_b`` at 1024
pixels: 0.8 GB each); here only the position bias is built. On a CPU a global block takes about 0.4 of the time.
"""

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Attention, get_rel_pos
from torch import Tensor, nn
from torch.nn import functional


class FusedAttention(nn.Module):
    """Takes over the parts of a segment-anything attention under their names, so that state dicts stay the same.

    The bias of query (i, j) for key (k, l) is ``q . h[i - k] + q . w[j - l]``, with the unscaled query (decomposed
    relative positions: Li et al. 2022, "MViTv2", arXiv 2112.01526, equation 4).
    """

    def __init__(self, attention: Attention):
        super().__init__()
        self.num_heads = attention.num_heads
        self.qkv, self.proj = attention.qkv, attention.proj
        self.rel_pos_h, self.rel_pos_w = attention.rel_pos_h, attention.rel_pos_w

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to the same shape."""
        batch, height, width, channels = x.shape
        packed = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1)
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        placed = query.unflatten(2, (height, width))
        down = torch.einsum("bnhwc,hkc->bnhwk", placed, get_rel_pos(height, height, self.rel_pos_h))
        across = torch.einsum("bnhwc,wlc->bnhwl", placed, get_rel_pos(width, width, self.rel_pos_w))
        bias = (down.unsqueeze(-1) + across.unsqueeze(-2)).flatten(4).flatten(2, 3)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(attended.transpose(1, 2).reshape(batch, height, width, channels))


def fuse_attention(vit: ImageEncoderViT) -> None:
    """Replace the attention of every block; the parameters are shared, not copied."""
    for block in vit.blocks:
        block.attn = FusedAttention(block.attn)  # type: ignore[arg-type] - blocks are known only as modules
