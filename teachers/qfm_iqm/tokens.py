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


def summary(maps: Sequence[Tensor], cells: int) -> Tensor:
    """What the tokens are made of: maps [B, C, h, w] to [B, sum of C * (cells * cells + 2)].

    Level by level the means over a grid, then mean and deviation of the whole. Nothing in it is learned, so that of a
    frozen backbone it needs to be computed once for each image (``kept``).
    """
    parts = [(cell_means(one, cells).flatten(1), mean_and_deviation(one).flatten(1)) for one in maps]
    return torch.cat([part for pair in parts for part in pair], 1)


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
    """One level's part of the summary to tokens.

    Args:
        channels: of the map.
        width: of the tokens.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, width)
        self.mean_norm, self.deviation_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.whole = nn.Linear(2 * channels, width)

    def forward(self, places: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Means of the cells [B, C, cells * cells], and mean and deviation of the whole [B, 2, C], to tokens.

        Returns:
            Tokens of the cells [B, cells * cells, width] and of the whole image [B, width].
        """
        mean, deviation = whole.unbind(1)
        normed = torch.cat((self.mean_norm(mean), self.deviation_norm(deviation)), 1)
        return self.project(self.norm(places.transpose(1, 2))), self.whole(normed)


class Tokeniser(nn.Module):
    """The summary of all levels to tokens.

    Args:
        channels: of each level's map, full size first, from shallow to deep.
        depths: number of levels at full size; the last of them shows semantics.
        width: of the tokens.
        cells: of the grid's sides.
    """

    def __init__(self, channels: Sequence[int], depths: int, width: int, cells: int):
        super().__init__()
        self.depths, self.channels, self.places = depths, tuple(channels), cells * cells
        self.levels = nn.ModuleList(LevelTokens(count, width) for count in channels)

    def forward(self, summed: Tensor) -> Tokens:
        """Tokens of images of which ``summary`` says ``summed``, [B, sum of C * (cells * cells + 2)]."""
        sizes = [size for count in self.channels for size in (count * self.places, 2 * count)]
        parts = summed.split(sizes, 1)
        places = [part.unflatten(1, (-1, self.places)) for part in parts[::2]]
        wholes = [part.unflatten(1, (2, -1)) for part in parts[1::2]]
        pairs = [level(*found) for level, *found in zip(self.levels, places, wholes, strict=True)]
        cells, whole = (torch.stack(tokens, 1) for tokens in zip(*pairs, strict=True))
        return Tokens(cells, whole, wholes[self.depths - 1][:, 0])
