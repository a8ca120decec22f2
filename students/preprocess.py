"""RGB array -> student input: the one resize of training, evaluation and runtime (numpy and Pillow only).

Hamming is Pillow's sharpest antialiasing filter at the price of a bilinear one (1024x768 to 384: about 3 ms), so
blur and noise survive it better; ``reducing_gap`` halves the time from four-fold reduction on, and hardly shows.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from pseudo_labels.errors import PocketiqaError, shown
from students.fields import check_fields, check_int

# A student is fully convolutional down to this side: two cells of the coarsest (stride 32) feature map.
SMALLEST_SIDE = 64
# A limit against typing errors: memory grows with the square of the side.
LARGEST_SIDE = 4096
_REDUCING_GAP = 2.0
_REQUIRED = ("max_side", "min_side")
_OPTIONAL = ("multiple", "sizes")


@dataclass(frozen=True)
class Preprocess:
    """How an image of any size becomes a student's input.

    The aspect is kept and the longer side becomes at most ``max_side``; smaller images stay as they are, to the bit.
    If the shorter side then lies below ``min_side`` it becomes ``min_side``, and the longer side follows, but never
    beyond ``max_side``: only images more slender than ``max_side : min_side`` (such as 64x5000) lose their aspect.
    With a ``multiple`` above 1, each side is then rounded to the nearest multiple within these limits. With ``sizes``,
    every image gets that one of them whose aspect is nearest to its own, and is enlarged if it is smaller.

    Attributes:
        max_side: largest length of the longer side in pixels.
        min_side: smallest length of the shorter side in pixels.
        multiple: both sides are multiples of it, as some runtimes of other formats need (``students.formats``).
        sizes: the only heights and widths in pixels, where a runtime takes no others; each of them turned too. Empty:
            any.
    """

    eager: ClassVar[bool] = False  # the pixels of a JPEG are those of the whole, to the bit

    max_side: int = 384
    min_side: int = SMALLEST_SIDE
    multiple: int = 1
    sizes: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        check_int(self.min_side, "preprocess.min_side", SMALLEST_SIDE, LARGEST_SIDE)
        check_int(self.max_side, "preprocess.max_side", self.min_side, LARGEST_SIDE)
        check_int(self.multiple, "preprocess.multiple", 1, SMALLEST_SIDE)
        if self.largest < self.least:
            raise PocketiqaError(
                f"no multiple of {self.multiple} lies within preprocess.min_side {self.min_side} and max_side "
                f"{self.max_side}: choose others"
            )
        for height, width in self.sizes:
            fits = all(self.least <= side <= self.largest and side % self.multiple == 0 for side in (height, width))
            if not fits or (width, height) not in self.sizes:
                raise PocketiqaError(
                    f"preprocess.sizes has {height}x{width}: sides of {self.least} to {self.largest} in multiples of "
                    f"{self.multiple} are needed, and each size turned by 90 degrees too"
                )

    @property
    def least(self) -> int:
        """Length of the smallest side that a resized image can have, in pixels."""
        return -(-self.min_side // self.multiple) * self.multiple

    @property
    def largest(self) -> int:
        """Length of the largest side that a resized image can have, in pixels."""
        return self.max_side // self.multiple * self.multiple

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after the resize."""
        longer, shorter = max(height, width), min(height, width)
        if self.sizes:
            upright = [size for size in self.sizes if size[0] >= size[1]]
            new_longer, new_shorter = min(upright, key=lambda size: abs(math.log(size[0] * shorter / size[1] / longer)))
            return (new_longer, new_shorter) if height >= width else (new_shorter, new_longer)
        scale = min(1.0, self.max_side / longer)
        new_longer, new_shorter = _scaled(longer, scale), _scaled(shorter, scale)
        if new_shorter < self.min_side:
            new_shorter = self.min_side
            new_longer = min(self.max_side, max(self.min_side, _scaled(longer, self.min_side / shorter)))
        new_longer, new_shorter = self._rounded(new_longer), self._rounded(new_shorter)
        # Computed for longer and shorter: an image that was turned by 90 degrees gets the same size, turned.
        return (new_longer, new_shorter) if height >= width else (new_shorter, new_longer)

    def _rounded(self, side: int) -> int:
        return min(self.largest, max(self.least, round(side / self.multiple) * self.multiple))

    def resize(self, rgb: np.ndarray) -> np.ndarray:
        """Resize a uint8 HxWx3 image; one that already has the right size is returned itself.

        Returns:
            uint8 H'xW'x3, C-contiguous.

        Raises:
            PocketiqaError: ``rgb`` is not a uint8 array of shape HxWx3 with at least one pixel.
        """
        check_rgb(rgb)
        height, width = rgb.shape[:2]
        size = self.size(height, width)
        if size == (height, width):
            return np.ascontiguousarray(rgb)
        return shrink(rgb, size)

    def filtered(
        self, image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
    ) -> Image.Image:
        """Resize an RGB image, of which ``pseudo_labels.images`` may have averaged whole pixels already.

        Args:
            image: RGB.
            size: height and width of the result.
            box: the part of the image that is the picture, if not all of it: left, upper, right, lower.
        """
        return filtered(image, size, box)

    def as_dict(self) -> dict[str, Any]:
        """JSON form; without ``multiple`` and ``sizes`` where there are none, as files had it before there were any."""
        defaults = {"multiple": 1, "sizes": ()}
        return {name: value for name, value in asdict(self).items() if name in _REQUIRED or value != defaults[name]}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Preprocess":
        """Read the JSON form.

        Raises:
            PocketiqaError: a field is missing, unknown or out of range.
        """
        given = dict(check_fields(record, _REQUIRED, "preprocess", optional=_OPTIONAL))
        if "sizes" in given:
            given["sizes"] = _sizes(given["sizes"])
        return cls(**given)


def _sizes(given: Any) -> tuple[tuple[int, int], ...]:
    """Sizes as JSON has them."""
    if not isinstance(given, list) or any(
        not isinstance(size, list) or len(size) != 2 or any(type(side) is not int for side in size) for size in given
    ):
        raise PocketiqaError(f"preprocess.sizes is {shown(given)}: a list of heights and widths in pixels is needed")
    return tuple((height, width) for height, width in given)


def _scaled(side: int, scale: float) -> int:
    # A very slender image would round to a side of 0 pixels.
    return max(1, round(side * scale))


def filtered(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    """The filter of every resize before a student; arguments as for ``Preprocess.filtered``."""
    grows = size[0] > image.height or size[1] > image.width
    # Hamming is made for reduction: enlarging with it shows steps.
    resample = Image.Resampling.BICUBIC if grows else Image.Resampling.HAMMING
    return image.resize((size[1], size[0]), resample, box, reducing_gap=_REDUCING_GAP)


def shrink(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 HxWx3 to a height and width by ``filtered``; C-contiguous, of the right size already: itself."""
    rgb = np.ascontiguousarray(rgb)
    return rgb if rgb.shape[:2] == tuple(size) else np.array(filtered(Image.fromarray(rgb), size))


def check_rgb(rgb: np.ndarray) -> None:
    """Refuse everything but a uint8 HxWx3 array with pixels in it.

    Raises:
        PocketiqaError: naming what was given.
    """
    if not isinstance(rgb, np.ndarray):
        raise PocketiqaError(f"an image is {type(rgb).__name__}, but a numpy array uint8 HxWx3 (RGB) is needed")
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise PocketiqaError(f"an image is {rgb.dtype} of shape {rgb.shape}, but uint8 HxWx3 (RGB) is needed")
