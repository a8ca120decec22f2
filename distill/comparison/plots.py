"""Two plots as PNG: accuracy against milliseconds, and predicted against opinion."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from distill.evaluation.metrics import map_to_target
from distill.evaluation.predictions import Predictions
from distill.evaluation.targets import Targets

_DPI = 160
_COLOURS = ("#2a6fbb", "#c25b12", "#3a8f4d", "#8255a5", "#777777")
_GRID = {"color": "#dddddd", "linewidth": 0.6}


def plot_accuracy(lines: Sequence[Mapping[str, Any]], path: Path, *, headline: str) -> None:
    """SRCC with its interval against milliseconds (logarithmic); published figures as lines, as nobody timed them."""
    timed = [line for line in lines if line.get("milliseconds") and line["srcc"]]
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for number, line in enumerate(sorted(timed, key=lambda line: line["milliseconds"])):
        metric = line["models"][0]["selections"][line["headline"]]["metrics"]["srcc"]
        value, colour = line["srcc"]["mean"], _COLOURS[number % len(_COLOURS)]
        low, high = (metric["low"], metric["high"]) if len(line["models"]) == 1 else (None, None)
        bars = None if low is None else [[value - low], [high - value]]
        axes.errorbar(line["milliseconds"], value, yerr=bars, fmt="o", color=colour, capsize=3, markersize=7)
        words = f"{line['name']}\n{value:.3f}, {line['milliseconds']:.1f} ms"
        axes.annotate(
            words, (line["milliseconds"], value), xytext=(8, 5), textcoords="offset points", fontsize=8, color=colour
        )
    for line in lines:
        if "published" in line:
            axes.axhline(line["published"]["srcc"], color="#999999", linewidth=0.8, linestyle=":")
            axes.annotate(
                f"{line['name']} (published)", (1, line["published"]["srcc"]), xycoords=("axes fraction", "data"),
                xytext=(-3, 2), textcoords="offset points", ha="right", fontsize=7, color="#777777",
            )  # fmt: skip
    axes.set(xscale="log", xlabel="milliseconds from file to score, one core", ylabel=f"SRCC, {headline}")
    times = [line["milliseconds"] for line in timed]
    if times:
        axes.set_xlim(min(times) / 1.5, max(times) * 6)  # room for the words at the right
    axes.grid(which="major", **_GRID)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    figure.savefig(path, dpi=_DPI)


def plot_predicted(judged: Mapping[str, Predictions], targets: Targets, path: Path) -> None:
    """Opinion against prediction, a panel for each model, coloured by subset, with the fitted logistic curve."""
    figure = Figure(figsize=(4.2 * len(judged), 4.2), layout="constrained")
    panels = figure.subplots(1, len(judged), squeeze=False)[0]
    subsets = sorted(set(targets.subsets))
    for axes, (name, found) in zip(panels, judged.items(), strict=True):
        scored = np.isfinite(found.scores)
        for number, subset in enumerate(subsets):
            mask = scored & np.array([own == subset for own in targets.subsets])
            colour = _COLOURS[number % len(_COLOURS)]
            axes.scatter(
                found.scores[mask], targets.scores[mask], s=9, alpha=0.6, color=colour, linewidths=0,
                label=f"{subset or 'images'} ({int(mask.sum())})",
            )  # fmt: skip
        _, fit = map_to_target(found.scores[scored], targets.scores[scored])
        if not fit.reason:
            line = np.linspace(found.scores[scored].min(), found.scores[scored].max(), 80)
            axes.plot(line, fit(line), color="#222222", linewidth=1.2)
        axes.plot([0, 1], [0, 1], color="#aaaaaa", linewidth=0.8, linestyle="--")
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=f"predicted by {name}", ylabel="mean opinion of people", aspect=1)
        axes.grid(**_GRID)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=7, frameon=False, loc="upper left")
    figure.savefig(path, dpi=_DPI)
