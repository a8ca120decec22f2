"""A picture of the result, for a README: AUROC by kind and strength, and pictures at which models disagree."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from distill.stress.photograph import resized
from distill.trust.pictures import LEVELS, PhotographFile, picture
from pseudo_labels.errors import PocketiqaError

_DPI, _WIDTH_IN, _ROW_IN = 100, 9.0, 2.9
_PAIRS = 2
_PICTURE_PX = 210
_SOFT = "#5b6670"
_COLOURS = 256  # photographs in all colours would make the file too large for a README


def draw(result: Mapping[str, Any], photographs: Sequence[PhotographFile]) -> bytes:
    """A PNG file.

    Args:
        result: figures, as ``run.trust`` makes them.
        photographs: the photographs of the tests.

    Raises:
        PocketiqaError: neither of the two was measured.
    """
    models = [model for model in result["models"] if model.get("auroc", {}).get("effects")]
    pairs = _most_apart(result["gmad"])
    if not models and not pairs:
        raise PocketiqaError(
            "there is nothing to draw: run --test catalogue, or compare two models, or leave --picture out"
        )
    rows = [bool(models), bool(pairs)]
    figure = Figure(figsize=(_WIDTH_IN, _ROW_IN * sum(rows)), dpi=_DPI, layout="constrained")
    parts = list(np.atleast_1d(np.array(figure.subfigures(sum(rows), 1), object)))
    if models:
        part = parts.pop(0)
        part.suptitle("AUROC, clean over damaged", fontsize=9, color=_SOFT)
        for number, (axes, model) in enumerate(zip(_axes(part, len(models)), models, strict=True)):
            _heat(axes, model, named=number == 0)
    if pairs:
        part = parts.pop(0)
        part.suptitle("alike to one model, far apart to the other", fontsize=9, color=_SOFT)
        for axes, side in zip(_axes(part, 2 * len(pairs)), _sides(pairs), strict=True):
            _photograph(axes, side, photographs)
    return _png(figure)


def _axes(part: Any, columns: int) -> list[Axes]:
    return list(np.atleast_1d(part.subplots(1, columns)))


def _heat(axes: Axes, model: Mapping[str, Any], *, named: bool) -> None:
    effects = model["auroc"]["effects"]
    values = np.array([[cell["value"] for cell in cells] for cells in effects.values()])
    axes.imshow(values, cmap="viridis", vmin=0.5, vmax=1.0, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value < 0.85 else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_title(model["name"], fontsize=9)
    axes.set_xticks(range(len(LEVELS)), [str(level) for level in LEVELS], fontsize=8)
    axes.set_xlabel("strength", fontsize=8, color=_SOFT)
    axes.set_yticks(range(len(effects)), list(effects) if named else [""] * len(effects), fontsize=8)
    axes.tick_params(length=0)


def _most_apart(pairs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The pairs that the attackers tell apart most, of different defenders."""

    def apart(pair: Mapping[str, Any]) -> float:
        return pair["better"]["percentiles"][pair["attacker"]] - pair["worse"]["percentiles"][pair["attacker"]]

    chosen: dict[str, Mapping[str, Any]] = {}
    for pair in sorted(pairs, key=apart, reverse=True):
        chosen.setdefault(pair["defender"], pair)
    return list(chosen.values())[:_PAIRS]


def _sides(pairs: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], list[str]]]:
    return [(pair[side], [pair["defender"], pair["attacker"]]) for pair in pairs for side in ("better", "worse")]


def _photograph(axes: Axes, shown: tuple[Mapping[str, Any], list[str]], photographs: Sequence[PhotographFile]) -> None:
    side, names = shown
    rgb = picture(photographs[side["photograph"]].open(), side["test"], side["label"])
    axes.imshow(resized(rgb, _PICTURE_PX))
    scores = "\n".join(f"{name} {side['scores'][name]:.2f}" for name in names)
    axes.set_title(f"{side['label'].replace('_', ' ')}\n{scores}", fontsize=8)
    axes.set_axis_off()


def _png(figure: Figure) -> bytes:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()).quantize(_COLOURS)
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    return data.getvalue()
