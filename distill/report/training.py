"""Sections on how a training went: the curves, and the step whose weights were kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill.html.markup import Html, tag
from distill.html.plots import Series, curves, legend
from distill.html.tables import Section, count, data, decimals

_STEPS = {"step": "optimiser steps", "images_seen": "images seen", "epoch": "epochs"}
_CSS = {"student": ("student", "other", "target", "teacher"), "teacher": ("teacher", "other", "target", "student")}
_AGREEMENT = ("srcc", "plcc", "krcc")
_LABELS = {(True, "lr"): "learning rate"} | {(False, name): name.upper() for name in _AGREEMENT}


def training(content: Mapping[str, Any]) -> Section | None:
    """Section with the curves of losses and validation metrics of the model."""
    drawn = _charts(content["history"], content["kept_step"], content["kind"])
    if not drawn:
        return None
    kept = _kept(content["history"], content["kept_step"])
    return Section("training", "Training", [kept, tag("div", drawn, class_="charts")])


def fitting(content: Mapping[str, Any]) -> Section | None:
    """How the teachers of a student were fitted to ratings."""
    fittings = content["fitting"]
    if not fittings:
        return None
    title = "Fitting of the teacher" if len(fittings) == 1 else "Fitting of the teachers"
    return Section("fitting", title, [part for one in fittings for part in _one_fitting(one)])


def _one_fitting(record: Mapping[str, Any]) -> list[Html | None]:
    return [
        tag("p", tag("b", record["teacher"]), " was fitted to the ratings of"),
        tag("ul", [tag("li", _ratings(pool)) for pool in record["opinions"]]),
        _kept(record["history"], record["kept_step"]),
        # The first two, agreement and loss: the page is about the student.
        tag("div", _charts(record["history"], record["kept_step"], "teacher")[:2], class_="charts"),
    ]


def _ratings(pool: Mapping[str, Any]) -> list[object]:
    words = f" images; {pool['licence']}" if pool.get("licence") else " images"
    return [tag("b", pool["name"]), ", ", data(pool["images"], count), words]


def _kept(history: Sequence[Mapping[str, Any]], step: int | None) -> Html | None:
    """Agreement on the validation images at the step that was kept, for each source."""
    records = (one for one in history if one.get("kind") == "validation" and one.get("step") == step)
    record = next(records, None)
    if step is None or record is None:
        return None
    words: list[object] = ["Kept: the weights of step ", data(step, count)]
    for name, figures in record["sources"].items():
        agreed = data(figures["srcc"], decimals, why="all scores or all targets are equal")
        words += ["; on validation images of ", tag("b", name), " SRCC ", agreed, ", n = ", data(figures["n"], count)]
    return tag("p", words, ".")


def _charts(history: Sequence[Mapping[str, Any]], kept: int | None, kind: str) -> list[Html]:
    records = [(str(record.get("kind", "train")), flat(record)) for record in history]
    # A curve takes two records at least: a very short training has no chart, in place of an empty one.
    axis = next((name for name in _STEPS if sum(name in numbers for _, numbers in records) > 1), None)
    if axis is None:
        return []
    charts = []
    for title, names in _families(records).items():
        series = _series(records, axis, names, _CSS[kind])
        validated = axis == "step" and any(own == "validation" for own, _ in names)
        if series:
            charts.append(_curve_chart(series, _STEPS[axis], title, kept if validated else None))
    return charts


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers of a nested record under dotted names."""
    terms: dict[str, float] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            terms |= flat(value, f"{prefix}{key}.")
        # To Python a bool is an int, but it makes no curve.
        elif isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value):
            terms[prefix + key] = float(value)
    return terms


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _families(records: Sequence[tuple[str, Mapping[str, float]]]) -> dict[str, list[tuple[str, str]]]:
    """Curves that belong on one chart, as (kind of record, name), by the chart's title; most telling first."""
    # A dict keeps the order of first occurrence, so equal histories give equal charts.
    names = list(dict.fromkeys((kind, name) for kind, numbers in records for name in numbers if name not in _STEPS))
    trained = [(kind, name) for kind, name in names if kind == "train"]
    loss = [one for one in trained if _last(one[1]) in ("loss", "total")]
    rate = [one for one in trained if _last(one[1]) in ("lr", "learning_rate")]
    norm = [one for one in trained if _last(one[1]) == "gradient_norm"]
    agreement = [one for one in names if one[0] != "train" and _last(one[1]) in _AGREEMENT]
    return {
        "Agreement on validation images": sorted(agreement, key=lambda one: _AGREEMENT.index(_last(one[1]))),
        "Loss": loss,
        "Terms of the loss": [one for one in trained if one not in (*loss, *rate, *norm)],
        "Learning rate": rate,
    }


def _series(
    records: Sequence[tuple[str, Mapping[str, float]]],
    axis: str,
    names: Sequence[tuple[str, str]],
    colours: Sequence[str],
) -> list[Series]:
    series = []
    # There are four colours: of more curves the first four are drawn, in their order.
    for css, (kind, name) in zip(colours, names, strict=False):
        points = [(n[axis], n[name]) for own, n in records if own == kind and name in n and axis in n]
        if len(points) > 1:
            xs, ys = np.array(points, np.float64).T
            series.append(Series(_curve_label(kind, name, names), css, xs, ys))
    return series


def _curve_chart(series: Sequence[Series], x_label: str, title: str, kept: int | None) -> Html:
    drawing = curves(series, x_label=x_label, y_label=title.lower(), title=title, kept=kept)
    entries = legend([(one.label, one.css) for one in series]) if len(series) > 1 else None
    ends = [
        tag("span", ", " if at else "", f"{one.label} ", data(float(one.y[-1]), lambda v: f"{v:.3g}"))
        for at, one in enumerate(series)
    ]
    caption = tag("figcaption", tag("b", title), f", {max(len(one.x) for one in series)} records; at the end: ", ends)
    return tag("figure", drawing, entries, caption)


def _curve_label(kind: str, name: str, names: Sequence[tuple[str, str]]) -> str:
    """The last part of a dotted name in words, after the part before it where two curves would have one label."""
    # A term of the loss named plcc is a distance, not a correlation: it keeps its own name.
    label = _LABELS.get((kind == "train", _last(name)), _last(name).replace("_", " "))
    shared = sum(_last(other) == _last(name) for _, other in names) > 1
    return f"{name.split('.')[-2]}: {label}" if shared and "." in name else label
