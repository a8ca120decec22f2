"""Quality and importance of regions, from a student's two maps: numpy only, the same in training and at run time.

With the quality q and the weight w of each cell of the maps, and f, the fraction of the cell's part of the image that
lies inside the region:

    quality = sum(q w f) / sum(w f)        importance = sum(w f) / sum(w)

So the whole image is a region of importance 1 whose quality is the image's score (before calibration), and regions that
tile the image have importances that add up to 1.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.records import Status
from pseudo_labels.regions.masks import Box, Cells, RegionError, decode_inner, from_box, from_coco, inner_of

MaskInput = np.ndarray | Mapping[str, Any] | str | bytes | Sequence[Any]
"""One region, in pixels of the upright image: a mask [H, W] of bool or integers (not 0 is inside), a box (x, y, width,
height), COCO's run lengths (object or text), or polygons, which need the extra ``train``."""
_ACCEPTED = "a mask [H, W] of bool or integers, a box (x, y, width, height), or COCO's run lengths"

_NO_BOX: Box = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class RegionResult:
    """What a student says of one region, or why it says nothing.

    Attributes:
        quality: in [0, 1], 1 best: the mean of the quality map inside the region, weighted by the weight map; NaN
            unless ``status`` is ``ok``.
        importance: in [0, 1]: the fraction of the image's weights that lies inside; NaN unless ``ok``.
        box: left, top, width and height of the box around it in pixels of the image; zeros where there is none.
        area: fraction of the image's pixels.
        status: ``ok``, ``empty`` (no pixel inside the image), ``corrupt`` (another size than the image's, run lengths
            that do not fit, no box), ...
        reason: words for a person; empty if ``ok``.
    """

    quality: float
    importance: float
    box: Box
    area: float = math.nan
    status: Status = Status.OK
    reason: str = ""


def refused(status: Status, reason: str, box: Box = _NO_BOX, area: float = math.nan) -> RegionResult:
    """A region without quality and importance."""
    return RegionResult(math.nan, math.nan, box, area, status=status, reason=reason)


def cells_across(shape: tuple[int, ...], resized: tuple[int, ...], stride: int) -> tuple[float, float] | None:
    """Rows and columns of cells that the image fills, of a map whose last cells may reach beyond it.

    Args:
        shape: rows and columns of the map.
        resized: height and width of the image that the map was computed from.
        stride: side of a cell in pixels of that image.

    Returns:
        None if the map has not that stride: then its cells divide the image equally (students whose map is one cell).
    """
    if stride < 1 or tuple(-(-side // stride) for side in resized[:2]) != tuple(shape):
        return None
    return resized[0] / stride, resized[1] / stride


def cells_of(image: tuple[int, ...], shape: tuple[int, ...], resized: tuple[int, ...], stride: int) -> Cells:
    """The cells of a student's maps over an image, by which masks are pooled (``Cells.fractions``).

    Args:
        image: height and width of the image, in whose pixels masks are given.
        shape: see ``cells_across``; so are ``resized`` and ``stride``.
        resized: see there.
        stride: see there.
    """
    # Layers round a side that their stride does not divide up or down, depending on their padding.
    if stride < 1 or any(
        rows not in (side // stride, -(-side // stride)) for rows, side in zip(shape, resized[:2], strict=True)
    ):
        return Cells(image[:2], shape)
    return Cells(image[:2], shape, resized=(resized[0], resized[1]), stride=stride)


def score_regions(
    quality_map: np.ndarray, weight_map: np.ndarray, cells: Cells, regions: Iterable[MaskInput]
) -> tuple[RegionResult, ...]:
    """Quality and importance of regions of one image, in their order; a bad region is a result with a reason.

    Args:
        quality_map: [h, w].
        weight_map: [h, w], positive.
        cells: of these maps, see ``cells_of``.
        regions: see ``MaskInput``; they may overlap, and are taken one by one.

    Raises:
        PocketiqaError: ``regions`` is a single region, or holds something that is none.
    """
    weight = np.asarray(weight_map, np.float64)
    weighted = weight * np.asarray(quality_map, np.float64)
    height, width = cells.image
    results: list[RegionResult] = []
    for region in _each(regions):
        try:
            box, inner = _inner(region, height, width)
            if not inner.size:
                raise RegionError(Status.EMPTY, "the mask has no pixel")
        except RegionError as error:
            results.append(refused(error.status, error.reason))
            continue
        inside = cells.fractions(box, inner)
        area = int(np.count_nonzero(inner)) / (height * width)
        weight_inside = float((weight * inside).sum())
        if not 0 < weight_inside < math.inf:
            results.append(refused(Status.FAILED, "the model gave no finite weights", box, area))
            continue
        # Rounding may exceed 1 by the last digit.
        quality = min(1.0, max(0.0, float((weighted * inside).sum()) / weight_inside))
        results.append(RegionResult(quality, min(1.0, weight_inside / float(weight.sum())), box, area))
    return tuple(results)


def _each(regions: Iterable[MaskInput]) -> Iterator[MaskInput]:
    if isinstance(regions, np.ndarray):
        boxes = regions.ndim == 2 and regions.shape[1] == 4 and regions.dtype != np.bool_
        if regions.ndim != 3 and not boxes:
            raise PocketiqaError(
                f"regions is one array of shape {regions.shape}, but several regions are needed: give [mask] for a "
                "single one, masks as [n, H, W] or boxes as [n, 4]"
            )
    elif isinstance(regions, str | bytes | Mapping) or not isinstance(regions, Iterable):
        raise PocketiqaError(
            f"regions is {type(regions).__name__}, but a list of regions is needed: give [region] for a single one"
        )
    return iter(regions)


def _inner(region: MaskInput, height: int, width: int) -> tuple[Box, np.ndarray]:
    """Box around a region and the mask within it.

    Raises:
        RegionError: it does not fit the image.
        PocketiqaError: it is none of the accepted types.
    """
    if isinstance(region, np.ndarray) and region.ndim == 2:
        if region.dtype.kind not in "bui":
            raise PocketiqaError(f"a mask is {region.dtype}, but bool or integers are needed: give mask > threshold")
        if region.shape != (height, width):
            shown = f"{region.shape[1]}x{region.shape[0]}"
            raise RegionError(Status.CORRUPT, f"the mask is {shown}, but the image {width}x{height}")
        return inner_of(region if region.dtype == np.bool_ else region != 0)
    if isinstance(region, np.ndarray) and region.ndim == 1:
        region = region.tolist()
    if isinstance(region, str | bytes | Mapping):
        return decode_inner(from_coco(region, height, width), height, width)
    if isinstance(region, Sequence):
        is_box = len(region) == 4 and all(isinstance(one, int | float | np.number) for one in region)
        counts = from_box(region, height, width) if is_box else from_coco(region, height, width)
        return decode_inner(counts, height, width)
    shape = f" of shape {region.shape}" if isinstance(region, np.ndarray) else ""
    raise PocketiqaError(f"a region is {type(region).__name__}{shape}, but {_ACCEPTED} is needed")
