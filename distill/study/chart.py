"""The curve of a study: the metric over the values of its axis, a line an arm, with the band of its repeats."""

from collections.abc import Mapping, Sequence
from typing import Any

from distill.report.axes import Frame, padded
from distill.report.markup import Html, tag
from distill.report.numbers import decimals

# Classes of the report's colours; a fifth arm has the first colour again, and its name at the line's end.
COLOURS = ("other", "student", "teacher", "target")
BAND_CSS = """
.band { fill-opacity: .16; stroke: none; fill: var(--other); }
.band.student { fill: var(--student); } .band.teacher { fill: var(--teacher); } .band.target { fill: var(--target); }
.curve.other { stroke: var(--other); } .study .chart { max-width: 640px; }
"""
_WIDTH, _HEIGHT = 560, 360


def colour_of(result: Mapping[str, Any], arm: str) -> str:
    """Class of an arm."""
    return COLOURS[result["arms"].index(arm) % len(COLOURS)]


def curve(result: Mapping[str, Any]) -> Html | None:
    """The chart; None unless there is one axis beside the repeats, of two numbers at least, and something measured."""
    axes = [axis for axis in result["axes"] if axis != result["repeats"]]
    if len(axes) != 1 or len(result["rows"]) < 2:
        return None
    xs = [_number(row["values"][axes[0]]) for row in result["rows"]]
    lines = {arm: _points(result, arm, xs) for arm in result["arms"]}
    found = [point for points in lines.values() for point in points]
    if None in xs or not found:
        return None
    reach = padded([x for x, *_ in found], 0.04), padded([end for _, *ends in found for end in ends])
    frame = Frame(*reach, axes[0], result["metric"].upper(), width=_WIDTH, height=_HEIGHT)
    marks = [_line(frame, points, colour_of(result, arm), arm) for arm, points in lines.items() if points]
    words = "; ".join(
        f"{arm}: " + ", ".join(f"{decimals(mean)} at {x:g}" for x, mean, _, _ in points)
        for arm, points in lines.items()
        if points
    )
    title = f"{result['metric'].upper()} over {axes[0]}"
    return tag("div", frame.drawing(title, words + ".", *marks), class_="study")


_Point = tuple[float, float, float, float]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _points(result: Mapping[str, Any], arm: str, xs: Sequence[float | None]) -> list[_Point]:
    """x, mean, lowest and highest repeat, from left to right, where anything is known."""
    arms = [row["arms"][arm] for row in result["rows"]]
    found = [
        (x, one["mean"], one["low"], one["high"])
        for x, one in zip(xs, arms, strict=True)
        if x is not None and one["mean"] is not None
    ]
    return sorted(found)


def _line(frame: Frame, points: Sequence[_Point], css: str, arm: str) -> list[Html]:
    upper = [(frame.at_x(x), frame.at_y(high)) for x, _, _, high in points]
    lower = [(frame.at_x(x), frame.at_y(low)) for x, _, low, _ in reversed(points)]
    middle = [(frame.at_x(x), frame.at_y(mean)) for x, mean, _, _ in points]
    dots = [
        tag("circle", tag("title", f"{arm}, {x:g}: {decimals(mean)}"), cx=at[0], cy=at[1], r=4, class_=f"end {css}")
        for at, (x, mean, _, _) in zip(middle, points, strict=True)
    ]
    return [
        tag("path", d=f"{_path([*upper, *lower])}Z", class_=f"band {css}"),
        tag("path", d=_path(middle), class_=f"curve {css}"),
        *dots,
    ]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x} {y}" for x, y in points)
