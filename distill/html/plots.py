"""The charts of the report as inline SVG: they follow the page's colours, light or dark, and stay sharp."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.html.markup import Html, tag
from distill.html.tables import decimals

WIDTH, HEIGHT = 380, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 12, 46
FloatArray = NDArray[np.float64]
# Every dot is an element of the page: beyond these numbers it becomes slow to open, and dots cover each other.
MOST_POINTS = 3000
MOST_TOOLTIPS = 800
_BINS = 20
_LABEL = 17  # letters that fit beside an interval


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """About ``wanted`` round numbers within [low, high]: multiples of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not span > 0:
        return [low]
    # The power of ten below the ideal distance, then the first round multiple that gives few enough marks.
    step = 10 ** math.floor(math.log10(span / wanted))
    step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= wanted + 0.5)
    # A quotient such as 0.3 / 0.1 is 2.9999...: the tolerance keeps marks that lie on an end. The marks are rounded, as
    # 3 * 0.1 would be 0.30000000000000004.
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_text(value: float, step: float) -> str:
    """``value`` with as many decimals as ``step`` needs; thousands as k, tiny ones as powers of ten."""
    if value and step >= 1e3:
        size, unit = (1e6, "M") if step >= 1e6 else (1e3, "k")
        return f"{value / size:g}{unit}".replace("-", "−")
    if value == 0:
        return "0"
    if step < 1e-3:
        exponent = math.floor(math.log10(abs(value)) + 1e-9)
        return f"{value / 10**exponent:.3g}e{exponent}".replace("-", "−")
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 2
    return f"{value:.{min(digits, 6)}f}".replace("-", "−")


def padded(values: Sequence[float], fraction: float = 0.05) -> tuple[float, float]:
    """Range of the values and a little more; never empty."""
    low, high = min(values), max(values)
    # Equal values have no range of their own, and the scale divides by it.
    margin = (high - low) * fraction or max(abs(high) * fraction, 0.01)
    return low - margin, high + margin


@dataclass(frozen=True)
class Frame:
    """A plot area with its two scales.

    Attributes:
        x: range of the horizontal axis.
        y: range of the vertical axis.
        x_label: name of the horizontal axis, with unit.
        y_label: name of the vertical axis, with unit; without a name it is not drawn.
        width: width of the drawing in its own units (pixels at full size).
        height: height of the drawing in the same units.
        left: room for the vertical axis.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT

    def at_x(self, value: float) -> float:
        """Horizontal position."""
        # One decimal of a pixel: finer is not visible, and thousands of points fill the page with digits.
        fraction = (value - self.x[0]) / (self.x[1] - self.x[0])
        return round(self.left + fraction * (self.width - self.left - _RIGHT), 1)

    def at_y(self, value: float) -> float:
        """Vertical position."""
        fraction = (value - self.y[0]) / (self.y[1] - self.y[0])
        return round(self.height - _BOTTOM - fraction * (self.height - _TOP - _BOTTOM), 1)

    def axes(self) -> list[Html]:
        """Grid lines, tick numbers and labels."""
        xs, ys = ticks(*self.x), ticks(*self.y) if self.y_label else []
        low, high = self.height - _BOTTOM, _TOP
        left, right = self.left, self.width - _RIGHT
        drawn = [tag("line", x1=left, x2=right, y1=self.at_y(y), y2=self.at_y(y), class_="grid") for y in ys]
        drawn += [tag("line", x1=self.at_x(x), x2=self.at_x(x), y1=low, y2=high, class_="grid") for x in xs]
        drawn += [tag("text", tick_text(x, _step(xs)), x=self.at_x(x), y=low + 18, class_="tick middle") for x in xs]
        drawn += [tag("text", tick_text(y, _step(ys)), x=left - 8, y=self.at_y(y) + 4, class_="tick end") for y in ys]
        middle = (low + high) / 2
        drawn.append(tag("text", self.x_label, x=(left + right) / 2, y=self.height - 6, class_="label middle"))
        if self.y_label:
            turned = f"translate(11 {middle}) rotate(-90)"
            drawn.append(tag("text", self.y_label, transform=turned, class_="label middle"))
        return drawn

    def drawing(self, title: str, description: str, *marks: object) -> Html:
        """The whole SVG, with words for those who do not see it."""
        return tag(
            "svg",
            tag("title", title),
            tag("desc", description),
            self.axes(),
            marks,
            viewBox=f"0 0 {self.width} {self.height}",
            role="img",
            aria_label=f"{title}. {description}",
            class_="chart",
        )


def _step(marks: Sequence[float]) -> float:
    return marks[1] - marks[0] if len(marks) > 1 else 1.0


@dataclass(frozen=True)
class Series:
    """Values of one model.

    Attributes:
        label: name in the legend.
        css: class that colours it: ``student``, ``teacher``, ``target`` or ``other``.
        x: horizontal values.
        y: vertical values.
    """

    label: str
    css: str
    x: FloatArray
    y: FloatArray


def thinned(length: int, most: int = MOST_POINTS) -> NDArray[np.int64]:
    """At most ``most`` positions, evenly spread."""
    # Evenly, not at random: equal inputs give equal bytes.
    return np.arange(length) if length <= most else np.linspace(0, length - 1, most).round().astype(np.int64)


def scatter(
    series: Series,
    *,
    x_label: str,
    y_label: str,
    names: Sequence[str],
    mapping: Callable[[FloatArray], FloatArray] | None = None,
) -> Html:
    """Target against prediction, with the line on which both are equal.

    Args:
        series: x is the prediction, y the target.
        x_label: name of the horizontal axis, with unit.
        y_label: name of the vertical axis, with unit.
        names: names of the images, shown on hovering.
        mapping: fitted curve from prediction to target.
    """
    both = np.concatenate([series.x, series.y])
    # One span for both axes, so that the line of equal values is the diagonal; 0 to 1, for comparison between pages.
    span = (min(0.0, float(both.min())), max(1.0, float(both.max())))
    frame = Frame(span, span, x_label, y_label)
    ends = [
        tag(
            "line",
            x1=frame.at_x(span[0]),
            y1=frame.at_y(span[0]),
            x2=frame.at_x(span[1]),
            y2=frame.at_y(span[1]),
            class_="even",
        )
    ]
    curve = []
    if mapping is not None:
        xs = np.linspace(series.x.min(), series.x.max(), 60)
        # Between the ends of its data a fitted curve may still leave the frame.
        ys = np.clip(mapping(xs), *span)
        curve.append(tag("path", d=_path(frame, xs, ys), class_=f"curve {series.css}"))
    words = f"{len(series.x)} images; {x_label} across, {y_label} upwards; on the dashed line both are equal."
    return frame.drawing(f"{series.label}: {y_label} and {x_label}", words, ends, _dots(frame, series, names), curve)


def residuals(series: Series, *, names: Sequence[str], x_label: str) -> Html:
    """Prediction minus target over the target, with the line of no error and the mean error.

    Args:
        series: x is the target, y the difference.
        names: names of the images, shown on hovering.
        x_label: name of the horizontal axis, with unit.
    """
    # At least 0.1 to both sides: the small errors of a good model must not fill the plot like large ones.
    reach = max(0.1, float(np.abs(series.y).max()) * 1.05)
    frame = Frame(
        (min(0.0, float(series.x.min())), max(1.0, float(series.x.max()))),
        (-reach, reach),
        x_label,
        "predicted − target",
    )
    left, right = frame.at_x(frame.x[0]), frame.at_x(frame.x[1])
    mean = float(series.y.mean())
    lines = [
        tag("line", x1=left, x2=right, y1=frame.at_y(0), y2=frame.at_y(0), class_="even"),
        tag("line", x1=left, x2=right, y1=frame.at_y(mean), y2=frame.at_y(mean), class_=f"curve {series.css}"),
    ]
    spread = decimals(float(series.y.std()))
    words = f"{len(series.x)} images; mean difference {decimals(mean)}, standard deviation {spread}."
    return frame.drawing(f"{series.label}: error over the target", words, _dots(frame, series, names), lines)


def _dots(frame: Frame, series: Series, names: Sequence[str]) -> list[Html]:
    chosen = thinned(len(series.x))
    tooltips = len(chosen) <= MOST_TOOLTIPS
    radius = 3.2 if len(chosen) <= 300 else 2.4
    dots = []
    for at in chosen:
        x, y = float(series.x[at]), float(series.y[at])
        words = tag("title", f"{names[at]}: {decimals(x)}, {decimals(y)}") if tooltips else None
        dots.append(tag("circle", words, cx=frame.at_x(x), cy=frame.at_y(y), r=radius, class_=f"dot {series.css}"))
    return dots


def _path(frame: Frame, xs: FloatArray, ys: FloatArray) -> str:
    points = (f"{frame.at_x(float(x))} {frame.at_y(float(y))}" for x, y in zip(xs, ys, strict=True))
    return "M" + "L".join(points)


def histogram(
    series: Sequence[Series],
    *,
    x_label: str,
    title: str,
    reach: tuple[float, float] = (0.0, 1.0),
    mark: float | None = None,
) -> Html:
    """Fraction of the images in each twentieth of a range, as outlines over each other.

    Args:
        series: ``x`` holds the values; ``y`` is not used.
        x_label: name of the horizontal axis, with unit.
        title: title, which names what is distributed.
        reach: the range; values outside are counted at its ends.
        mark: a value in it that gets a dashed line.
    """
    edges = np.linspace(*reach, _BINS + 1)
    # Fractions, not counts: a model that scored fewer images would seem lower everywhere.
    fractions = [np.histogram(np.clip(one.x, *reach), edges)[0] / max(len(one.x), 1) for one in series]
    top = max(float(fraction.max()) for fraction in fractions)
    # Without any image the top is 0, and the scale would divide by it.
    frame = Frame(reach, (0, 100 * top * 1.08 or 1.0), x_label, "images, %")
    outlines = [
        tag(
            "path", d=_path(frame, np.repeat(edges, 2)[1:-1], np.repeat(100 * fraction, 2)), class_=f"outline {one.css}"
        )
        for one, fraction in zip(series, fractions, strict=True)
    ]
    words = "; ".join(f"{one.label}: {len(one.x)} images, mean {decimals(float(one.x.mean()))}" for one in series)
    return frame.drawing(title, words + ".", None if mark is None else _upright(frame, mark), outlines)


def curves(series: Sequence[Series], *, x_label: str, y_label: str, title: str, kept: int | None = None) -> Html:
    """Lines over the course of the training, with a dashed one where its result was taken from."""
    frame = Frame(
        padded([float(v) for one in series for v in (one.x.min(), one.x.max())], 0.0),
        padded([float(v) for one in series for v in (one.y.min(), one.y.max())]),
        x_label,
        y_label,
    )
    lines = [tag("path", d=_path(frame, one.x, one.y), class_=f"curve {one.css}") for one in series]
    ends = [
        tag("circle", cx=frame.at_x(float(one.x[-1])), cy=frame.at_y(float(one.y[-1])), r=3, class_=f"end {one.css}")
        for one in series
    ]
    words = "; ".join(f"{one.label} from {one.y[0]:.3g} to {one.y[-1]:.3g}" for one in series)
    words += "." if kept is None else f"; kept at {kept}."
    return frame.drawing(title, words, None if kept is None else _kept_line(frame, kept), lines, ends)


def _kept_line(frame: Frame, at: int) -> list[Html]:
    x, high = frame.at_x(at), frame.at_y(frame.y[1])
    label = tag("text", "kept", x=x, y=high - 3, class_="middle")  # above the frame, where no curve is
    return [_upright(frame, at), label]


def _upright(frame: Frame, at: float) -> Html:
    x, (low, high) = frame.at_x(at), map(frame.at_y, frame.y)
    return tag("line", x1=x, x2=x, y1=low, y2=high, class_="even")


@dataclass(frozen=True)
class Span:
    """A value with its interval, as one line of a chart."""

    label: str
    css: str
    value: float
    low: float | None
    high: float | None


def intervals(spans: Sequence[Span], *, x_label: str, title: str) -> Html:
    """Values as dots on lines that show their intervals, one model below another."""
    known = [v for span in spans for v in (span.value, span.low, span.high) if v is not None]
    low, high = padded(known, 0.08)
    # No correlation is above 1, and the axis should not suggest it.
    high = min(high, 1.0) if max(known) <= 1 else high
    scale = Frame((low, high), (0, 1), x_label, "", height=30 * len(spans) + 62, left=128)
    marks = []
    for row, span in enumerate(spans):
        y = 28 + row * 30
        label = span.label if len(span.label) <= _LABEL else f"{span.label[: _LABEL - 1]}…"
        marks.append(tag("text", label, x=116, y=y + 4, class_="label end"))
        if span.low is not None and span.high is not None:
            marks.append(
                tag("line", x1=scale.at_x(span.low), x2=scale.at_x(span.high), y1=y, y2=y, class_=f"span {span.css}")
            )
        marks.append(tag("circle", cx=scale.at_x(span.value), cy=y, r=5, class_=f"end {span.css}"))
    words = "; ".join(f"{span.label} {decimals(span.value)}" for span in spans)
    return scale.drawing(title, words + ".", marks)


def legend(entries: Sequence[tuple[str, str]]) -> Html:
    """Labels with the colour of their class: (label, class)."""
    return tag("p", [tag("span", tag("i", class_=css), label) for label, css in entries], class_="legend")
