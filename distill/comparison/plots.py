"""Two plots as PNG: accuracy against milliseconds, and predicted against rating."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox

from distill.evaluation.evaluate import select
from distill.evaluation.predictions import Predictions
from distill.evaluation.targets import Targets
from distill.html.tables import decimals
from pseudo_labels.files import write_atomic
from pseudo_labels.metrics.correlation import map_to_target, srcc

_PLACES = [(1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1)]  # to the right of the point and above it, and so on
_DISTANCES_PT = (6, 13, 22, 34)
_MARGIN_PX = 2
_ALIGN = {1: ("left", "bottom"), -1: ("right", "top"), 0: ("center", "center")}
_DPI = 200
_SOFT, _GRID = "#5b6670", {"color": "#e3e5e4", "linewidth": 0.7}
_STUDENT, _TEACHER = "#1668a8", "#b4560f"  # as in the report
_OWN = {"onnx": _STUDENT, "student": _STUDENT, "teacher": _TEACHER}
_SUBSETS = ("#1668a8", "#b4560f", "#1a7f4b", "#5c4b9b", "#6b7680")
_LINE_PT = 11  # from one published name to the next


def place_labels(axes: Axes, labels: Sequence[Annotation], obstacles: Sequence[Bbox]) -> None:
    """Move each label to the nearest place about its point where it covers least.

    Args:
        axes: axes whose place, limits and scales are final.
        labels: annotations with offsets in points.
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
        # Of equal places the first tried: nearest to the point, and above it to the right.
        _, _, right, up, distance, box = min(tried, key=lambda one: one[:2])
        _move(label, right, up, distance)
        taken.append(box)


def spread(values: Sequence[float], least: float) -> list[float]:
    """Rising values moved apart until neighbours differ by ``least``; their mean stays."""
    moved = list(values)
    # Each push may bring a pair too close to its other neighbours. Both move by half, so the mean stays; for a few
    # names, 100 passes are more than enough.
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


def _save(figure: Figure, path: Path) -> None:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=_DPI)
    write_atomic(path, data.getvalue())


def plot_accuracy(lines: Sequence[Mapping[str, Any]], path: Path, *, headline: str) -> None:
    """SRCC with its interval against milliseconds (logarithmic); published figures at the side, as nobody timed them.

    A row of several seeds has the span of the seeds in place of the interval.
    """
    timed = [line for line in lines if line.get("milliseconds") and line["srcc"]]
    # Without pyplot, which keeps a list of all figures and may look for a screen.
    figure = Figure(figsize=(7.6, 4.4))
    axes = figure.subplots(gridspec_kw={"left": 0.1, "right": 0.83, "top": 0.93, "bottom": 0.12})
    _scales(axes, [line["milliseconds"] for line in timed])
    axes.set(xlabel="milliseconds from file to score, one core", ylabel="SRCC with people")
    axes.set_title(f"{headline}; bars: 95 % interval; dotted: published by others", fontsize=9, color=_SOFT, loc="left")
    labels = [_point(axes, line) for line in timed]
    # Before the labels: they are placed in pixels, and any change of the limits would move the points away.
    axes.margins(y=0.12)
    _published(axes, [line for line in lines if "published" in line])
    place_labels(axes, labels, [box for line in timed for box in _boxes(axes, line)])
    _save(figure, path)


def _scales(axes: Axes, times: Sequence[float]) -> None:
    axes.set_xscale("log")
    if times:
        axes.set_xlim(min(times) / 8, max(times) * 2.5)  # room for the words at both sides
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.grid(**_GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _span(line: Mapping[str, Any]) -> tuple[float, float]:
    """Ends of the bar: of the interval, or of the seeds."""
    metric = line["models"][0]["selections"][line["headline"]]["metrics"]["srcc"]
    own = metric if len(line["models"]) == 1 and metric["low"] is not None else line["srcc"]
    return own["low"], own["high"]


def _point(axes: Axes, line: Mapping[str, Any]) -> Annotation:
    at, value, colour = line["milliseconds"], line["srcc"]["mean"], _OWN.get(line["models"][0]["kind"], _SOFT)
    axes.plot([at, at], _span(line), color=colour, linewidth=4, alpha=0.3, solid_capstyle="round")
    axes.plot([at], [value], "o", color=colour, markersize=7)
    words = f"{line['name']}\n{decimals(value)}, {at:,.{0 if at >= 100 else 1}f} ms"
    return axes.annotate(words, (at, value), (8, 8), textcoords="offset points", fontsize=8, color=colour)


def _boxes(axes: Axes, line: Mapping[str, Any]) -> list[Bbox]:
    """The bar and the point of a line, in pixels."""
    at, value, (low, high) = line["milliseconds"], line["srcc"]["mean"], _span(line)
    bottom, middle, top = (axes.transData.transform((at, y)) for y in (low, value, high))
    x, reach = middle[0], 5
    return [
        Bbox.from_extents(x - 3, bottom[1], x + 3, top[1]),
        Bbox.from_extents(x - reach, middle[1] - reach, x + reach, middle[1] + reach),
    ]


def _published(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    ordered = sorted(lines, key=lambda line: line["published"]["srcc"])
    values = [line["published"]["srcc"] for line in ordered]
    for value in values:
        axes.axhline(value, color="#9aa3aa", linewidth=0.9, linestyle=":")
    # The heights of the names are in points, so the scale has to be final before they are computed.
    axes.autoscale_view()
    heights_pt = [72 / axes.figure.dpi * axes.transData.transform((1, value))[1] for value in values]
    for line, value, was, now in zip(ordered, values, heights_pt, spread(heights_pt, _LINE_PT), strict=True):
        axes.annotate(
            f"{line['name']} {value:.3g}", (1, value), (5, now - was), ("axes fraction", "data"),
            textcoords="offset points", va="center", fontsize=7.5, color=_SOFT, annotation_clip=False,
        )  # fmt: skip


def plot_predicted(predicted: Mapping[str, Predictions], targets: Targets, path: Path) -> None:
    """Rating against prediction on the headline images, a panel a model, coloured by subset, with the fitted curve."""
    figure = Figure(figsize=(3.9 * len(predicted), 4.3), layout="constrained")
    panels = figure.subplots(1, len(predicted), squeeze=False, sharey=True)[0]
    for axes, (name, predictions) in zip(panels, predicted.items(), strict=True):
        _panel(axes, name, predictions, targets)
    panels[0].set_ylabel("mean opinion score of people")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8, markerscale=2
    )
    _save(figure, path)


def _panel(axes: Axes, name: str, predictions: Predictions, targets: Targets) -> None:
    used = next(iter(select(targets).values())) & np.isfinite(predictions.scores)
    # The headline images alone: the panel shows what the figure in the table was computed from.
    x, y = predictions.scores[used], targets.scores[used]
    axes.plot([0, 1], [0, 1], color="#9aa3aa", linewidth=0.9, linestyle="--")
    own = np.array(targets.subsets)[used]
    for number, subset in enumerate(sorted(set(targets.subsets))):
        part, colour = own == subset, _SUBSETS[number % len(_SUBSETS)]
        axes.scatter(
            x[part], y[part], s=11, alpha=0.5, color=colour, linewidths=0, clip_on=False, label=subset or "images"
        )
    _, fit = map_to_target(x, y)
    if not fit.reason:
        line = np.linspace(x.min(), x.max(), 200)
        axes.plot(line, fit(line), color="#1c2329", linewidth=1.6, label="fitted curve")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted", aspect=1)
    axes.set_title(f"{name}: SRCC {srcc(x, y):.3f} (n = {len(x)})", fontsize=9, loc="left")
    axes.grid(**_GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
