"""Sections with pictures: training curves, disagreements, quality maps, damaged copies."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill.report.figures import overlay, thumbnail
from distill.report.inputs import ReportInputs
from distill.report.markup import Html, plain, tag
from distill.report.numbers import data, decimals, signed
from distill.report.plots import Series, curves, legend
from distill.report.tables import Section, soft, table
from pseudo_labels.images import ImageError

_STEPS = {"step": "optimiser steps", "images_seen": "images seen", "epoch": "epochs"}
_CSS = ("student", "other", "target", "teacher")
_AGREEMENT = ("srcc", "plcc", "krcc")
_LABELS = {(True, "lr"): "learning rate"} | {(False, name): name.upper() for name in _AGREEMENT}


def training(content: Mapping[str, Any]) -> Section | None:
    """How the losses and the validation figures went."""
    records = [(str(record.get("kind", "train")), flat(record)) for record in content["history"]]
    axis = next((name for name in _STEPS if sum(name in numbers for _, numbers in records) > 1), None)
    if axis is None:
        return None
    charts = [_curve_chart(records, axis, title, names) for title, names in _families(records).items()]
    drawn = [chart for chart in charts if chart is not None]
    return Section("training", "Training", [tag("div", drawn, class_="charts")]) if drawn else None


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers of a nested record under dotted names."""
    found: dict[str, float] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value):
            found[prefix + key] = float(value)
    return found


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _families(records: Sequence[tuple[str, Mapping[str, float]]]) -> dict[str, list[tuple[str, str]]]:
    """Curves that belong on one chart, as (kind of record, name), by the chart's title; most telling first."""
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


def _curve_chart(
    records: Sequence[tuple[str, Mapping[str, float]]], axis: str, title: str, names: Sequence[tuple[str, str]]
) -> Html | None:
    series = []
    for css, (kind, name) in zip(_CSS, names, strict=False):
        points = [(n[axis], n[name]) for own, n in records if own == kind and name in n and axis in n]
        if len(points) > 1:
            xs, ys = np.array(points, np.float64).T
            series.append(Series(_curve_label(kind, name, names), css, xs, ys))
    if not series:
        return None
    drawing = curves(series, x_label=_STEPS[axis], y_label=title.lower(), title=title)
    entries = legend([(one.label, one.css) for one in series]) if len(series) > 1 else None
    ends = [
        tag("span", ", " if at else "", f"{one.label} ", data(float(one.y[-1]), lambda v: f"{v:.3g}"))
        for at, one in enumerate(series)
    ]
    caption = tag("figcaption", tag("b", title), f", {max(len(one.x) for one in series)} records; at the end: ", ends)
    return tag("figure", drawing, entries, caption)


def _curve_label(kind: str, name: str, names: Sequence[tuple[str, str]]) -> str:
    """The last part of a dotted name in words, after the part before it where two curves would share a label."""
    # A term of the loss named plcc is a distance, not a correlation: it keeps its own name.
    label = _LABELS.get((kind == "train", _last(name)), _last(name).replace("_", " "))
    shared = sum(_last(other) == _last(name) for _, other in names) > 1
    return f"{name.split('.')[-2]}: {label}" if shared and "." in name else label


def disagreement(content: Mapping[str, Any], inputs: ReportInputs) -> Section | None:
    """The images on which student and target are farthest apart."""
    if not content["disagreement"]:
        return None
    cards = [_disagreement_card(content, inputs, row) for row in content["disagreement"]]
    n = len(content["disagreement"])
    words = f"The {n} images on which the student is farthest from the target. Faults of a model are easiest seen here."
    return Section("disagreement", "Where they disagree most", [soft(words), tag("div", cards, class_="gallery")])


def _disagreement_card(content: Mapping[str, Any], inputs: ReportInputs, row: Mapping[str, Any]) -> Html:
    picture = None
    if inputs.load_image is not None:
        try:
            rgb = inputs.load_image(inputs.targets.ids[row["at"]])
            words = (
                f"Photograph {row['id']}: target {decimals(row['target'], 2)}, student {decimals(row['student'], 2)}"
            )
            picture = thumbnail(rgb, alt=words)
        except ImageError:
            picture = None  # its scores still tell something
    bars = [_bar("target", "target", row["target"]), _bar(content["student"], "student", row["student"])]
    if row["teacher"] is not None:
        bars.append(_bar(content["teacher"], "teacher", row["teacher"]))
    caption = tag("figcaption", shortened(row["name"]), ": ", data(row["difference"], signed))
    return tag("figure", picture, tag("div", bars, class_="scores"), caption)


def _bar(label: str, css: str, value: float) -> list[Html]:
    share = round(100 * min(max(value, 0.0), 1.0), 1)
    fill = tag("i", class_=css, style=f"width:{share}%")
    return [
        tag("span", label),
        tag("span", fill, class_="bar", aria_hidden="true"),
        data(value, lambda v: decimals(v, 2)),
    ]


def shortened(name: str, most: int = 48) -> str:
    """A name with its middle left out if it is long."""
    text = plain(name)
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 2 + 1 :]}"


def maps(content: Mapping[str, Any], inputs: ReportInputs) -> Section | None:
    """Photographs under their quality maps."""
    if not inputs.quality_maps:
        return None
    cards = []
    for one, row in zip(inputs.quality_maps, content["quality_maps"], strict=True):
        name = shortened(one.name)
        pair = tag(
            "div",
            thumbnail(one.rgb, alt=f"Photograph {name}"),
            thumbnail(overlay(one.rgb, one.quality_map), alt=f"Quality map of {name}, dark where the quality is low"),
            class_="pair",
        )
        ends = tag(
            "div",
            tag("span", "low ", data(row["low"], _two)),
            tag("span", "high ", data(row["high"], _two)),
            class_="ends",
        )
        caption = tag("figcaption", tag("b", name), ", score ", data(row["score"], _two))
        cards.append(tag("figure", pair, tag("div", class_="scale", aria_hidden="true"), ends, caption))
    words = (
        f"{content['student']} scores every part of an image; the score is their weighted mean. Colours span each map."
    )
    return Section("maps", "Quality maps", [soft(words), tag("div", cards, class_="pairs")])


def _two(value: float) -> str:
    return decimals(value, 2)


def damaged(content: Mapping[str, Any], inputs: ReportInputs) -> Section | None:
    """Originals against visibly damaged copies."""
    rows = content["damaged"]
    if not rows:
        return None
    pictures = [_before_after(one) for one in inputs.damaged if one.original is not None and one.damaged is not None]
    cells = [
        [
            shortened(row["name"]),
            row["damage"],
            data(row["original_score"], decimals),
            data(row["damaged_score"], decimals),
            _change(row),
        ]
        for row in rows
    ]
    lower = sum(row["difference"] < 0 for row in rows)
    words = f"{content['student']} gives {lower} of {len(rows)} damaged copies a lower score than the original."
    listed = table(
        ["photograph", "damage", "original", "damaged", "change"], cells, caption="Scores from 0 (worst) to 1 (best)"
    )
    return Section(
        "damaged", "Before and after damage", [soft(words), tag("div", pictures[:6], class_="pairs"), listed]
    )


def _change(row: Mapping[str, Any]) -> Html:
    return tag("span", data(row["difference"], signed), class_="down" if row["difference"] < 0 else "up")


def _before_after(one: Any) -> Html:
    name = shortened(one.name)
    pair = tag(
        "div",
        thumbnail(one.original, alt=f"{name}, original"),
        thumbnail(one.damaged, alt=f"{name} with {one.damage}"),
        class_="pair",
    )
    scores = tag("span", data(one.original_score, _two), " → ", data(one.damaged_score, _two))
    return tag("figure", pair, tag("figcaption", tag("b", name), f", {one.damage}: ", scores))
