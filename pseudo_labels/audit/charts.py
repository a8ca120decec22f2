"""The charts of the audit page, each a picture of its own, so that they stand beside each other or below."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from pseudo_labels.audit.store import AuditReport
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.fusion.calibrate import MonotoneMap
from pseudo_labels.pool import Pool

_THUMBNAIL_PX = 160
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1a202c; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
h1, h2, h3 { line-height: 1.25; overflow-wrap: anywhere; } h2 { margin: 1.8em 0 .6em; } h3 { margin: 1.5em 0 .5em; }
.wide { overflow-x: auto; } .note { color: #4a5568; font-size: 13px; max-width: 75ch; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .2em 1em .2em 0; vertical-align: top; }
th { font-weight: 600; vertical-align: bottom; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
td { white-space: nowrap; } td.long { overflow-wrap: anywhere; min-width: 9em; white-space: normal; }
tr + tr { border-top: 1px solid #e2e8f0; }
.warning { border-left: 4px solid #dd6b20; background: #fffaf0; padding: .4em .8em; margin: .4em 0; }
.warning, .good { overflow-wrap: anywhere; }
.good { border-left: 4px solid #38a169; background: #f0fff4; padding: .4em .8em; }
.row { display: flex; flex-wrap: wrap; gap: 1em; } figure { margin: 0; width: 165px; font-size: 12px; }
figcaption { overflow-wrap: anywhere; color: #4a5568; } img { max-width: 100%; display: block; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 1em; }
.charts img, .matrix img { width: 100%; max-width: 420px; }
.matrix { display: grid; gap: .6em; }
@media (max-width: 640px) {
  .matrix { grid-template-columns: 1fr !important; } .matrix .none { display: none; }
  .row { display: grid; grid-template-columns: 1fr 1fr; gap: .8em; } figure { width: auto; }
}
"""
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


def table(head: list[str], rows: list[list[Any]]) -> str:
    """Rows under their heads: whole numbers with separators, others with three decimals, words as they are."""
    numbers = [any(isinstance(row[position], int | float) for row in rows) for position in range(len(head))]

    def cell(value: Any, position: int, tag: str = "td") -> str:
        text = f"{value:,}" if isinstance(value, int) else f"{value:.3f}" if isinstance(value, float) else str(value)
        kind = " class=n" if numbers[position] else " class=long" if len(text) > 24 else ""
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    def line(values: list[Any], tag: str) -> str:
        return "<tr>" + "".join(cell(value, position, tag) for position, value in enumerate(values)) + "</tr>"

    top = line(head, "th") if any(head) else ""
    return f'<div class="wide"><table>{top}{"".join(line(row, "td") for row in rows)}</table></div>'


def picture(pool: Pool | None, row: int, uri: str, caption: str) -> str:
    """A thumbnail of a row of the pool with a caption (HTML); in words why, where it cannot be shown.

    Args:
        pool: the pool; None where it is not available.
        row: position in the pool.
        uri: address of the row.
        caption: text under the picture; the name of the file is added.
    """
    under = f"<figcaption>{caption}<br>{escape(Path(uri).name)}</figcaption>"
    if pool is None:
        return f"<figure>{under}</figure>"
    try:
        image = Image.fromarray(pool.load(pool[row]))
    except PocketiqaError as error:
        return f"<figure><p>{escape(str(error))}</p>{under}</figure>"
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return f'<figure><img alt="" src="{inline(buffer.getvalue(), "jpeg")}">{under}</figure>'


def inline(data: bytes, kind: str) -> str:
    """A data URI of an image."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _image(draw: Callable[[Axes], None], alt: str, size: tuple[float, float] = _SIZE_IN) -> str:
    # Not by ``pyplot``, which keeps each figure in memory until it is closed.
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
    """Histograms, means by level and means by shard; empty if nothing has a score."""
    if not report.scores["n"]:
        return ""
    drawings = [_histogram(name, own) for name, own in report.histograms.items()]
    drawings += [_levels(report)] if report.levels else []
    return f'<h2>Scores</h2><div class="charts">{"".join([*drawings, _shards(report)])}</div>'


def _histogram(name: str, histogram: Mapping[str, Any]) -> str:
    return histogram_of(*_HISTOGRAMS[name], histogram, "images")


def histogram_of(title: str, label: str, histogram: Mapping[str, Any], what: str) -> str:
    """A histogram of ``counts`` in equal bins of [0, ``high``].

    Args:
        title: above it.
        label: under its axis.
        histogram: as in ``AuditReport.histograms``.
        what: what is counted, such as ``images``.
    """
    counts, high = histogram["counts"], histogram["high"]
    width = high / len(counts)

    def draw(axes: Axes) -> None:
        axes.bar(np.arange(len(counts)) * width, counts, width, align="edge", color=_BLUE, edgecolor="white")
        axes.set(title=title, xlabel=label, ylabel=what, xlim=(0, high))

    return _image(draw, f"{title}: histogram of {sum(counts)} {what}")


def _levels(report: AuditReport) -> str:
    def draw(axes: Axes) -> None:
        for distortion in report.distortions.values():
            levels, means = [int(level) for level in distortion["levels"]], list(distortion["levels"].values())
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
        for position, (name, own) in enumerate(zip(names, maps, strict=True)):
            style = ("-", "--", "-.")[position // 10 % 3]
            axes.plot(x, own(x), style, color=colormaps["tab10"](position % 10), lw=1.6, label=_short(name))
        axes.set(title="Calibration", xlabel="teacher's score", ylabel="common scale", xlim=(0, 1), ylim=(0, 1))
        axes.legend(fontsize=7, frameon=False)

    return _image(draw, f"Calibration curves of {', '.join(names)}")


def scatter_matrix(names: Sequence[str], pairs: Sequence[Mapping[str, Any]]) -> str:
    """Each two teachers' calibrated scores: one teacher a column, another a row, each pair once.

    Args:
        names: names of the teachers.
        pairs: the pairs of ``FusionReport``.
    """
    by_names = {(pair["first"], pair["second"]): pair for pair in pairs}
    side = min(_SIZE_IN[0], max(_SMALLEST_IN, _PAGE_IN / max(1, len(names) - 1)))
    cells = []
    for row, second in enumerate(names[1:], start=1):
        for column, first in enumerate(names[:-1]):
            # Empty cells above the diagonal: each pair is shown once, at its row and column.
            cells.append(_scatter(by_names[first, second], side) if column < row else '<div class="none"></div>')
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
