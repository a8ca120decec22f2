"""A quality query looks at the tokens and says how good the image is."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from teachers.qfm_iqm.gate import ChannelGate
from teachers.qfm_iqm.tokens import Tokens

_MIDDLE = 0.5  # of the scale, where a new head starts
_HEAD_DEVIATION = 0.01  # so that it starts near there for all images


@dataclass(frozen=True)
class Quality:
    """What the model says of B images.

    Attributes:
        score: [B], about 0 to 1, not clamped.
        pooled: [B, 2 * width], what the score is a linear function of.
        map: [B, width, cells, cells], selected features of the places, mean over the levels.
    """

    score: Tensor
    pooled: Tensor
    map: Tensor


class QualityDecoder(nn.Module):
    """Feature selection, one transformer decoder layer with one query, and a linear score.

    The selected tokens of the whole image also reach the score by a short way, summed over the levels and through one
    hidden layer: mean and deviation at several depths are a strong measure by themselves, and attention only has to add
    to it.

    Args:
        levels: of the tokens.
        cells: of the grid's sides.
        width: of the tokens.
        heads: of the attention.
    """

    def __init__(self, levels: int, cells: int, width: int, heads: int):
        super().__init__()
        self.cells = cells
        self.gate = ChannelGate(width)
        self.query = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.level_embedding = nn.Parameter(0.02 * torch.randn(levels, 1, width))
        self.place_embedding = nn.Parameter(0.02 * torch.randn(cells * cells, width))
        self.layer = nn.TransformerDecoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.norm = nn.LayerNorm(width)
        self.short = nn.Sequential(nn.Linear(width, width), nn.GELU())
        self.head = nn.Linear(2 * width, 1)
        nn.init.normal_(self.head.weight, std=_HEAD_DEVIATION)
        nn.init.constant_(self.head.bias, _MIDDLE)

    def forward(self, tokens: Tokens, *, gated: bool = True) -> Quality:
        """Judge tokens; ``gated=False`` lets all channels through, to see what the selection does."""
        select = self.gate if gated else nn.Identity()
        cells, whole = select(tokens.cells), select(tokens.whole)
        places = (cells + self.level_embedding + self.place_embedding).flatten(1, 2)
        seen = torch.cat((places, whole + self.level_embedding[:, 0]), 1)
        query = self.query.expand(len(seen), -1, -1)
        decoded = self.norm(self.layer(query, seen)).squeeze(1)
        # Over the root of their number, so that the sum is as large as one of them, whatever their number.
        together = whole.sum(1) / whole.shape[1] ** 0.5
        pooled = torch.cat((decoded, self.short(together)), 1)
        grid = cells.mean(1).transpose(1, 2).unflatten(2, (self.cells, self.cells))
        return Quality(self.head(pooled).squeeze(1), pooled, grid)
