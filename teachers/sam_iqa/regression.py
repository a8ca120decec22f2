"""The regression block: features -> one score."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

MAP_SIDE = 16
"""Side of the map that is given out: [64, 16, 16] of fp16 are 32 KiB an image."""

_EPSILON = 1e-6  # the deviation's gradient stays finite on a constant map


@dataclass
class Quality:
    """What the model says of a batch.

    Attributes:
        score: [B] in (0, 1), 1 best.
        map: [B, width / 4, 16, 16] (smaller for smaller grids), what the score was computed from, averaged over cells.
        pooled: [B, width / 2], mean and deviation of the map's channels over the image.
    """

    score: Tensor
    map: Tensor
    pooled: Tensor


class RegressionBlock(nn.Module):
    """Two 1x1 convolutions, pooling by mean and deviation, two linear layers, sigmoid (all ours).

    The convolutions come first: the mean of a Fourier unit's output is its zero frequency, so pooling it as it is would
    throw the rest away. The map lies on the way to the score, so that a student that imitates it learns what matters.
    """

    def __init__(self, features: int, width: int):
        super().__init__()
        channels = width // 4
        self.fuse = nn.Sequential(nn.Conv2d(features, width, 1), nn.GELU(), nn.Conv2d(width, channels, 1), nn.GELU())
        self.head = nn.Sequential(nn.Linear(2 * channels, channels), nn.GELU(), nn.Linear(channels, 1))

    def forward(self, features: Tensor) -> Quality:
        """[B, features, h, w] to scores."""
        fused = self.fuse(features)
        spread = (fused.var(dim=(2, 3), correction=0) + _EPSILON).sqrt()
        pooled = torch.cat((fused.mean(dim=(2, 3)), spread), dim=1)
        side = min(MAP_SIDE, *fused.shape[-2:])
        reduced = functional.adaptive_avg_pool2d(fused, side)
        return Quality(self.head(pooled).sigmoid().squeeze(1), reduced, pooled)
