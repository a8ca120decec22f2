"""The charts of the audit page, each a picture of its own, so that they stand beside each other or below."""

import io
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pseudo_labels.audit.html import inline
from pseudo_labels.audit.report import AuditReport
from pseudo_labels.fusion.monotone import MonotoneMap

_BLUE, _GREY = "#2b6cb0", "#a0aec0"
_SIZE_IN = (3.6, 2.7)
_PAGE_IN = 11.0  # of the whole width of the page
_SMALLEST_IN = 2.4
_DPI = 150
_WIDEST_PX = 360  # of a cell of the matrix
_NAME_LETTERS = 26  # that fit beside an axis
_HISTOGRAMS = {
    "score": ("Scores", "score (1 best)"),
    "score_std": ("Spread", "standard deviation, units of the score"),
    "confidence": ("Confidence", "weight in distillation"),
}


def _image(draw: Callable[[Axes], None], alt: str, size: tuple[float, float] = _SIZE_IN) -> str:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_fontsize(9 if text is axes.title else 8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return f'<img alt="{escape(alt)}" src="{inline(buffer.getvalue(), "png")}">'


def charts(report: AuditReport) -> str:
    """Histograms, levels and shards; empty if nothing has a score."""
    if not report.scores["n"]:
        return ""
    found = [_histogram(name, own) for name, own in report.histograms.items()]
    found += [_levels(report)] if report.levels else []
    return f'<h2>Scores</h2><div class="charts">{"".join([*found, _shards(report)])}</div>'


def _histogram(name: str, found: Mapping[str, Any]) -> str:
    title, label = _HISTOGRAMS[name]
    counts, high = found["counts"], found["high"]
    width = high / len(counts)

    def draw(axes: Axes) -> None:
        axes.bar(np.arange(len(counts)) * width, counts, width, align="edge", color=_BLUE, edgecolor="white")
        axes.set(title=title, xlabel=label, ylabel="images", xlim=(0, high))

    return _image(draw, f"{title}: histogram of {sum(counts)} images")


def _levels(report: AuditReport) -> str:
    def draw(axes: Axes) -> None:
        for found in report.distortions.values():
            levels, means = [int(level) for level in found["levels"]], list(found["levels"].values())
            axes.plot(levels, means, color=_GREY, lw=0.8, alpha=0.7)
        axes.plot([int(level) for level in report.levels], list(report.levels.values()), "o-", color=_BLUE, lw=2)
        axes.set(title="Mean score by level (grey: single distortions)", xlabel="level", ylim=(0, 1))

    return _image(draw, "Mean score by level of distortion")


def _shards(report: AuditReport) -> str:
    index, mean, std = ([shard[name] for shard in report.by_shard] for name in ("index", "mean", "std"))

    def draw(axes: Axes) -> None:
        axes.errorbar(index, mean, std, fmt=".", color=_BLUE, ecolor=_GREY)
        axes.set(title="Mean and deviation by shard", xlabel="shard", ylim=(0, 1))
        axes.locator_params(axis="x", integer=True)

    return _image(draw, "Mean and deviation of the scores by shard")


def calibration_curves(names: Sequence[str], maps: Sequence[MonotoneMap]) -> str:
    """From each teacher's scale to the common one."""
    x = np.linspace(0, 1, 201)

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], ":", color=_GREY, lw=1)
        for place, (name, own) in enumerate(zip(names, maps, strict=True)):
            style = ("-", "--", "-.")[place // 10 % 3]
            axes.plot(x, own(x), style, color=colormaps["tab10"](place % 10), lw=1.6, label=_short(name))
        axes.set(title="Calibration", xlabel="teacher's score", ylabel="common scale", xlim=(0, 1), ylim=(0, 1))
        axes.legend(fontsize=7, frameon=False)

    return _image(draw, f"Calibration curves of {', '.join(names)}")


def scatter_matrix(names: Sequence[str], pairs: Sequence[Mapping[str, Any]]) -> str:
    """Each two teachers' calibrated scores: one teacher a column, another a row, each pair once.

    Args:
        names: of the teachers.
        pairs: of ``FusionReport``.
    """
    found = {(pair["first"], pair["second"]): pair for pair in pairs}
    side = min(_SIZE_IN[0], max(_SMALLEST_IN, _PAGE_IN / max(1, len(names) - 1)))
    cells = []
    for row, second in enumerate(names[1:], start=1):
        for column, first in enumerate(names[:-1]):
            cells.append(_scatter(found[first, second], side) if column < row else '<div class="none"></div>')
    count = len(names) - 1
    columns = f"grid-template-columns: repeat({count}, minmax(170px, 1fr)); max-width: {count * _WIDEST_PX}px"
    return f'<div class="wide"><div class="matrix" style="{columns}">{"".join(cells)}</div></div>'


def _scatter(pair: Mapping[str, Any], side: float) -> str:
    points = np.array(pair["points"], np.float64).reshape(-1, 2)
    rank = "no SRCC" if pair["srcc"] is None else f"SRCC {pair['srcc']:.3f}"
    title = f"{rank} (n={pair['n']:,})"

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], ":", color=_GREY, lw=1)
        axes.plot(points[:, 0], points[:, 1], ".", color=_BLUE, ms=7 if side > 3 else 5, alpha=0.5, mew=0)
        axes.set(title=title, xlabel=_short(pair["first"]), ylabel=_short(pair["second"]), xlim=(0, 1), ylim=(0, 1))
        axes.set_box_aspect(1)

    return _image(draw, f"{pair['second']} over {pair['first']}: {title}", (side, side))


def _short(name: str) -> str:
    return name if len(name) <= _NAME_LETTERS else f"{name[: _NAME_LETTERS - 1]}…"
