"""An image as the backbone takes it: shrunk where it is too large, its aspect kept, its sides cut to a multiple."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

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
