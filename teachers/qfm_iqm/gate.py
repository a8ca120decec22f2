"""Learned feature selection: one factor in [0, 1] for each channel of the decoder's input."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

# A new gate is open, sigmoid(1) = 0.73, so that fitting has to find what to close.
_START = 1.0
# Optimisers take steps of equal size for all weights, small ones for a fitted backbone: at a learning rate of 1e-4, a
# gate's logit would move by 0.03 in 300 steps. Here one step counts as many.
_SPEED = 50.0
SUPPRESSED_BELOW = 0.5
"""A channel with a smaller factor counts as suppressed."""


class ChannelGate(nn.Module):
    """Factors for the channels of tokens [..., width], the same for all tokens and images.

    Args:
        width: number of channels.
    """

    def __init__(self, width: int):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(width))

    @property
    def factors(self) -> Tensor:
        """[width], in [0, 1]; 0 removes a channel."""
        return (_START + _SPEED * self.shift).sigmoid()

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens with each channel multiplied by its factor."""
        return tokens * self.factors


@dataclass(frozen=True)
class GateReport:
    """What the selection does to the channels.

    Attributes:
        suppressed: share of channels with a factor below ``SUPPRESSED_BELOW``.
        mean: of all factors.
        least: the smallest factor.
        most: the largest factor.
    """

    suppressed: float
    mean: float
    least: float
    most: float


@torch.no_grad()
def report_gate(factors: Tensor) -> GateReport:
    """Summary of the factors [width] of a gate."""
    share = (factors < SUPPRESSED_BELOW).float().mean()
    return GateReport(float(share), float(factors.mean()), float(factors.min()), float(factors.max()))
