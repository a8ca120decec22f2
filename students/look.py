"""A second, closer look at large photographs: crops of the picture as a display of 2 megapixels shows it.

A student sees the whole picture at its input size, where a blur of some pixels of a 12-megapixel photograph is gone.
Its file may therefore ask for a second look (``StudentContract.look``): the picture is reduced to ``pixels``, which is
half its scale at 8 megapixels, a few crops are cut from it without a network (where there is most texture, the centre,
spread evenly), and a small head joins their scores with that of the whole. Reduced alike, a photograph and its copies
of half the size give nearly the same crops, so that a score follows what can be seen and not the number of pixels.

Needs numpy and Pillow only.
"""

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from pseudo_labels.errors import PocketiqaError, shown
from students.fields import check_fields, check_int
from students.preprocess import LARGEST_SIDE, SMALLEST_SIDE, filtered, shrink

DISPLAY_PIXELS = 2_000_000
"""Pixels of the display (1920x1080 has 2.07 million): what it does not show, people do not see."""
LOOKS = ("quick", "close")
MAX_CROPS = 64
_MOST_PIXELS = 100_000_000
# Texture is measured on every second row and column: the order of the windows is hardly another one, at a quarter.
_SKIP = 2
# Windows for texture begin at multiples of this fraction of a crop's side.
_WINDOW_STEP = 4
_NEARLY = 0.998
# Scores of exactly 0 or 1 have no finite logit.
_LEAST = 1e-3
# Irrational steps spread any number of points evenly (Roberts' R2 sequence: powers of the plastic number).
_PLASTIC = 1.32471795724474602596


def size_within(height: int, width: int, pixels: int) -> tuple[int, int]:
    """Height and width of a picture of at most about ``pixels``, of the same aspect; smaller ones stay as they are."""
    scale = min(1.0, math.sqrt(pixels / (height * width)))
    return max(1, round(height * scale)), max(1, round(width * scale))


@dataclass(frozen=True)
class Head:
    """Joins the score of the whole with those of the crops: a logistic function of their logits.

    Attributes:
        bias: added to the sum.
        whole: weight of the logit of the whole picture's score, 0 or more, as are all weights: no part that gets better
            lowers the score.
        mean: weight of the mean logit of the crops.
        best: weight of the highest logit of a crop: a photograph is as sharp as its sharpest part.
    """

    bias: float = 0.0
    whole: float = 1.0
    mean: float = 0.0
    best: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise PocketiqaError(f"look.head.{name} is {shown(value)}, but a finite number is needed")
            if name != "bias" and value < 0:
                raise PocketiqaError(f"look.head.{name} is {value}, but a weight of 0 or more is needed")

    def __call__(self, whole: float, crops: np.ndarray) -> float:
        """The score of a large picture.

        Args:
            whole: score of the whole picture, in [0, 1].
            crops: [K], scores of its crops, in [0, 1].
        """
        return float(1 / (1 + np.exp(-self.bias - parts(whole, crops) @ self.weights)))

    @property
    def weights(self) -> np.ndarray:
        """[3], in the order of ``parts``."""
        return np.array([self.whole, self.mean, self.best], np.float64)


def parts(whole: float, crops: np.ndarray) -> np.ndarray:
    """What a head weighs, float64 [3]: the logit of the whole, and mean and highest of those of the crops."""
    scores = np.clip(np.array([whole, *crops], np.float64), _LEAST, 1 - _LEAST)
    logits = np.log(scores / (1 - scores))
    return np.array([logits[0], logits[1:].mean(), logits[1:].max()])


@dataclass(frozen=True)
class SecondLook:
    """How large pictures are looked at closely, as the file of a student asks for it.

    As a ``Resizer`` of ``pseudo_labels.limits`` it lets a picture be decoded once for both looks: a JPEG of 8 to 31
    megapixels at half its scale, which is what the crops need.

    Attributes:
        head: joins the scores.
        crop_side: side of a crop in pixels.
        texture: number of crops where there is most texture.
        centre: 1 for a crop at the centre, else 0.
        spread: number of crops spread evenly.
        pixels: larger pictures are reduced to this many before crops are cut.
        from_pixels: pictures of at most this many have no second look; from there to ``pixels`` it gains weight.
        default: whether ``Scorer`` looks closely unless it is told otherwise.
        fitted: what the head was fitted on; JSON values.
    """

    eager: ClassVar[bool] = True

    head: Head
    crop_side: int = 288
    texture: int = 3
    centre: int = 1
    spread: int = 0
    pixels: int = DISPLAY_PIXELS
    from_pixels: int = 500_000
    default: bool = False
    fitted: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_int(self.crop_side, "look.crop_side", SMALLEST_SIDE, LARGEST_SIDE)
        check_int(self.texture, "look.texture", 0, MAX_CROPS)
        check_int(self.centre, "look.centre", 0, 1)
        check_int(self.spread, "look.spread", 0, MAX_CROPS)
        check_int(self.texture + self.centre + self.spread, "look: number of crops", 1, MAX_CROPS)
        check_int(self.from_pixels, "look.from_pixels", self.crop_side**2, _MOST_PIXELS)
        check_int(self.pixels, "look.pixels", 2 * self.from_pixels, _MOST_PIXELS)
        if not isinstance(self.default, bool) or not isinstance(self.fitted, dict):
            raise PocketiqaError("look.default must be true or false, and look.fitted an object; export the model anew")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the picture that crops are cut from; no side is below what the network takes."""
        size = size_within(height, width, self.pixels)
        if min(size) >= SMALLEST_SIDE:
            return size
        scale = SMALLEST_SIDE / min(height, width)
        return max(SMALLEST_SIDE, round(height * scale)), max(SMALLEST_SIDE, round(width * scale))

    def filtered(
        self, image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
    ) -> Image.Image:
        """As ``students.preprocess.filtered``."""
        return filtered(image, size, box)

    def weight(self, height: int, width: int) -> float:
        """How much a picture of this size is scored by the head and not by the whole alone, in [0, 1]."""
        # A picture that was reduced to ``pixels`` may have a few less, as its sides are whole numbers.
        full = _NEARLY * self.pixels
        above = math.log(height * width / self.from_pixels) / math.log(full / self.from_pixels)
        return min(1.0, max(0.0, above))

    def crops(self, rgb: np.ndarray) -> np.ndarray:
        """Crops of a picture, chosen without a network.

        Args:
            rgb: uint8 HxWx3 of any size; a side that is shorter than a crop shortens all crops.

        Returns:
            uint8 [K, h, w, 3] with h and w of at most ``crop_side``; fewer than asked for, but at least one, where they
            would overlap.
        """
        view = shrink(rgb, self.size(*rgb.shape[:2]))
        height, width = (min(self.crop_side, side) for side in view.shape[:2])
        room = view.shape[0] - height, view.shape[1] - width
        corners = most_texture(view, (height, width), self.texture)
        corners += [(room[0] // 2, room[1] // 2)] * self.centre
        for number in range(1, self.spread + 1):
            place = (number / _PLASTIC) % 1, (number / _PLASTIC**2) % 1
            corners.append((round(room[0] * place[0]), round(room[1] * place[1])))
        return np.stack([view[top : top + height, left : left + width] for top, left in dict.fromkeys(corners)])

    def join(self, size: tuple[int, ...], whole: float, crops: np.ndarray) -> float:
        """The score of a picture.

        Args:
            size: height and width of the picture, at least those of ``size``.
            whole: its score in one view.
            crops: [K], scores of its crops.
        """
        weight = self.weight(*size[:2])
        return (1 - weight) * whole + weight * self.head(whole, crops)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Any) -> "SecondLook":
        """Read the JSON form.

        Raises:
            PocketiqaError: a field is missing, unknown or out of range.
        """
        values = check_fields(record, [item.name for item in fields(cls)], "part of the student contract on looks")
        head = check_fields(values.pop("head"), [item.name for item in fields(Head)], "head of looks")
        return cls(head=Head(**head), **values)


def most_texture(rgb: np.ndarray, window: tuple[int, int], count: int) -> list[tuple[int, int]]:
    """Corners (top, left) of the windows with the largest sum of absolute differences between neighbours.

    Args:
        rgb: uint8 HxWx3, of which green is looked at: it is most of what the eye takes for brightness.
        window: height and width, not above those of the picture.
        count: number of windows; fewer come back where no further one fits without overlap.
    """
    if count == 0:
        return []
    totals, rows, columns = _window_totals(rgb[..., 1], window)
    chosen: list[tuple[int, int]] = []
    while len(chosen) < count and totals.max() >= 0:
        row, column = np.unravel_index(int(np.argmax(totals)), totals.shape)
        chosen.append((int(rows[row]), int(columns[column])))
        near = np.abs(rows - rows[row]) < window[0], np.abs(columns - columns[column]) < window[1]
        totals[np.ix_(*near)] = -1.0
    return chosen


def _window_totals(green: np.ndarray, window: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texture of each window, and the rows and columns at which windows begin."""
    levels = green.astype(np.int16)
    here = levels[:-1:_SKIP, :-1:_SKIP]
    below, beside = levels[1::_SKIP, :-1:_SKIP], levels[:-1:_SKIP, 1::_SKIP]
    # int64: the sum over a large picture exceeds 32 bits.
    texture = (np.abs(below - here) + np.abs(beside - here)).astype(np.int64)
    sums = np.pad(texture.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    starts = [
        np.arange(0, side - length + 1, max(1, length // _WINDOW_STEP))
        for side, length in zip(green.shape, window, strict=True)
    ]
    edges = [
        (start // _SKIP, np.minimum((start + length) // _SKIP, cells))
        for start, length, cells in zip(starts, window, texture.shape, strict=True)
    ]
    (top, bottom), (left, right) = edges
    totals = (
        sums[np.ix_(bottom, right)] - sums[np.ix_(top, right)] - sums[np.ix_(bottom, left)] + sums[np.ix_(top, left)]
    )
    return totals.astype(np.float64), starts[0], starts[1]


def choose_look(asked: str | None, look: SecondLook | None, name: str) -> str:
    """The look of a scorer: the one that was asked for, else the one of its file.

    Args:
        asked: of ``LOOKS``, or None.
        look: of the file.
        name: of the student, for an error.

    Raises:
        PocketiqaError: an unknown look, or a close one that the file has not.
    """
    if asked is not None and asked not in LOOKS:
        raise PocketiqaError(f"unknown look {shown(asked)}: choose one of {', '.join(LOOKS)}")
    if asked == "close" and look is None:
        raise PocketiqaError(
            f"the file of {name[:100]!r} has no second look: leave out --look close, or add one with "
            "`pocketiqa fit-look`"
        )
    return asked or ("close" if look is not None and look.default else "quick")
