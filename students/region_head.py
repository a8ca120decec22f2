"""The region head: feature maps of several strides -> quality and importance of each cell, for regions alone."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from students.config import PIXELS, Colour, RegionHeadConfig

# Standard deviation of the last layer's first weights: small, so that the sigmoids start where their slope is largest.
_MAPS_STD = 1e-3


# Luma and the two colour differences of BT.601.
_LUMA, _BLUE, _RED = (0.299, 0.587, 0.114), (-0.169, -0.331, 0.5), (0.5, -0.419, -0.081)
_LAPLACE, _ACROSS, _DOWN, _NOISE = (
    ((0, 1, 0), (1, -4, 1), (0, 1, 0)),
    ((0, 0, 0), (-1, 1, 0), (0, 0, 0)),
    ((0, -1, 0), (0, 1, 0), (0, 0, 0)),
    # Blind to edges and slopes (Immerkaer 1996, Fast noise variance estimation).
    ((1, -2, 1), (-2, 4, -2), (1, -2, 1)),
)
_FILTERS = (
    *((_LUMA, kernel) for kernel in (_LAPLACE, _ACROSS, _DOWN, _NOISE)),
    *((colour, kernel) for colour in (_BLUE, _RED) for kernel in (_LAPLACE, _NOISE)),
)
# Half a step of 8 bits: below, a difference is rounding.
_LEAST_DIFFERENCE = 0.5 / 255
_STEP = 2


class PixelStatistics(nn.Module):
    """How strongly neighbouring pixels differ in each cell: what is left of noise, blur and blocks before any network.

    A backbone that was trained to recognise things, or to score whole images, hardly tells a region with weak noise
    from a clean one (measured: docs/regions.md).

    Args:
        stride: side of a cell in pixels, at least 4.
        std: by which each colour was divided.
    """

    channels = 3 * len(_FILTERS)

    def __init__(self, stride: int, std: Colour):
        super().__init__()
        # Around every second pixel of every second row: of the others, each is in the filters of its neighbours.
        self._quarter = stride // 2 // _STEP
        self.filters = nn.Conv2d(3, len(_FILTERS), 3, stride=_STEP, bias=False).requires_grad_(False)
        for number, (colour, kernel) in enumerate(_FILTERS):
            taps = torch.tensor(kernel, dtype=torch.float32)
            # A step from black to white gives 1 at most. What was subtracted of each colour has no effect.
            self.filters.weight[number] = (torch.tensor(colour) * torch.tensor(std))[:, None, None] * taps
            self.filters.weight[number] *= 2 / taps.abs().sum()

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised [B, 3, H, W] -> float32 [B, 3 F, H / stride, W / stride], rounded down.

        Logarithms, for each of F filters, of the mean absolute difference in a cell, and of the least and the greatest
        mean of its four quarters.
        """
        differences = self.filters(functional.pad(pixels, (1, 1, 1, 1), mode="replicate")).float().abs()
        quarters = functional.avg_pool2d(differences, self._quarter)
        mean, most = functional.avg_pool2d(quarters, 2), functional.max_pool2d(quarters, 2)
        # Noise is everywhere, the texture of things is not.
        least = -functional.max_pool2d(-quarters, 2)
        return (torch.cat([mean, least, most], dim=1) + _LEAST_DIFFERENCE).log()


class RegionHead(nn.Module):
    """See ``config.RegionHeadConfig``. Its first maps are about 0.5 everywhere.

    Finer levels are filtered at their own resolution before they are averaged over the cells of the map: blur and noise
    show in how strongly neighbouring pixels differ, which a mean alone forgets.

    Args:
        channels: channels of the feature map of each stride.
        config: levels, stride and width.
        std: see ``PixelStatistics``.
    """

    def __init__(self, channels: Mapping[int, int], config: RegionHeadConfig, std: Colour):
        super().__init__()
        self._levels, self._stride = config.backbone_levels, config.map_stride
        narrow, width = config.width // 2, config.width
        self.statistics = PixelStatistics(config.map_stride, std) if PIXELS in config.levels else None
        self.reduce = nn.ModuleList(conv_bn_relu(channels[level], narrow) for level in self._levels)
        if self.statistics is not None:
            self.reduce.append(conv_bn_relu(self.statistics.channels, narrow))
        finer = [level for level in self._levels if level < config.map_stride]
        self.filter = nn.ModuleList(conv_bn_relu(narrow, narrow, kernel=3, groups=narrow) for _ in finer)
        self.join = conv_bn_relu(narrow * len(config.levels), width)
        self.context = nn.Conv2d(width, width, 1)
        self.fuse = nn.Sequential(
            conv_bn_relu(width, width, kernel=3, groups=width),
            conv_bn_relu(width, width),
            conv_bn_relu(width, width, kernel=5, groups=width),
            conv_bn_relu(width, width),
        )
        self.maps = nn.Conv2d(width, 2, 1)
        nn.init.normal_(self.maps.weight, std=_MAPS_STD)
        assert self.maps.bias is not None
        nn.init.zeros_(self.maps.bias)

    def forward(self, maps: Mapping[int, Tensor], pixels: Tensor) -> Tensor:
        """Feature maps [B, C, H / stride, W / stride] by stride, and the images -> [B, 2, h, w], before the sigmoid.

        Args:
            maps: those of the backbone.
            pixels: normalised [B, 3, H, W].
        """
        size = maps[self._stride].shape[-2:]
        reduced = []
        for number, level in enumerate(self._levels):
            reduce = self.reduce[number]
            level_map = reduce(maps[level])
            if level < self._stride:
                level_map = functional.avg_pool2d(self.filter[number](level_map), self._stride // level)
            if level != self._stride:
                # Finer maps have the right size already, save for odd images, where they may lack a row.
                level_map = functional.interpolate(level_map, size=size, mode="bilinear", align_corners=False)
            reduced.append(level_map)
        if self.statistics is not None:
            statistics = self.reduce[-1](self.statistics(pixels))
            reduced.append(functional.interpolate(statistics, size=size, mode="bilinear", align_corners=False))
        joined = self.join(torch.cat(reduced, dim=1))
        # What is usual in this picture: a region is bad by comparison with the others.
        return self.maps(self.fuse(joined + self.context(joined.mean((2, 3), keepdim=True))))


def conv_bn_relu(inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution without bias, that keeps the size, batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
