"""Masks: run lengths in COCO's form, checked before they are decoded, boxes, and what lies under the cells of a map.

A mask is bool [H, W]. Stored, it is the text of COCO's compressed run lengths (down the columns, beginning with the
pixels outside) for an image of the same height and width. They are written and read by numpy, as the runtime has no
more; what is read is added up before it is decoded. ``pycocotools`` draws polygons and compares masks.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from pseudo_labels.errors import PocketiqaError, install_command
from pseudo_labels.records import Status

MOST_PIXELS = 1 << 30
"""Masks of more pixels are refused before anything is decoded."""

# Of one number of COCO's code: 35 bits, more than any mask needs, and so few that no sum exceeds 64 bits.
_MOST_LETTERS = 7

Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels, within the image, width and height at least 1."""


class RegionError(PocketiqaError):
    """A region that cannot be used: ``status`` for programs, ``reason`` for persons."""

    def __init__(self, status: Status, reason: str):
        super().__init__(status, reason)
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


def _coco() -> Any:
    """``pycocotools``, imported when it is needed: the runtime works without it."""
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise PocketiqaError(
            f"polygons and the overlap of masks need pycocotools: {install_command('train')}, or give run lengths"
        ) from error
    return mask


def encode(mask: np.ndarray) -> str:
    """Compressed run lengths of a mask.

    Args:
        mask: bool or integers [H, W]; not 0 is inside.

    Raises:
        PocketiqaError: it is no array of two axes, or has no pixels.
    """
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or not mask.size:
        shape = getattr(mask, "shape", type(mask).__name__)
        raise PocketiqaError(f"a mask is {shape}, but an array [H, W] with pixels is needed")
    # Down the columns. ``ravel`` of the transposed mask copies it once, of a mask in Fortran's order not at all.
    inside = (mask != 0).T.ravel()
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    runs = np.diff(edges, prepend=0, append=len(inside))
    return text_of(np.concatenate([[0], runs]) if inside[0] else runs)


def text_of(runs: np.ndarray) -> str:
    """Compressed text of run lengths, the inverse of ``runs_of``.

    Args:
        runs: integers [n], the first of them outside the mask.
    """
    values = runs.astype(np.int64)
    # From the fourth run on, the difference to the run before last is written.
    values[3:] -= runs[1:-2].astype(np.int64)
    # Five bits a letter, the last of which holds the sign.
    letters = np.ones(len(values), np.int64)
    for more in range(1, _MOST_LETTERS):
        bound = 1 << (5 * more - 1)
        letters += (values < -bound) | (values >= bound)
    starts = np.cumsum(letters) - letters
    position = np.arange(letters.sum()) - np.repeat(starts, letters)
    codes = np.repeat(values, letters) >> (5 * position) & 0x1F
    codes |= np.where(position < np.repeat(letters, letters) - 1, 0x20, 0)
    return (codes + 48).astype(np.uint8).tobytes().decode("ascii")


def runs_of(counts: str | bytes) -> np.ndarray:
    """Run lengths of COCO's compressed text, int64, the first of them outside the mask.

    Raises:
        RegionError: CORRUPT; the text ends within a number, holds foreign letters or a negative run.
    """
    data = counts.encode("ascii", "replace") if isinstance(counts, str) else bytes(counts)
    letters = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if ((letters < 0) | (letters > 63)).any():
        raise RegionError(Status.CORRUPT, "the run lengths hold letters that COCO's code does not have")
    if not len(letters):
        return np.zeros(0, np.int64)
    # Five bits a letter, the lowest first; a sixth says that more letters follow.
    last = letters & 0x20 == 0
    if not last[-1]:
        raise RegionError(Status.CORRUPT, "the run lengths end within a number")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MOST_LETTERS:
        raise RegionError(Status.CORRUPT, f"a run length has {lengths.max()} letters: at most {_MOST_LETTERS} are read")
    position = np.arange(len(letters)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((letters & 0x1F) << (5 * position), starts)
    runs -= np.where(letters[ends] & 0x10, 1 << (5 * lengths), 0)
    # From the fourth run on, the difference to the run before last is written.
    runs[1::2], runs[2::2] = np.cumsum(runs[1::2]), np.cumsum(runs[2::2])
    if (runs < 0).any():
        wrong = int(np.argmax(runs < 0))
        raise RegionError(Status.CORRUPT, f"run {wrong} has the negative length {runs[wrong]}")
    return runs


def check_counts(counts: str | bytes, height: int, width: int) -> int:
    """Area in pixels of run lengths that are right for an image of this size.

    Raises:
        RegionError: CORRUPT; the runs are no code, or cover more or fewer pixels than the image has.
    """
    return int(_checked_runs(counts, height, width)[1::2].sum())


def _checked_runs(counts: str | bytes, height: int, width: int) -> np.ndarray:
    if not 0 < height * width <= MOST_PIXELS:
        raise RegionError(Status.CORRUPT, f"a mask of {width}x{height} pixels: at most {MOST_PIXELS} are read")
    runs = runs_of(counts)
    # In Python's numbers: the sum of corrupt runs may exceed 64 bits.
    total = sum(runs.tolist())
    if total != height * width:
        raise RegionError(
            Status.CORRUPT, f"the run lengths cover {total} pixels, but {width}x{height} are {height * width}"
        )
    return runs


def decode(counts: str | bytes, height: int, width: int) -> np.ndarray:
    """Mask of checked run lengths, bool [height, width].

    Raises:
        RegionError: CORRUPT, see ``check_counts``.
    """
    runs = _checked_runs(counts, height, width)
    inside = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(inside, runs).reshape(width, height).T)


def from_coco(value: Any, height: int, width: int) -> str:
    """Run lengths of a segmentation in any of COCO's forms, for an image of this size.

    Args:
        value: ``{"size": [H, W], "counts": text or list}``, a polygon or a list of them (``[x1, y1, x2, y2, ...]``,
            three points or more), or the text of compressed run lengths alone.
        height: of the image, pixels.
        width: of the image, pixels.

    Raises:
        RegionError: CORRUPT; another size than the image's, run lengths that do not fit, or no known form.
    """
    if isinstance(value, Mapping):
        size, counts = value.get("size"), value.get("counts")
        given = size if isinstance(size, Sequence) and len(size) == 2 and all(_whole(side) for side in size) else None
        if given is None or [int(side) for side in given] != [height, width]:
            shown = f"{given[1]}x{given[0]}" if given else f"of size {size!r}"
            raise RegionError(Status.CORRUPT, f"the mask is {shown}, but the image {width}x{height}")
        if isinstance(counts, Sequence) and not isinstance(counts, str | bytes):
            return _from_runs(counts, height, width)
        value = counts
    if isinstance(value, str | bytes):
        check_counts(value, height, width)
        return value if isinstance(value, str) else value.decode("ascii")
    if isinstance(value, Sequence) and value:
        return _from_polygons(value, height, width)
    raise RegionError(Status.CORRUPT, f"{type(value).__name__} is no mask: run lengths or a polygon are needed")


def _whole(value: Any) -> bool:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return number and math.isfinite(value) and int(value) == value


def _from_runs(counts: Sequence[Any], height: int, width: int) -> str:
    if not all(_whole(count) and count >= 0 for count in counts):
        raise RegionError(Status.CORRUPT, "the list of run lengths holds something else than whole numbers")
    runs = [int(count) for count in counts]
    if sum(runs) != height * width:
        raise RegionError(
            Status.CORRUPT, f"the run lengths cover {sum(runs)} pixels, but {width}x{height} are {height * width}"
        )
    return text_of(np.array(runs, np.int64))


def _from_polygons(value: Sequence[Any], height: int, width: int) -> str:
    polygons = [value] if isinstance(value[0], int | float) else list(value)
    # pycocotools walks along every edge: a point far away would cost time and memory for nothing in the image.
    farthest = 4 * max(height, width)
    for polygon in polygons:
        numbers = isinstance(polygon, Sequence) and all(
            isinstance(one, int | float) and math.isfinite(one) and abs(one) <= farthest for one in polygon
        )
        if not numbers or len(polygon) < 6 or len(polygon) % 2:
            raise RegionError(
                Status.CORRUPT, f"a polygon needs three points or more, of finite numbers up to {farthest}"
            )
    merged = _coco().merge(
        _coco().frPyObjects([[float(one) for one in polygon] for polygon in polygons], height, width)
    )
    return merged["counts"].decode("ascii")


def from_box(box: Sequence[float], height: int, width: int) -> str:
    """Run lengths of a box; what reaches beyond the image is cut off, and fractions cover the pixels that they touch.

    Args:
        box: left, top, width and height in pixels.
        height: of the image.
        width: of the image.

    Raises:
        RegionError: CORRUPT for no box, EMPTY for one outside the image.
    """
    numbers = [float(one) for one in box if isinstance(one, int | float | np.number)]
    if len(numbers) != 4 or len(box) != 4 or not all(map(math.isfinite, numbers)) or min(numbers[2:]) <= 0:
        raise RegionError(Status.CORRUPT, f"{list(box)!r} is no box: x, y, width and height above 0 are needed")
    left, top, wide, tall = numbers
    columns = max(0, math.floor(left)), min(width, math.ceil(left + wide))
    rows = max(0, math.floor(top)), min(height, math.ceil(top + tall))
    if columns[0] >= columns[1] or rows[0] >= rows[1]:
        raise RegionError(Status.EMPTY, f"the box {numbers} lies outside the image of {width}x{height}")
    first, last = columns[0] * height + rows[0], (columns[1] - 1) * height + rows[1]
    inside, across = rows[1] - rows[0], columns[1] - columns[0]
    # Full columns follow each other without a gap.
    full = inside == height
    runs = [first, last - first] if full else [first, *[inside, height - inside] * (across - 1), inside]
    runs.append(height * width - last)
    return text_of(np.array(runs if runs[-1] else runs[:-1], np.int64))


def box_of(counts: str, height: int, width: int) -> Box:
    """Smallest box around a mask; a mask without pixels has the box (0, 0, 0, 0).

    Raises:
        RegionError: CORRUPT, see ``check_counts``.
    """
    return decode_inner(counts, height, width)[0]


def decode_inner(counts: str | bytes, height: int, width: int) -> tuple[Box, np.ndarray]:
    """Box around a mask, and the mask within it; the work of a small mask does not grow with the image.

    Returns:
        The box, and bool [height, width] of the box; (0, 0, 0, 0) and no pixels for a mask without pixels.

    Raises:
        RegionError: CORRUPT, see ``check_counts``.
    """
    runs = _checked_runs(counts, height, width)
    edges = np.cumsum(runs)
    pixels = np.flatnonzero(runs[1::2])  # runs inside may have no pixel
    if not len(pixels):
        return (0, 0, 0, 0), np.zeros((0, 0), bool)
    begin, end = int(edges[2 * pixels[0]]), int(edges[2 * pixels[-1] + 1])
    left, right = begin // height, -(-end // height)
    # Only the columns that it touches are decoded: its runs, cut at the first and the last of them.
    clipped = np.diff(np.clip(edges, left * height, right * height), prepend=left * height)
    inside = np.arange(len(runs)) % 2 == 1
    columns = np.repeat(inside, clipped)
    columns = np.pad(columns, (0, (right - left) * height - len(columns))).reshape(right - left, height).T
    return _cut((left, 0), columns)


def inner_of(mask: np.ndarray) -> tuple[Box, np.ndarray]:
    """As ``decode_inner``, of a mask bool [H, W]."""
    return _cut((0, 0), mask)


def _cut(corner: tuple[int, int], mask: np.ndarray) -> tuple[Box, np.ndarray]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return (0, 0, 0, 0), np.zeros((0, 0), bool)
    top, left, bottom, right = int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
    inner = np.ascontiguousarray(mask[top:bottom, left:right])
    return (corner[0] + left, corner[1] + top, right - left, bottom - top), inner


def overlap(counts: str, others: Sequence[str], height: int, width: int) -> np.ndarray:
    """Intersection over union of a mask with others of the same image, float64 [len(others)]."""
    if not others:
        return np.zeros(0)
    one, *rest = ({"size": [height, width], "counts": text.encode("ascii")} for text in (counts, *others))
    return np.asarray(_coco().iou([one], rest, [0] * len(rest)), np.float64)[0]


def covered(counts: str, by: str, height: int, width: int) -> float:
    """Fraction of the pixels of a mask that another mask of the same image has too."""
    one, other = ({"size": [height, width], "counts": text.encode("ascii")} for text in (counts, by))
    # For "crowds", COCO divides by the area of the first mask alone.
    return float(_coco().iou([one], [other], [1])[0, 0])


def grown(box: Box, height: int, width: int, *, least: int) -> Box:
    """A box with sides of at least ``least`` pixels around the same middle, moved into the image where it must be.

    Sides of the image bound those of the box.
    """
    left, top, wide, tall = box
    new_wide, new_tall = (min(max(side, least), limit) for side, limit in ((wide, width), (tall, height)))
    new_left = min(max(0, left - (new_wide - wide) // 2), width - new_wide)
    new_top = min(max(0, top - (new_tall - tall) // 2), height - new_tall)
    return new_left, new_top, new_wide, new_tall


def cell_overlap(
    mask: np.ndarray, height: int, width: int, *, resized: tuple[int, int] | None = None, stride: int = 0
) -> np.ndarray:
    """How much of each cell of a map lies inside a mask, exactly: the pooling of training and of the runtime.

    The edges of cells may run through pixels: a pixel that is cut counts with the part of its area in the cell.

    Args:
        mask: bool [H, W], of the image.
        height: rows of the map, at least 1; may exceed H.
        width: columns of the map, at least 1.
        resized: height and width of the image that the map was computed from, with ``stride``: each cell is then
            ``stride`` x ``stride`` of its pixels, and the last ones may reach beyond the image. None divides the image
            into equal cells.
        stride: see ``resized``.

    Returns:
        float64 [height, width] in [0, 1]: area of the mask inside the cell by area of the cell. With equal cells, times
        H * W / (height * width), they add up to the pixels of the mask.

    Raises:
        PocketiqaError: the mask is no bool array of two axes, or the map has no cells.
    """
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype != np.bool_ or not mask.size:
        given = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise PocketiqaError(f"a mask is {given}, but a bool array [H, W] with pixels is needed")
    if min(height, width) < 1 or (resized is not None and min(*resized, stride) < 1):
        raise PocketiqaError(
            f"a map of {height}x{width} cells with stride {stride} on {resized}: sizes of at least 1 are needed"
        )
    cells = Cells(mask.shape, (height, width), resized=resized, stride=stride)
    return cells.overlap(*inner_of(mask))


_ROWS_AT_ONCE = 256


class Cells:
    """The cells of a map over an image, as in ``cell_overlap``, for many masks of one image.

    Of a map that ends before the image, as where each layer drops a row that its stride does not divide, the last cells
    take in the rest.

    Args:
        image: height and width of image and masks.
        shape: rows and columns of the map.
        resized: see ``cell_overlap``.
        stride: see ``cell_overlap``.
        crop: part of the resized image that the map was computed from, in its pixels; the first cell begins at the
            left and top, and what lies outside belongs to no cell. None takes all of it. Needs ``resized``.

    Raises:
        PocketiqaError: the crop lies outside the resized image.
    """

    def __init__(
        self,
        image: tuple[int, ...],
        shape: tuple[int, ...],
        *,
        resized: tuple[int, int] | None = None,
        stride: int = 0,
        crop: Box | None = None,
    ):
        (tall, wide), (height, width) = image, shape
        # Lengths of a pixel and of a cell in one unit, in which both are whole.
        row_units = (height, tall) if resized is None else (resized[0], stride * tall)
        column_units = (width, wide) if resized is None else (resized[1], stride * wide)
        self.image = tall, wide
        down_span = across_span = None
        if crop is not None:
            left, top, crop_width, crop_height = crop
            inside = resized is not None and min(left, top) >= 0
            if resized is None or not inside or left + crop_width > resized[1] or top + crop_height > resized[0]:
                raise PocketiqaError(f"the crop {crop} lies outside the resized image {resized}: cut it there")
            # In the same unit: a pixel of the resized image is as long as the mask has pixels.
            down_span = top * tall, (top + crop_height) * tall
            across_span = left * wide, (left + crop_width) * wide
        self._down = _fractions(tall, height, row_units, down_span)
        self._across = _fractions(wide, width, column_units, across_span)

    @cached_property
    def of_image(self) -> np.ndarray:
        """How much of each cell lies inside the image, float64 [height, width] of the map."""
        return np.outer(self._down.sum(1), self._across.sum(1))

    def fractions(self, box: Box, inner: np.ndarray) -> np.ndarray:
        """As ``overlap``, but of the part of each cell that lies inside the image: 1 where the mask covers all of it.

        Of masks that tile the image, the fractions of each cell add up to 1.
        """
        overlap, whole = self.overlap(box, inner), self.of_image
        return np.divide(overlap, whole, out=np.zeros_like(overlap), where=whole > 0).clip(max=1.0)

    def overlap(self, box: Box, inner: np.ndarray) -> np.ndarray:
        """How much of each cell lies inside a mask, float64 [height, width] of the map.

        Args:
            box: around the mask.
            inner: the mask within the box, bool, see ``inner_of``.
        """
        left, top, wide, tall = box
        total = np.zeros((len(self._down), len(self._across)))
        # Only the box around the mask is multiplied: most masks are small, and every pixel takes 8 bytes here.
        down, across = self._down[:, top : top + tall], self._across[:, left : left + wide]
        # Nor are cells that it does not touch.
        rows, columns = down.any(1), across.any(1)
        down, across = down[rows], across[columns].T
        part_sum = np.zeros((down.shape[0], across.shape[1]))
        for start in range(0, tall, _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            part_sum += down[:, part] @ (inner[part].astype(np.float64) @ across)
        total[np.ix_(rows, columns)] = np.clip(part_sum, 0.0, 1.0)  # rounding may exceed 1 by the last digit
        return total


def _fractions(pixels: int, cells: int, units: tuple[int, int], span: tuple[int, int] | None = None) -> np.ndarray:
    """Part of each cell that each pixel of a line covers, [cells, pixels].

    Args:
        pixels: number of pixels.
        cells: number of cells.
        units: lengths of a pixel and of a cell, whole numbers, so that no edge is rounded.
        span: where the cells begin, and where what they show ends; None is the whole line.
    """
    pixel_length, cell_length = units
    start, end = span or (0, pixels * pixel_length)
    pixel, cell = np.arange(pixels) * pixel_length, start + np.arange(cells)[:, None] * cell_length
    length = np.full((cells, 1), cell_length)
    length[-1] = max(cell_length, end - cell[-1, 0])
    # What is shown of each pixel is all of it, but for those at the edges of a crop.
    covered = np.minimum(np.minimum(pixel + pixel_length, end), cell + length) - np.maximum(pixel, cell)
    return np.maximum(covered, 0) / length


def outline(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask with a neighbour (of four) outside it, or at the edge of the image; bool [H, W]."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def outline_colours() -> Iterator[tuple[int, int, int]]:
    """Colours that differ from their neighbours, without end: hues a golden angle apart."""
    number = 0
    while True:
        hue = number * 0.618034 % 1.0 * 6
        values = (abs(hue - 3) - 1, 2 - abs(hue - 2), 2 - abs(hue - 4))
        red, green, blue = (round(255 * min(1.0, max(0.0, value))) for value in values)
        yield red, green, blue
        number += 1
