"""What bends the frozen prompt features and the image towards quality: the text adapter and the image adapter."""

from collections.abc import Sequence

import torch
from diffusers.models.adapter import T2IAdapter
from torch import Tensor, nn

_FIRST_GAMMA = 1e-4


class TextAdapter(nn.Module):
    """``e + gamma * MLP(e)`` on each prompt feature, gamma one factor a channel, starting near zero.

    Ours: where the U-Net's cross-attention has another width than the text features (Stable Diffusion 2.x has 1024,
    CLIP ViT-L/14 gives 768), a linear map without bias follows. It starts at random, so such a model must be fitted.

    Args:
        width: of the text features.
        context_width: that the U-Net expects.
    """

    def __init__(self, width: int, context_width: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.gamma = nn.Parameter(torch.full((width,), _FIRST_GAMMA))
        self.widen = nn.Identity() if width == context_width else nn.Linear(width, context_width, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """[prompts, width] to [prompts, context_width]."""
        return self.widen(features + self.gamma * self.layers(features))


def build_image_adapter(channels: Sequence[int], downscale: int) -> T2IAdapter:
    """The full T2I adapter of diffusers: image [B, 3, H, W] -> one residual for each down block of the U-Net.

    Args:
        channels: of the U-Net's down blocks.
        downscale: pixels a latent, 8 for Stable Diffusion.
    """
    return T2IAdapter(channels=list(channels), downscale_factor=downscale, adapter_type="full_adapter")
