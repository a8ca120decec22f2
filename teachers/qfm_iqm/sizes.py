"""A backbone that reads an image at several sizes: the settings of it, the cut of the image, and the maps."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional

from pseudo_labels.errors import PocketiqaError
from teachers.base import Item
from teachers.qfm_iqm.backbone import Backbone
from teachers.qfm_iqm.tokens import frame

# Each halving doubles the least side of an image: with three and a stride of 32 it is 256 pixels.
MOST_HALVINGS = 3


@dataclass(frozen=True)
class BackboneConfig:
    """Settings of a backbone that must be equal in a fitted file and in the model that it is loaded into.

    Attributes:
        backbone: timm's name of the model.
        pad_type: timm's padding of convolutions; empty for the model's own.
        mean: mean of R, G and B in [0, 1] that the backbone's weights expect.
        std: standard deviation of R, G and B that the backbone's weights expect, in the same unit.
        depths: names of the depths that are read, see ``backbone.known_depths``.
        halvings: number of times that the image is also read at half its last size, 0 to 3.
        max_side_px: largest longer side of an input; larger images are shrunk to it.

    Raises:
        PocketiqaError: a number out of range.
    """

    backbone: str
    pad_type: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    depths: tuple[str, ...]
    halvings: int
    max_side_px: int

    def __post_init__(self) -> None:
        self.check_counts("max_side_px")
        if self.halvings not in range(MOST_HALVINGS + 1):
            raise PocketiqaError(f"halvings {self.halvings!r}: choose 0 to {MOST_HALVINGS}")

    def check_counts(self, *names: str) -> None:
        """Refuse fields that are no whole number of at least 1.

        Raises:
            PocketiqaError: one is not.
        """
        for name in names:
            value = getattr(self, name)
            if type(value) is not int or value < 1:  # not ``isinstance``: True is an int, too
                raise PocketiqaError(f"{name} {value!r}: a whole number, at least 1, is needed")

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def cut(image: np.ndarray, backbone: Backbone, config: BackboneConfig, square: tuple[int, int] | None = None) -> Item:
    """Shrink and cut a uint8 RGB image [H, W, 3] to a size that the backbone takes, uint8 [3, h, w].

    Args:
        image: the image.
        backbone: that is to read it.
        config: its settings.
        square: height and width that every image is resized to instead; None keeps the aspect ratio.

    Raises:
        ImageError: the image is too small for the backbone.
    """
    # Each halving divides the size by 2 before the backbone sees it.
    factor = 2**config.halvings
    return frame(
        image,
        max_side_px=config.max_side_px,
        multiple_px=backbone.multiple_px * factor,
        smallest_px=backbone.smallest_px * factor,
        fixed_px=backbone.fixed_px or square,
    )


def maps_by_size(backbone: Backbone, halvings: int, rgb: Tensor) -> Iterator[list[Tensor]]:
    """The maps of all depths, of the image and then of each half of its last size.

    Args:
        backbone: that reads it.
        halvings: number of halves.
        rgb: [B, 3, H, W] in [0, 255].
    """
    image = rgb.float()
    for halving in range(1 + halvings):
        image = functional.avg_pool2d(image, 2) if halving else image
        yield backbone(image)
