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
    """Scores of a batch, with the feature map that they were computed from.

    Attributes:
        score: float32 [B], 1 best; fitted to [0, 1] but not clamped.
        feature_map: float32 [B, 8, 64, 64] for ``sd15``, at least 0: F of the paper, which its student imitates.
    """

    score: Tensor
    feature_map: Tensor


@dataclass(frozen=True)
class DecoderSizes:
    """Sizes of the decoder's layers; the defaults are the paper's.

    Attributes:
        width: channels of each reduced tap and of the fused map.
        reduction: factor by which a squeeze-and-excitation block narrows the channels.
        narrow: output channels of the 1x1 convolutions, in order; the last number is the channels of F.
        hidden: width of the two hidden linear layers.
        map_side: height and width of F, in cells; every tap is resized to it.
    """

    width: int = 512
    reduction: int = 16
    narrow: tuple[int, ...] = (128, 32, 8)
    hidden: int = 512
    map_side: int = 64


class SqueezeExcitation(nn.Module):
    """Multiplies each channel by a factor computed from the means of all channels (Hu et al. 2018); without biases.

    Args:
        channels: number of channels in and out.
        reduction: factor by which the hidden layer is narrower.
    """

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        # Without biases, as in the published checkpoint.
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
    """Turns the U-Net's taps into F, and F into a score.

    Args:
        channels: number of channels of each tap, from the coarsest tap to the finest, as ``UNetTaps`` returns them.
        sizes: sizes of all layers.
    """

    def __init__(self, channels: Sequence[int], sizes: DecoderSizes):
        super().__init__()
        self.sizes, self.channels = sizes, tuple(channels)
        width = sizes.width
        # The layers' attribute names are those of the tensors in fitted files, and must not change.
        #
        # From the finest tap to the coarsest: the published ``conv1`` reads the finest, and ``fuse`` concatenates in
        # this order, so another order would give the same shapes and wrong scores.
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
            nn.Linear(sizes.narrow[-1] * sizes.map_side**2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )

    def forward(self, taps: Sequence[Tensor]) -> Quality:
        """Decode the taps.

        Args:
            taps: one [B, C, H, W] for each of ``channels``, in the same order.

        Raises:
            PocketiqaError: the taps have other channels than the decoder was built for.
        """
        return self.score_map(self.feature_map(taps))

    def feature_map(self, taps: Sequence[Tensor]) -> Tensor:
        """F in float32, [B, narrow[-1], map_side, map_side]; arguments and errors as in ``forward``."""
        given = tuple(tap.shape[1] for tap in taps)
        if given != self.channels:
            raise PocketiqaError(
                f"the taps have {list(given)} channels, but the decoder was built for {list(self.channels)}"
            )
        side = self.sizes.map_side
        reduced = [
            weigh(reduce(_resize(tap, side)))
            for reduce, weigh, tap in zip(self.reduce, self.weigh, reversed(taps), strict=True)
        ]
        return self.narrow(self.weigh_fused(self.fuse(torch.cat(reduced, dim=1)))).float()

    def score_map(self, feature_map: Tensor) -> Quality:
        """Score F, [B, narrow[-1], map_side, map_side], the model's own or a student's imitation of it."""
        # Always in float32, whatever the rest computes in: between 0.5 and 1, bfloat16 has only 128 different values.
        with full_precision(feature_map.device.type):
            score = self.tail(feature_map.float().flatten(1)).squeeze(1)
        return Quality(score, feature_map)


def _resize(tap: Tensor, side: int) -> Tensor:
    if tap.shape[-2:] == (side, side):
        return tap
    return interpolate(tap, (side, side), mode="bicubic", align_corners=False)
