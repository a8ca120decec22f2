"""Axes of the hand-drawn SVG charts: scales, round tick marks, labels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from distill.report.markup import Html, tag

WIDTH, HEIGHT = 380, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 12, 46


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """About ``wanted`` round numbers within [low, high]: multiples of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not span > 0:
        return [low]
    step = 10 ** math.floor(math.log10(span / wanted))
    step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= wanted + 0.5)
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


def padded(values: Sequence[float], share: float = 0.05) -> tuple[float, float]:
    """Range of the values and a little more; never empty."""
    low, high = min(values), max(values)
    margin = (high - low) * share or max(abs(high) * share, 0.01)
    return low - margin, high + margin


@dataclass(frozen=True)
class Frame:
    """A plot area with its two scales.

    Attributes:
        x: range of the horizontal axis.
        y: range of the vertical axis.
        x_label: with unit.
        y_label: with unit; without one the vertical axis is not drawn.
        width: of the drawing in its own units (pixels at full size).
        height: likewise.
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
        share = (value - self.x[0]) / (self.x[1] - self.x[0])
        return round(self.left + share * (self.width - self.left - _RIGHT), 1)

    def at_y(self, value: float) -> float:
        """Vertical position."""
        share = (value - self.y[0]) / (self.y[1] - self.y[0])
        return round(self.height - _BOTTOM - share * (self.height - _TOP - _BOTTOM), 1)

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
