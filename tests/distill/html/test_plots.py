"""Charts are checked by reading the SVG back: positions, marks and words."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from distill.html.plots import (
    MOST_POINTS,
    Frame,
    Series,
    Span,
    curves,
    histogram,
    intervals,
    padded,
    residuals,
    scatter,
    thinned,
    tick_text,
    ticks,
)


def read(drawing: str) -> ET.Element:
    return ET.fromstring(drawing)


def series(count: int, css: str = "student") -> Series:
    generator = np.random.default_rng(count)
    x = generator.uniform(0, 1, count)
    return Series("pocket <m>", css, x, np.clip(x + generator.normal(0, 0.1, count), 0, 1))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-0.31, 0.31, [-0.2, 0.0, 0.2]),
        (0, 0.001, [0.0, 0.0002, 0.0004, 0.0006, 0.0008, 0.001]),
        (0, 40000, [0.0, 10000.0, 20000.0, 30000.0, 40000.0]),
        (3, 3, [3]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [
        (0.2, 0.2, "0.2"),
        (-0.25, 0.05, "−0.25"),
        (0, 0.2, "0"),
        (8e-4, 2e-4, "8e−4"),
        (20000, 5000, "20k"),
        (30, 10, "30"),
    ],
)
def test_tick_text(value: float, step: float, text: str) -> None:
    assert tick_text(value, step) == text


def test_padding_never_gives_an_empty_range() -> None:
    low, high = padded([0.0, 0.0])
    assert low < 0 < high


def test_points_lie_where_their_values_are() -> None:
    one = Series("m", "student", np.array([0.0, 0.5, 1.0]), np.array([1.0, 0.25, 0.0]))
    drawing = read(scatter(one, x_label="score", y_label="opinion", names=["a", "b", "c"]))
    frame = Frame((0, 1), (0, 1), "score", "opinion")
    circles = [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in drawing.iter("circle")]
    assert circles == [(frame.at_x(x), frame.at_y(y)) for x, y in zip(one.x, one.y, strict=True)]
    assert [title.text for title in drawing.iter("title")][1] == "a: 0.000, 1.000"
    # Up is up: the highest value has the smallest coordinate.
    assert circles[0][1] < circles[1][1] < circles[2][1]


def test_axes_are_labelled_and_the_chart_has_words() -> None:
    drawing = read(scatter(series(50), x_label="score of m", y_label="opinion (0 to 1)", names=["n"] * 50))
    texts = [text.text for text in drawing.iter("text")]
    assert {"score of m", "opinion (0 to 1)"} <= set(texts)
    assert drawing.get("role") == "img"
    assert "50 images" in (drawing.get("aria-label") or "")


def test_mapping_is_drawn_within_the_frame() -> None:
    drawing = read(scatter(series(40), x_label="x", y_label="y", names=["n"] * 40, mapping=lambda x: 50 * x))
    path = next(drawing.iter("path"))
    ys = [float(pair.split()[1]) for pair in re.split("[ML]", path.get("d", ""))[1:]]
    assert min(ys) >= 0


def test_many_points_are_thinned_evenly_and_lose_their_tooltips() -> None:
    count = MOST_POINTS + 500
    drawing = read(scatter(series(count), x_label="x", y_label="y", names=["n"] * count))
    circles = list(drawing.iter("circle"))
    assert len(circles) == MOST_POINTS
    assert not circles[0].findall("title")
    assert thinned(10, 4).tolist() == [0, 3, 6, 9]


def test_residuals_show_zero_and_the_mean_error() -> None:
    one = Series("m", "student", np.array([0.2, 0.8]), np.array([0.1, 0.3]))
    drawing = read(residuals(one, names=["a", "b"], x_label="opinion"))
    lines = [float(line.get("y1", "")) for line in drawing.iter("line") if line.get("class") != "grid"]
    assert lines[1] < lines[0]
    assert "mean difference 0.200" in (drawing.get("aria-label") or "")


def test_histogram_shares_sum_to_all_images() -> None:
    one = Series("m", "student", np.array([0.01, 0.02, 0.51, 1.7]), np.zeros(4))
    drawing = read(histogram([one], x_label="score", title="t"))
    points = [tuple(map(float, pair.split())) for pair in re.split("[ML]", next(drawing.iter("path")).get("d", ""))[1:]]
    frame = Frame((0, 1), (0, 50 * 1.08), "score", "images, %")
    heights = [(frame.at_y(0) - y) / (frame.at_y(0) - frame.at_y(1)) for _, y in points[::2]]
    assert sum(heights) == pytest.approx(100, abs=2)
    # The value outside the range is counted in the last twentieth.
    assert heights[-1] == pytest.approx(25, abs=1)


def test_curves_end_where_the_training_ended() -> None:
    one = Series("loss", "student", np.array([0.0, 100.0]), np.array([0.9, 0.1]))
    drawing = read(curves([one], x_label="steps", y_label="loss", title="Loss"))
    assert "loss from 0.9 to 0.1" in (drawing.get("aria-label") or "")
    assert len(list(drawing.iter("circle"))) == 1


def test_intervals_stay_on_the_paper() -> None:
    spans = [
        Span("a name that is far too long to fit", "student", 0.9, 0.8, 1.0),
        Span("b", "teacher", 0.5, None, None),
    ]
    drawing = read(intervals(spans, x_label="SRCC", title="t"))
    right = float((drawing.get("viewBox") or "").split()[2])
    lines = [line for line in drawing.iter("line") if "span" in (line.get("class") or "")]
    assert len(lines) == 1
    assert all(0 <= float(line.get(end, "")) <= right for line in lines for end in ("x1", "x2"))
    assert "a name that is f…" in [text.text for text in drawing.iter("text")]
