import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from distill.comparison.plots import place_labels, spread


def test_labels_of_near_points_cover_neither_each_other_nor_the_points():
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    points = [(0.5, 0.5), (0.5, 0.52), (0.52, 0.5)]
    labels = [axes.annotate(f"model {at}", at, (8, 8), textcoords="offset points") for at in points]
    pixels = [axes.transData.transform(point) for point in points]
    boxes = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in pixels]
    place_labels(axes, labels, boxes)
    renderer = FigureCanvasAgg(figure).get_renderer()
    placed = [label.get_window_extent(renderer) for label in labels]
    for number, box in enumerate(placed):
        assert not any(box.overlaps(other) for other in [*placed[:number], *boxes])


def test_names_are_moved_apart_and_stay_in_order():
    assert spread([1.0, 2.0, 50.0], 11) == pytest.approx([-4, 7, 50])
    moved = spread([10.0, 10.0, 10.0], 5)
    assert moved == pytest.approx([5, 10, 15], abs=0.01)
