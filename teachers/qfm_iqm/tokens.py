"""From an image to the backbone's input, and from the backbone's maps to tokens, a score and a quality map.

``frame`` shrinks and cuts an image. ``summary`` turns maps of any size into a fixed number of values without learned
weights, ``Tokeniser`` projects these to tokens, and ``QualityDecoder`` selects channels of the tokens (``ChannelGate``)
and computes the score.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pseudo_labels.images import ImageError
from pseudo_labels.records import Status

SUPPRESSED_BELOW = 0.5
"""A channel with a smaller factor counts as suppressed."""

# A new gate is open, sigmoid(1) = 0.73: fitting has to close channels, not to open them.
_START = 1.0
# Adam's steps have the same size for all weights, a small one for a fitted backbone: at a learning rate of 1e-4, a
# gate's logit would move by 0.03 in 300 steps. This factor makes one step of the parameter 50 of the logit.
_SPEED = 50.0

# Added to a variance before its root is taken, whose slope at 0 is infinite: some channels are constant.
_LEAST_VARIANCE = 1e-8
_MIDDLE = 0.5  # score of a new head: the middle of the scale
_HEAD_DEVIATION = 0.01  # deviation of a new head's weights, so small that all images start close to the middle


def fitted_size(height: int, width: int, max_side_px: int) -> tuple[int, int]:
    """Height and width in pixels, shrunk with their ratio so that the longer is at most ``max_side_px``."""
    longer = max(height, width)
    if longer <= max_side_px:
        return height, width
    return max(round(height * max_side_px / longer), 1), max(round(width * max_side_px / longer), 1)


def cut_to_multiple(image: np.ndarray, multiple_px: int) -> np.ndarray:
    """The centre of an image [H, W, 3], its sides cut to the largest multiples of ``multiple_px`` that fit."""
    # Cutting loses less than ``multiple_px`` pixels and leaves the others as they are. Scaling by a few per cent would
    # blur them, and padding would add borders.
    height, width = image.shape[:2]
    top, left = height % multiple_px // 2, width % multiple_px // 2
    return image[top : top + height - height % multiple_px, left : left + width - width % multiple_px]


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image [H, W, 3] at another size, by Pillow's antialiased bicubic filter; unchanged if it has that size."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def frame(
    image: np.ndarray, *, max_side_px: int, multiple_px: int, smallest_px: int, fixed_px: tuple[int, int] | None
) -> Tensor:
    """Shrink and cut an image to a size that the backbone takes.

    Args:
        image: uint8 RGB [H, W, 3].
        max_side_px: the most that the longer side may have; larger images are shrunk with their aspect ratio.
        multiple_px: both sides are cut to multiples of this.
        smallest_px: the least that the shorter side must have after shrinking.
        fixed_px: height and width to resize to instead, without keeping the aspect ratio; small images are enlarged.

    Returns:
        uint8 [3, h, w].

    Raises:
        ImageError: the shorter side is too short; status TOO_SMALL.
    """
    height, width = fixed_px or fitted_size(image.shape[0], image.shape[1], max_side_px)
    # The original's sides count too: a small image that is enlarged to a fixed size has no more detail for it.
    shorter = min(*image.shape[:2], height, width)
    if shorter < smallest_px:
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise ImageError(
            Status.TOO_SMALL, f"{size} pixels: as input, the shorter side has {shorter}, and {smallest_px} are needed"
        )
    cut = cut_to_multiple(resized(image, height, width), multiple_px)
    return torch.from_numpy(cut.transpose(2, 0, 1).copy())


def averaging(size: int, cells: int) -> Tensor:
    """Matrix [cells, size] that averages a row of ``size`` values into cells, as adaptive average pooling does.

    Cell i covers the values from floor(i * size / cells) to ceil((i + 1) * size / cells): cells overlap where size is
    no multiple of their number, and repeat values where there are fewer of them.
    """
    matrix = torch.zeros(cells, size)
    for cell in range(cells):
        first, last = cell * size // cells, -(-(cell + 1) * size // cells)
        matrix[cell, first:last] = 1 / (last - first)
    return matrix


def cell_means(features: Tensor, cells: int) -> Tensor:
    """Map [B, C, h, w] to its means over cells x cells parts of the image, [B, C, cells, cells]."""
    # As matrix products, because the gradient of torch's adaptive pooling differs from run to run on a GPU.
    rows = averaging(features.shape[2], cells).to(features)
    columns = averaging(features.shape[3], cells).to(features)
    return rows @ features @ columns.T


def mean_and_deviation(features: Tensor) -> Tensor:
    """Map [B, C, h, w] to the mean and the standard deviation of each channel, [B, 2, C]."""
    flat = features.flatten(2)
    return torch.stack((flat.mean(2), (flat.var(dim=2, correction=0) + _LEAST_VARIANCE).sqrt()), 1)


def summary(maps: Sequence[Tensor], cells: int) -> Tensor:
    """Summary of an image's maps that tokens are computed from: [B, sum over maps of C * (cells * cells + 2)].

    Map by map, the means of its cells, then its mean and deviation over the whole image. Nothing in it is learned, so
    the summary of a frozen backbone is computed only once per image (``backbone.CachedSummaries``).

    Args:
        maps: one [B, C, h, w] per level, C, h and w as they come.
        cells: rows and columns of cells.
    """
    parts = [(cell_means(one, cells).flatten(1), mean_and_deviation(one).flatten(1)) for one in maps]
    return torch.cat([part for pair in parts for part in pair], 1)


@dataclass(frozen=True)
class Tokens:
    """The decoder's input for B images; a level is one depth of the backbone at one size of the image.

    Attributes:
        cells: [B, levels, cells * cells, width], one token per cell of the image, row by row.
        whole: [B, levels, width], one token per level, from mean and deviation over the whole image.
        semantics: [B, C], mean of the deepest map over the image at full size: what the image shows.
    """

    cells: Tensor
    whole: Tensor
    semantics: Tensor

    @property
    def features(self) -> Tensor:
        """[B, 2, levels, width]: mean of the cell tokens, and the whole's token; the memory stores these."""
        return torch.stack((self.cells.mean(2), self.whole), 1)

    def with_noise(self, noise: Tensor) -> "Tokens":
        """Tokens plus noise [B, 2, levels, width]: its first half on every cell of a level, its second on the whole."""
        return Tokens(self.cells + noise[:, 0, :, None], self.whole + noise[:, 1], self.semantics)


class LevelTokens(nn.Module):
    """Turns one level's part of the summary into tokens.

    Args:
        channels: number of channels of the level's map.
        width: channels of a token.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, width)
        self.mean_norm, self.deviation_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.whole = nn.Linear(2 * channels, width)

    def forward(self, cells: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Project a level.

        Args:
            cells: means of the cells, [B, C, cells * cells].
            whole: mean and deviation over the whole image, [B, 2, C].

        Returns:
            Tokens of the cells [B, cells * cells, width] and of the whole image [B, width].
        """
        mean, deviation = whole.unbind(1)
        normed = torch.cat((self.mean_norm(mean), self.deviation_norm(deviation)), 1)
        return self.project(self.norm(cells.transpose(1, 2))), self.whole(normed)


class Tokeniser(nn.Module):
    """Turns the summary of all levels into tokens.

    Args:
        channels: number of channels of each level's map, full size first, from shallow to deep.
        depths: number of levels at full size; the last of them gives the semantics.
        width: channels of a token.
        cells: rows and columns of cells.
    """

    def __init__(self, channels: Sequence[int], depths: int, width: int, cells: int):
        super().__init__()
        self.depths, self.channels, self.cell_count = depths, tuple(channels), cells * cells
        self.levels = nn.ModuleList(LevelTokens(count, width) for count in channels)

    def forward(self, summed: Tensor) -> Tokens:
        """Tokens of images with the output of ``summary``, [B, sum of C * (cells * cells + 2)]."""
        sizes = [size for count in self.channels for size in (count * self.cell_count, 2 * count)]
        parts = summed.split(sizes, 1)
        means = [part.unflatten(1, (-1, self.cell_count)) for part in parts[::2]]
        wholes = [part.unflatten(1, (2, -1)) for part in parts[1::2]]
        pairs = [level(*inputs) for level, *inputs in zip(self.levels, means, wholes, strict=True)]
        cells, whole = (torch.stack(tokens, 1) for tokens in zip(*pairs, strict=True))
        # The first half of a whole is the mean; the level is the deepest one at full size.
        return Tokens(cells, whole, wholes[self.depths - 1][:, 0])


class ChannelGate(nn.Module):
    """The learned feature selection: one factor per channel of the tokens, the same for all tokens and images.

    Args:
        width: channels of a token.
    """

    def __init__(self, width: int):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(width))

    @property
    def factors(self) -> Tensor:
        """Factors [width] in [0, 1]; 0 removes a channel."""
        return (_START + _SPEED * self.shift).sigmoid()

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [..., width] with each channel multiplied by its factor."""
        return tokens * self.factors


@dataclass(frozen=True)
class GateReport:
    """Statistics of a gate's factors, all in [0, 1].

    Attributes:
        suppressed: fraction of channels with a factor below ``SUPPRESSED_BELOW``.
        mean: mean of all factors.
        least: smallest factor.
        most: largest factor.
    """

    suppressed: float
    mean: float
    least: float
    most: float


@torch.no_grad()
def report_gate(factors: Tensor) -> GateReport:
    """Statistics of a gate's factors [width]."""
    fraction = (factors < SUPPRESSED_BELOW).float().mean()
    return GateReport(float(fraction), float(factors.mean()), float(factors.min()), float(factors.max()))


@dataclass(frozen=True)
class Quality:
    """The decoder's output for B images.

    Attributes:
        score: [B], fitted to [0, 1], 1 best; not clamped.
        pooled: [B, 2 * width], features of the whole image; the score is a linear function of them.
        map: [B, width, cells, cells], selected features of the cells, mean over the levels.
    """

    score: Tensor
    pooled: Tensor
    map: Tensor


class QualityDecoder(nn.Module):
    """Feature selection, one transformer decoder layer with one query, and a linear score.

    The selected tokens of the whole image also reach the score by a short path, summed over the levels and through one
    hidden layer: mean and deviation at several depths predict quality well by themselves, and attention only has to
    add to them.

    Args:
        levels: number of levels of the tokens.
        cells: rows and columns of cells.
        width: channels of a token.
        heads: number of attention heads; divides the width.
    """

    def __init__(self, levels: int, cells: int, width: int, heads: int):
        super().__init__()
        # The attribute names are those of the tensors in fitted files, and must not change (``place_embedding`` is that
        # of the cells).
        self.cells = cells
        self.gate = ChannelGate(width)
        # 0.02 is the usual deviation of new embeddings in transformers (Devlin et al. 2019, BERT).
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
        """Decode tokens; ``gated=False`` passes all channels, to measure the effect of the selection."""
        select = self.gate if gated else nn.Identity()
        cells, whole = select(tokens.cells), select(tokens.whole)
        located = (cells + self.level_embedding + self.place_embedding).flatten(1, 2)
        sequence = torch.cat((located, whole + self.level_embedding[:, 0]), 1)
        query = self.query.expand(len(sequence), -1, -1)
        decoded = self.norm(self.layer(query, sequence)).squeeze(1)
        # Divided by the root of the number of levels: the sum then varies as much as one level, however many there are.
        summed = whole.sum(1) / whole.shape[1] ** 0.5
        pooled = torch.cat((decoded, self.short(summed)), 1)
        quality_map = cells.mean(1).transpose(1, 2).unflatten(2, (self.cells, self.cells))
        return Quality(self.head(pooled).squeeze(1), pooled, quality_map)
