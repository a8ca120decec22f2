"""The spatial-and-frequency module: what standard and Fourier convolutions make of the encoder's feature maps."""

from collections.abc import Sequence

import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn

from teachers.sam_iqa.fourier import fourier_convolution

_CHANNELS_PER_GROUP = 16


def group_norm(channels: int) -> nn.GroupNorm:
    """Normalisation within an image, so that scores depend on no batch and batches of one can be fitted (ours).

    Chi et al. use batch normalisation; an encoder of this size leaves no room for batches that would bear it.
    """
    return nn.GroupNorm(max(1, channels // _CHANNELS_PER_GROUP), channels)


class SpatialUnit(nn.Module):
    """3x3 convolution, normalisation and activation, added to the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), group_norm(channels), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        return x + self.mix(x)


class FourierUnit(nn.Module):
    """1x1 convolution, normalisation and activation on the stacked spectrum, added to the input.

    The normalisation is over groups of channels and all frequencies of one image: the shape of the spectrum, which
    tells blur from noise, survives it.
    """

    def __init__(self, channels: int):
        super().__init__()
        stacked = 2 * channels
        self.mix = nn.Sequential(nn.Conv2d(stacked, stacked, 1, bias=False), group_norm(stacked), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        return x + fourier_convolution(x, self.mix)


class SpatialFrequency(nn.Module):
    """The encoder's taps -> spatial and frequency features.

    Each tap is reduced by a 1x1 convolution, then normalised over channels as SAM's neck does it: outputs of
    transformer blocks are not normalised, and their scale grows with depth. SAM's neck itself, which reads the same
    block as the last tap, is added to that tap: it is what SAM was trained to hand on, and the part that ``trainable:
    neck`` fits.
    """

    def __init__(self, taps: int, embed_dim: int, width: int):
        super().__init__()
        self.reduce = nn.ModuleList(
            nn.Sequential(nn.Conv2d(embed_dim, width, 1, bias=False), LayerNorm2d(width)) for _ in range(taps)
        )
        self.spatial = nn.ModuleList(SpatialUnit(width) for _ in range(taps))
        self.frequency = nn.ModuleList(FourierUnit(width) for _ in range(taps))

    def forward(self, taps: Sequence[Tensor], neck: Tensor) -> Tensor:
        """Features of all taps.

        Args:
            taps: each [B, embed_dim, h, w], from the shallowest.
            neck: [B, width, h, w].

        Returns:
            [B, 2 * taps * width, h, w]: tap by tap its spatial, then its frequency features.
        """
        reduced = [reduce(tap) for reduce, tap in zip(self.reduce, taps, strict=True)]
        reduced[-1] = reduced[-1] + neck
        branches = zip(reduced, self.spatial, self.frequency, strict=True)
        return torch.cat([branch(x) for x, *both in branches for branch in both], dim=1)
