"""Feature maps of any size to a fixed number of tokens of one width."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pseudo_labels.images import ImageError
from pseudo_labels.records import Status


def fitted_size(height: int, width: int, max_side_px: int) -> tuple[int, int]:
    """Height and width with the longer side at most ``max_side_px``; an image that is not larger keeps its own."""
    longer = max(height, width)
    if longer <= max_side_px:
        return height, width
    return max(round(height * max_side_px / longer), 1), max(round(width * max_side_px / longer), 1)


def cut_to_multiple(image: np.ndarray, multiple_px: int) -> np.ndarray:
    """The middle of an image [H, W, 3] whose sides are the largest multiples: at most ``multiple_px`` - 1 are lost.

    Cutting leaves pixels as they are; scaling by a few per cent would blur, and padding would add borders.
    """
    height, width = image.shape[:2]
    top, left = height % multiple_px // 2, width % multiple_px // 2
    return image[top : top + height - height % multiple_px, left : left + width - width % multiple_px]


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image [H, W, 3] at another size, by Pillow's antialiased bicubic filter; as it is if of that size."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def frame(
    image: np.ndarray, *, max_side_px: int, multiple_px: int, smallest_px: int, fixed_px: tuple[int, int] | None
) -> Tensor:
    """Uint8 RGB [H, W, 3] to [3, h, w].

    Args:
        image: of any size.
        max_side_px: of the longer side.
        multiple_px: of both sides.
        smallest_px: that the shorter side must have afterwards.
        fixed_px: height and width, where the backbone takes only these: then the aspect is not kept, and small images
            are enlarged.

    Raises:
        ImageError: TOO_SMALL.
    """
    height, width = fixed_px or fitted_size(image.shape[0], image.shape[1], max_side_px)
    shorter = min(*image.shape[:2], height, width)
    if shorter < smallest_px:
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise ImageError(
            Status.TOO_SMALL, f"{size} pixels: as input, the shorter side has {shorter}, and {smallest_px} are needed"
        )
    cut = cut_to_multiple(resized(image, height, width), multiple_px)
    return torch.from_numpy(cut.transpose(2, 0, 1).copy())


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
    fraction = (factors < SUPPRESSED_BELOW).float().mean()
    return GateReport(float(fraction), float(factors.mean()), float(factors.min()), float(factors.max()))


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
