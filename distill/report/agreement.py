"""Sections on how well the models agree with the targets: on the held-out part, in its subsets, on benchmarks."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from distill.evaluation.evaluate import ALL, CLEAN, UNMARKED
from distill.html.markup import Html, tag
from distill.html.plots import Series, Span, histogram, intervals, legend, residuals, scatter
from distill.html.tables import (
    Section,
    count,
    counted,
    data,
    decimals,
    megabytes,
    milliseconds,
    percent,
    si,
    size,
    soft,
    table,
    with_interval,
)
from distill.leakage.record import ALL_IMAGES
from distill.report.content import model_of, role
from pseudo_labels.metrics.logistic import LogisticFit

METRIC_LABELS = {
    "srcc": "SRCC",
    "plcc": "PLCC",
    "plcc_logistic4": "PLCC after logistic",
    "krcc": "KRCC",
    "rmse": "RMSE",
    "rmse_logistic4": "RMSE after logistic",
}
SELECTION_LABELS = {
    CLEAN: "clean images",
    UNMARKED: "images that the benchmark does not mark as near",
    ALL: "all images",
}
_KINDS = {"onnx": "exported student", "student": "student", "labels": "label store", "teacher": "teacher"}
_GLOSSARY = (
    "SRCC and KRCC compare orders (Spearman, Kendall tau-b), PLCC compares values (Pearson); each is 1 for perfect "
    "agreement and 0 for none. RMSE is the typical error on the scale from 0 to 1. “After logistic” means after the "
    "usual 4-parameter curve was fitted from prediction to target."
)
_COSTS = {
    "parameters": ("parameters", si),
    "trained": ("fitted", si),
    "macs": ("multiply-adds", si),
    "file_bytes": ("file", size),
    "latency_ms_median": ("an image, median", milliseconds),
    "latency_ms_p95": ("95th percentile", milliseconds),
    "peak_memory_mb": ("peak memory", megabytes),
}


def target_label(content: Mapping[str, Any]) -> str:
    """Name of the axis of the targets."""
    teacher = content["evaluation"]["target"]["source"] == "teacher"
    return "label of the teacher (0 to 1)" if teacher else "rating of people (0 to 1)"


def plots(content: Mapping[str, Any]) -> Section | None:
    """Scatter and residual plots of the model and its teacher, and the distributions of their scores."""
    points = content["points"]["scores"]
    models = [name for name in (content["model"], content["teacher"]) if name in points]
    # One point has no spread, and no scale to draw it on.
    models = [name for name in models if len(_known(content, name)[0]) > 1]
    if not models:
        return None
    figures = [figure for name in models for figure in (_scatter(content, name), _residuals(content, name))]
    figures += [_histogram(content, models), _error_histogram(content, models)]
    return Section("plots", "Every image", [tag("div", figures, class_="charts")])


def _known(content: Mapping[str, Any], name: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    points = content["points"]
    scored = [at for at, score in enumerate(points["scores"][name]) if score is not None]
    # float64: the values come from JSON with all digits, and means and errors are computed of them here.
    scores = np.array([points["scores"][name][at] for at in scored], np.float64)
    targets = np.array([points["targets"][at] for at in scored], np.float64)
    return scores, targets, [points["names"][at] for at in scored]


def _scatter(content: Mapping[str, Any], name: str) -> Html:
    scores, targets, names = _known(content, name)
    model = model_of(content["evaluation"], name)
    # The curve that was fitted to all images, as the plot shows all of them, also where the headline does not.
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
    figures = content["residuals"][name]
    caption = [
        tag("b", name),
        ", n = ",
        data(figures["n"], count),
        ". Mean error ",
        data(figures["mean"], decimals),
    ]
    return tag(
        "figure", drawing, tag("figcaption", caption, ", standard deviation ", data(figures["std"], decimals), ".")
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
    # Symmetric, so that an error in one direction is seen; at least 0.05, or a nearly perfect model would look noisy.
    reach = max(0.05, *(float(np.abs(one.x).max()) for one in series))
    title = "Distribution of the errors"
    drawing = histogram(series, x_label="predicted − target", title=title, reach=(-reach, reach))
    caption = tag("figcaption", tag("b", title), f" in twentieths, n = {max(len(one.x) for one in series)}.")
    return tag("figure", drawing, legend([(one.label, one.css) for one in series]), caption)


def model_name(content: Mapping[str, Any], evaluation: Mapping[str, Any], name: str) -> Html:
    """Name of a model with the dot of its colour, and what it is if it was evaluated."""
    model = model_of(evaluation, name)
    known = "" if model is None else model["kind"]
    kind = tag("span", _KINDS.get(known, known), class_="kind") if known else None
    return tag("span", tag("i", class_=f"key {role(content, name, known)}"), name, kind)


def agreement(content: Mapping[str, Any]) -> Section:
    """Section on the agreement with the targets on the held-out part."""
    return Section("agreement", "Agreement", [soft(_GLOSSARY), *_predicted(content, content["evaluation"])])


def benchmarks(content: Mapping[str, Any]) -> Section | None:
    """Section on benchmarks that people have rated, each with all models of the run in one table."""
    if not content["benchmarks"]:
        return None
    body: list[object] = []
    for evaluation in content["benchmarks"]:
        body += [tag("h3", evaluation["target"]["name"]), *_predicted(content, evaluation)]
        body += [_known_before(evaluation), _by_subset(evaluation)]
    return Section("benchmarks", "On benchmarks", body)


def _known_before(evaluation: Mapping[str, Any]) -> Html | None:
    overlap = evaluation.get("overlap")
    if overlap is None:
        return None
    return soft(
        *(data(overlap["same_file"], count), " of its images are among those learned from as the same file, "),
        *(data(overlap["near"], count), " as nearly the same picture."),
        _neighbours(evaluation),
    )


def _neighbours(evaluation: Mapping[str, Any]) -> list[object] | None:
    """Images that show what was learned from, by features of a model; None where nobody looked."""
    near = evaluation.get("near")
    if near is None:
        return None
    words: list[object] = [
        *(" ", data(near["near"], count), " of ", data(near["tested"]["compared"], count)),
        f" show what was learned from, by feature {near['by']['feature']!r} of {near['by']['name']} (cosine above ",
        *(data(near["above"], lambda value: f"{value:g}"), ")"),
    ]
    if near["copying"] is None:
        return [*words, "."]
    copying = near["copying"][ALL_IMAGES]["srcc"]
    return [*words, "; copying the score of the nearest gives SRCC ", data(copying["value"], decimals), "."]


def _predicted(content: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[object]:
    """Every metric with its interval, the differences, and what has no score."""
    # The headline comes first (False sorts before True); the sort is stable, so the others keep their order.
    shown = sorted(evaluation["selections"], key=lambda selection: selection != evaluation["headline"])
    return [
        _interval_chart(content, evaluation),
        *(_metrics_table(content, evaluation, selection) for selection in shown),
        _differences(content, evaluation),
        _bootstrap_note(evaluation),
        _coverage(content, evaluation),
    ]


def _interval_chart(content: Mapping[str, Any], evaluation: Mapping[str, Any]) -> Html | None:
    spans = []
    for model in evaluation["models"]:
        srcc = model["selections"][evaluation["headline"]]["metrics"]["srcc"]
        if srcc["value"] is not None:
            css = role(content, model["name"], model["kind"])
            spans.append(Span(model["name"], css, srcc["value"], srcc["low"], srcc["high"]))
    # One model alone has its interval in the table below.
    if len(spans) < 2:
        return None
    n = evaluation["selections"][evaluation["headline"]]["n"]
    title = f"SRCC and 95 % interval, n = {n}"
    return tag("figure", intervals(spans, x_label=title, title=title))


def _metrics_table(content: Mapping[str, Any], evaluation: Mapping[str, Any], selection: str) -> Html:
    header = ["model", "n", *METRIC_LABELS.values()]
    rows = []
    for model in evaluation["models"]:
        own = model["selections"][selection]
        metrics = [with_interval(own["metrics"][metric]) for metric in METRIC_LABELS]
        rows.append([model_name(content, evaluation, model["name"]), data(own["n"], count), *metrics])
    target, groups = evaluation["target"]["name"], evaluation["models"][0]["selections"][selection]["groups"]
    label = SELECTION_LABELS[selection].capitalize()
    return table(header, rows, caption=f"{label}, evaluated on {target}, in {groups} groups (scenes)")


def _differences(content: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[object] | None:
    selection, versus = evaluation["headline"], evaluation["versus"]
    others = [model for model in evaluation["models"] if model["name"] != versus]
    if not others:
        return None
    # Without the metrics after the logistic, to keep the table narrow; ``report.json`` has them.
    shown = ["srcc", "plcc", "krcc", "rmse"]
    rows = []
    for model in others:
        paired = model["selections"][selection]["versus"]
        cells = [with_interval(paired["metrics"][metric], difference=True) for metric in shown]
        # ``share`` is the key in files, whose names stay.
        fraction = data(paired["metrics"]["srcc"]["share_above_zero"], percent)
        rows.append([model_name(content, evaluation, model["name"]), data(paired["n"], count), *cells, fraction])
    header = ["model", "n", *(METRIC_LABELS[metric] for metric in shown), "resamples with higher SRCC"]
    caption = f"Difference to {versus}, image by image on the same resamples; below 0 is lower than {versus}"
    return [tag("h3", f"Differences to {versus}"), table(header, rows, caption=caption)]


def _bootstrap_note(evaluation: Mapping[str, Any]) -> Html:
    bootstrap, excluded = evaluation["bootstrap"], evaluation["excluded"]
    text = (
        f"Intervals: 95 %, {bootstrap['resamples']} bootstrap resamples of whole groups (seed {bootstrap['seed']}); "
        "the logistic is fitted once."
    )
    if len(evaluation["selections"]) > 1:
        text += (
            f" Clean leaves out {excluded['near_train']} images known or found to show training scenes and "
            f"{excluded['overlapping']} found in the training data."
        )
    return soft(text)


def _coverage(content: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[object] | None:
    """Images without a score and why; nothing if every model scored every image."""
    rows, reasons = [], []
    for model in evaluation["models"]:
        coverage = model["coverage"]
        if coverage["scored"] == coverage["images"]:
            continue
        why = counted(coverage["without"])
        rows.append(
            [
                model_name(content, evaluation, model["name"]),
                data(coverage["scored"], count),
                data(coverage["images"], count),
                why,
            ]
        )
        reasons += [
            tag("li", tag("code", one["id"]), f": {one['status']}, {one['reason']}") for one in coverage["examples"]
        ]
    if not rows:
        return None
    listed = tag("details", tag("summary", "Examples"), tag("ul", reasons))
    return [tag("h3", "Images without a score"), table(["model", "scored", "of", "why"], rows), listed]


def subsets(content: Mapping[str, Any]) -> Section | None:
    """SRCC in each part of the held-out images, and the mean of the parts."""
    listed = _by_subset(content["evaluation"])
    return None if listed is None else Section("subsets", "By subset", listed)


def _by_subset(evaluation: Mapping[str, Any]) -> list[object] | None:
    selection = evaluation["headline"]
    predicted = [model for model in evaluation["models"] if "subsets" in model["selections"][selection]]
    if not predicted:
        return None
    names = list(predicted[0]["selections"][selection]["subsets"])
    rows: list[list[object]] = []
    for name in names:
        subsets = [model["selections"][selection]["subsets"][name] for model in predicted]
        rows.append([name, data(subsets[0]["n"], count), *(with_interval(one["metrics"]["srcc"]) for one in subsets)])
    means = [model["selections"][selection]["subset_mean"] for model in predicted]
    # All images that were scored, also those of subsets too small to count in the mean.
    total = predicted[0]["selections"][selection]["n"]
    rows.append(["mean of subsets", data(total, count), *(with_interval(one["metrics"]["srcc"]) for one in means)])
    note = "A model can look good overall by telling the subsets apart; the mean of the subsets earns it nothing."
    header = ["subset", "n", *(f"{model['name']}, SRCC" for model in predicted)]
    return [soft(note), table(header, rows)]


def costs(content: Mapping[str, Any]) -> Section | None:
    """Parameters, operations, file, time and memory of each model."""
    shown = [key for key in _COSTS if any(cost[key] is not None for cost in content["costs"].values())]
    if not shown:
        return None
    rows = []
    for name, cost in content["costs"].items():
        rows.append(
            [model_name(content, content["evaluation"], name), *(data(cost[key], _COSTS[key][1]) for key in shown)]
        )
    header = ["model", *(_COSTS[key][0] for key in shown)]
    return Section("cost", "Cost", [soft(content["machine"]) if content["machine"] else None, table(header, rows)])
