"""The section that shows every image as a point: prediction, target and error."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from distill.report.lookup import model_of, role
from distill.report.markup import Html, tag
from distill.report.numbers import count, data, decimals
from distill.report.plots import Series, histogram, legend, residuals, scatter
from distill.report.tables import Section
from pseudo_labels.metrics.logistic import LogisticFit


def target_label(content: Mapping[str, Any]) -> str:
    """What the axis of the targets shows."""
    teacher = content["evaluation"]["target"]["source"] == "teacher"
    return "label of the teacher (0 to 1)" if teacher else "opinion of people (0 to 1)"


def plots(content: Mapping[str, Any]) -> Section | None:
    """Scatter and residual plots of the model and its teacher, and the distributions of their scores."""
    points = content["points"]["scores"]
    models = [name for name in (content["model"], content["teacher"]) if name in points]
    models = [name for name in models if len(_known(content, name)[0]) > 1]
    if not models:
        return None
    figures = [figure for name in models for figure in (_scatter(content, name), _residuals(content, name))]
    figures += [_histogram(content, models), _error_histogram(content, models)]
    return Section("plots", "Every image", [tag("div", figures, class_="charts")])


def _known(content: Mapping[str, Any], name: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    points = content["points"]
    scored = [at for at, score in enumerate(points["scores"][name]) if score is not None]
    scores = np.array([points["scores"][name][at] for at in scored], np.float64)
    targets = np.array([points["targets"][at] for at in scored], np.float64)
    return scores, targets, [points["names"][at] for at in scored]


def _scatter(content: Mapping[str, Any], name: str) -> Html:
    scores, targets, names = _known(content, name)
    model = model_of(content["evaluation"], name)
    fitted: Mapping[str, Any] = model["selections"]["all"]["mapping"] if model else {"reason": "not fitted"}
    mapping = None if fitted["reason"] else LogisticFit.from_dict(fitted)
    series = Series(name, role(content, name), scores, targets)
    drawing = scatter(series, x_label=f"score of {name}", y_label=target_label(content), names=names, mapping=mapping)
    words = " The curve is the fitted logistic." if mapping else ""
    return tag(
        "figure",
        drawing,
        tag("figcaption", tag("b", name), f", n\u00a0=\u00a0{len(scores)}. Dashed: both equal.{words}"),
    )


def _residuals(content: Mapping[str, Any], name: str) -> Html:
    scores, targets, names = _known(content, name)
    difference = scores - targets
    series = Series(name, role(content, name), targets, difference)
    drawing = residuals(series, names=names, x_label=target_label(content))
    found = content["residuals"][name]
    caption = [tag("b", name), ", n = ", data(found["n"], count), ". Mean error ", data(found["mean"], decimals)]
    return tag(
        "figure", drawing, tag("figcaption", caption, ", standard deviation ", data(found["std"], decimals), ".")
    )


def _histogram(content: Mapping[str, Any], names: list[str]) -> Html:
    targets = np.array(content["points"]["targets"], np.float64)
    series = [Series("target", "target", targets, targets)]
    for name in names:
        scores, _, _ = _known(content, name)
        series.append(Series(name, role(content, name), scores, scores))
    title = "Distribution of the scores"
    drawing = histogram(series, x_label="score (0 worst, 1 best)", title=title)
    caption = tag("figcaption", tag("b", title), f" in twentieths, n = {len(targets)}.")
    return tag("figure", drawing, legend([(one.label, one.css) for one in series]), caption)


def _error_histogram(content: Mapping[str, Any], names: list[str]) -> Html:
    series = []
    for name in names:
        scores, targets, _ = _known(content, name)
        series.append(Series(name, role(content, name), scores - targets, targets))
    reach = max(0.05, *(float(np.abs(one.x).max()) for one in series))
    title = "Distribution of the errors"
    drawing = histogram(series, x_label="predicted − target", title=title, reach=(-reach, reach))
    caption = tag("figcaption", tag("b", title), f" in twentieths, n = {max(len(one.x) for one in series)}.")
    return tag("figure", drawing, legend([(one.label, one.css) for one in series]), caption)
