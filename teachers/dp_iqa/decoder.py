"""The quality feature decoder: the U-Net's feature maps -> one feature map F -> the score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pseudo_labels.errors import PocketiqaError
from teachers.launch import full_precision


class Quality(NamedTuple):
    """What the model says of a batch.

    Attributes:
        score: float32 [B]; fitted to [0, 1] but not clamped.
        feature_map: float32 [B, 8, 64, 64] (``sd15``), at least 0: F of the paper, what its student imitates.
    """

    score: Tensor
    feature_map: Tensor


@dataclass(frozen=True)
class DecoderSizes:
    """The decoder in numbers; the defaults are the paper's.

    Attributes:
        width: channels of each reduced tap and of the fused map.
        reduction: of the squeeze-and-excitation blocks.
        narrow: channels of the three 1x1 convolutions; the last one is the depth of F.
        hidden: width of the two hidden linear layers.
        grid: side of F; every tap is resized to it.
    """

    width: int = 512
    reduction: int = 16
    narrow: tuple[int, ...] = (128, 32, 8)
    hidden: int = 512
    grid: int = 64


class SqueezeExcitation(nn.Module):
    """Weighs each channel by what the channels' means say (Hu et al. 2018); without biases."""

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, channels // reduction, bias=False),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        return x * self.layers(x.mean((2, 3)))[:, :, None, None]


class QualityDecoder(nn.Module):
    """Taps -> ``Quality``.

    Args:
        channels: of the taps, from the coarsest, as ``UNetTaps`` gives them.
        sizes: of everything else.
    """

    def __init__(self, channels: Sequence[int], sizes: DecoderSizes):
        super().__init__()
        self.sizes, self.channels = sizes, tuple(channels)
        width = sizes.width
        # From the finest tap on, which is the order of the fused channels.
        self.reduce = nn.ModuleList(nn.Conv2d(count, width, 3, padding=1) for count in reversed(channels))
        self.weigh = nn.ModuleList(SqueezeExcitation(width, sizes.reduction) for _ in channels)
        self.fuse = nn.Conv2d(width * len(channels), width, 3, padding=1)
        self.weigh_fused = SqueezeExcitation(width, sizes.reduction)
        counts = (width, *sizes.narrow)
        self.narrow = nn.Sequential(
            *(
                layer
                for index in range(len(sizes.narrow))
                for layer in (nn.Conv2d(counts[index], counts[index + 1], 1), nn.ReLU())
            )
        )
        hidden = sizes.hidden
        self.tail = nn.Sequential(
            nn.Linear(sizes.narrow[-1] * sizes.grid**2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )

    def forward(self, taps: Sequence[Tensor]) -> Quality:
        """Decode [B, C, H, W] for each tap, from the coarsest.

        Raises:
            PocketiqaError: other channels than it was built for.
        """
        return self.judge(self.feature_map(taps))

    def feature_map(self, taps: Sequence[Tensor]) -> Tensor:
        """F, in float32: [B, narrow[-1], grid, grid]; arguments and errors as in ``forward``."""
        given = tuple(tap.shape[1] for tap in taps)
        if given != self.channels:
            raise PocketiqaError(
                f"the taps have {list(given)} channels, but the decoder was built for {list(self.channels)}"
            )
        grid = self.sizes.grid
        reduced = [
            weigh(reduce(_resize(tap, grid)))
            for reduce, weigh, tap in zip(self.reduce, self.weigh, reversed(taps), strict=True)
        ]
        return self.narrow(self.weigh_fused(self.fuse(torch.cat(reduced, dim=1)))).float()

    def judge(self, feature_map: Tensor) -> Quality:
        """Score F; the same tail serves to score what a student made of it.

        Always in float32, whatever the rest computes in: between 0.5 and 1, bfloat16 knows 128 different scores.
        """
        with full_precision(feature_map.device.type):
            score = self.tail(feature_map.float().flatten(1)).squeeze(1)
        return Quality(score, feature_map)


def _resize(tap: Tensor, grid: int) -> Tensor:
    if tap.shape[-2:] == (grid, grid):
        return tap
    return interpolate(tap, (grid, grid), mode="bicubic", align_corners=False)
