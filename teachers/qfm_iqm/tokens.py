"""Feature maps of any size to a fixed number of tokens of one width."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# The deviation of a constant channel: the root's slope at 0 is infinite.
_LEAST_VARIANCE = 1e-8


def averaging(size: int, cells: int) -> Tensor:
    """Matrix [cells, size] that averages a line of ``size`` values into cells, as adaptive average pooling does.

    Cell i covers the values from floor(i * size / cells) to ceil((i + 1) * size / cells): cells overlap where size is
    no multiple of their number, and repeat values where there are fewer of them.
    """
    matrix = torch.zeros(cells, size)
    for cell in range(cells):
        first, last = cell * size // cells, -(-(cell + 1) * size // cells)
        matrix[cell, first:last] = 1 / (last - first)
    return matrix


def cell_means(features: Tensor, cells: int) -> Tensor:
    """Map [B, C, h, w] to means over a grid, [B, C, cells, cells].

    As products of matrices, because the gradient of torch's adaptive pooling differs from run to run on a GPU.
    """
    rows = averaging(features.shape[2], cells).to(features)
    columns = averaging(features.shape[3], cells).to(features)
    return rows @ features @ columns.T


def mean_and_deviation(features: Tensor) -> Tensor:
    """Map [B, C, h, w] to the mean and the standard deviation of each channel, [B, 2, C]."""
    flat = features.flatten(2)
    return torch.stack((flat.mean(2), (flat.var(dim=2, correction=0) + _LEAST_VARIANCE).sqrt()), 1)


@dataclass(frozen=True)
class Tokens:
    """The decoder's input for B images; levels are the depths of the backbone, once for each size of the image.

    Attributes:
        cells: [B, levels, cells * cells, width], the image's places, row by row.
        whole: [B, levels, width], from mean and deviation over the whole image.
        semantics: [B, channels of the deepest level], its mean over the image at full size.
    """

    cells: Tensor
    whole: Tensor
    semantics: Tensor

    @property
    def features(self) -> Tensor:
        """[B, 2, levels, width]: mean of the cells, and the whole; what a memory keeps and noise is made of."""
        return torch.stack((self.cells.mean(2), self.whole), 1)

    def with_noise(self, noise: Tensor) -> "Tokens":
        """Noise [B, 2, levels, width] added: its first half to every cell of a level, its second to the whole."""
        return Tokens(self.cells + noise[:, 0, :, None], self.whole + noise[:, 1], self.semantics)


class LevelTokens(nn.Module):
    """One level's map to tokens.

    Args:
        channels: of the map.
        width: of the tokens.
        cells: the grid has as many rows and columns.
    """

    def __init__(self, channels: int, width: int, cells: int):
        super().__init__()
        self.cells = cells
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, width)
        self.mean_norm, self.deviation_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.whole = nn.Linear(2 * channels, width)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map [B, C, h, w] to tokens of the cells [B, cells * cells, width] and of the whole image [B, width]."""
        places = cell_means(features, self.cells).flatten(2).transpose(1, 2)
        mean, deviation = mean_and_deviation(features).unbind(1)
        whole = torch.cat((self.mean_norm(mean), self.deviation_norm(deviation)), 1)
        return self.project(self.norm(places)), self.whole(whole)


class Tokeniser(nn.Module):
    """All levels' maps to tokens.

    Args:
        channels: of each level's map, full size first, from shallow to deep.
        depths: number of levels at full size; the last of them shows semantics.
        width: of the tokens.
        cells: of the grid's sides.
    """

    def __init__(self, channels: Sequence[int], depths: int, width: int, cells: int):
        super().__init__()
        self.depths = depths
        self.levels = nn.ModuleList(LevelTokens(count, width, cells) for count in channels)

    def forward(self, maps: Sequence[Tensor]) -> Tokens:
        """Maps [B, C, h, w], one for each level."""
        pairs = [level(features) for level, features in zip(self.levels, maps, strict=True)]
        cells, whole = (torch.stack(parts, 1) for parts in zip(*pairs, strict=True))
        return Tokens(cells, whole, maps[self.depths - 1].mean((2, 3)))
