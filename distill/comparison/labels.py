"""Words beside points of a plot, placed so that they cover neither each other nor the points."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

_PLACES = [(1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1)]  # to the right of the point and above it, and so on
_DISTANCES_PT = (6, 13, 22, 34)
_MARGIN_PX = 2
_ALIGN = {1: ("left", "bottom"), -1: ("right", "top"), 0: ("center", "center")}


def place_labels(axes: Axes, labels: Sequence[Annotation], obstacles: Sequence[Bbox]) -> None:
    """Move each label to the nearest place about its point where it covers least.

    Args:
        axes: whose place, limits and scales are final.
        labels: with offsets in points.
        obstacles: boxes in pixels that should stay free.
    """
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    canvas = FigureCanvasAgg(figure)
    inside, taken = axes.get_window_extent(), list(obstacles)
    for label in labels:
        tried = []
        for distance in _DISTANCES_PT:
            for right, up in _PLACES:
                _move(label, right, up, distance)
                box = label.get_window_extent(canvas.get_renderer()).padded(_MARGIN_PX)
                tried.append((_covered(box, taken) + _outside(box, inside), len(tried), right, up, distance, box))
        _, _, right, up, distance, box = min(tried, key=lambda one: one[:2])
        _move(label, right, up, distance)
        taken.append(box)


def spread(values: Sequence[float], least: float) -> list[float]:
    """Rising values moved apart until neighbours differ by ``least``; their mean stays."""
    moved = list(values)
    for _ in range(100):
        for at in range(len(moved) - 1):
            lacking = least - (moved[at + 1] - moved[at])
            if lacking > 0:
                moved[at] -= lacking / 2
                moved[at + 1] += lacking / 2
    return moved


def _move(label: Annotation, right: int, up: int, distance: float) -> None:
    label.set_position((right * distance, up * distance))
    label.set(ha=_ALIGN[right][0], va=_ALIGN[up][1])


def _covered(box: Bbox, others: Sequence[Bbox]) -> float:
    parts = (Bbox.intersection(box, other) for other in others)
    return sum(part.width * part.height for part in parts if part is not None)


def _outside(box: Bbox, inside: Bbox) -> float:
    part = Bbox.intersection(box, inside)
    return box.width * box.height - (0 if part is None else part.width * part.height)
