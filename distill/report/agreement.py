"""Sections on how well the models agree with the targets: on the held-out part, in its subsets, on benchmarks."""

from collections.abc import Mapping
from typing import Any

from distill.evaluation.evaluate import ALL, CLEAN, UNMARKED
from distill.overlap.record import ALL_IMAGES
from distill.report.lookup import model_of, role
from distill.report.markup import Html, tag
from distill.report.numbers import count, counted, data, decimals, percent, with_interval
from distill.report.plots import Span, intervals
from distill.report.tables import Section, soft, table

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


def model_name(content: Mapping[str, Any], evaluation: Mapping[str, Any], name: str) -> Html:
    """Name of a model with the dot of its colour, and what it is if it was evaluated."""
    model = model_of(evaluation, name)
    known = "" if model is None else model["kind"]
    kind = tag("span", _KINDS.get(known, known), class_="kind") if known else None
    return tag("span", tag("i", class_=f"key {role(content, name, known)}"), name, kind)


def agreement(content: Mapping[str, Any]) -> Section:
    """On the held-out part."""
    return Section("agreement", "Agreement", [soft(_GLOSSARY), *_judged(content, content["evaluation"])])


def benchmarks(content: Mapping[str, Any]) -> Section | None:
    """On benchmarks that people have rated, all models of the run in one table each."""
    if not content["benchmarks"]:
        return None
    body: list[object] = []
    for evaluation in content["benchmarks"]:
        body += [tag("h3", evaluation["target"]["name"]), *_judged(content, evaluation)]
        body += [_known_before(evaluation), _by_subset(evaluation)]
    return Section("benchmarks", "On benchmarks", body)


def _known_before(evaluation: Mapping[str, Any]) -> Html | None:
    found = evaluation.get("overlap")
    if found is None:
        return None
    return soft(
        *(data(found["same_file"], count), " of its images are among those learned from as the same file, "),
        *(data(found["near"], count), " as nearly the same picture."),
        _neighbours(evaluation),
    )


def _neighbours(evaluation: Mapping[str, Any]) -> list[object] | None:
    """Images that show what was learned from, by features of a model; None where nobody looked."""
    found = evaluation.get("near")
    if found is None:
        return None
    words: list[object] = [
        *(" ", data(found["near"], count), " of ", data(found["tested"]["compared"], count)),
        f" show what was learned from, by feature {found['by']['feature']!r} of {found['by']['name']} (cosine above ",
        *(data(found["above"], lambda value: f"{value:g}"), ")"),
    ]
    if found["copying"] is None:
        return [*words, "."]
    copying = found["copying"][ALL_IMAGES]["srcc"]
    return [*words, "; copying the score of the nearest gives SRCC ", data(copying["value"], decimals), "."]


def _judged(content: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[object]:
    """Every metric with its interval, the differences, and what has no score."""
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
        found = model["selections"][evaluation["headline"]]["metrics"]["srcc"]
        if found["value"] is not None:
            css = role(content, model["name"], model["kind"])
            spans.append(Span(model["name"], css, found["value"], found["low"], found["high"]))
    if len(spans) < 2:
        return None
    n = evaluation["selections"][evaluation["headline"]]["n"]
    title = f"SRCC and 95 % interval, n = {n}"
    return tag("figure", intervals(spans, x_label=title, title=title))


def _metrics_table(content: Mapping[str, Any], evaluation: Mapping[str, Any], selection: str) -> Html:
    header = ["model", "n", *METRIC_LABELS.values()]
    rows = []
    for model in evaluation["models"]:
        found = model["selections"][selection]
        metrics = [with_interval(found["metrics"][metric]) for metric in METRIC_LABELS]
        rows.append([model_name(content, evaluation, model["name"]), data(found["n"], count), *metrics])
    target, groups = evaluation["target"]["name"], evaluation["models"][0]["selections"][selection]["groups"]
    label = SELECTION_LABELS[selection].capitalize()
    return table(header, rows, caption=f"{label}, judged by {target}, in {groups} groups (scenes)")


def _differences(content: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[object] | None:
    selection, versus = evaluation["headline"], evaluation["versus"]
    others = [model for model in evaluation["models"] if model["name"] != versus]
    if not others:
        return None
    shown = ["srcc", "plcc", "krcc", "rmse"]
    rows = []
    for model in others:
        paired = model["selections"][selection]["versus"]
        cells = [with_interval(paired["metrics"][metric], difference=True) for metric in shown]
        share = data(paired["metrics"]["srcc"]["share_above_zero"], percent)
        rows.append([model_name(content, evaluation, model["name"]), data(paired["n"], count), *cells, share])
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
        found = model["coverage"]
        if found["scored"] == found["images"]:
            continue
        why = counted(found["without"])
        rows.append(
            [
                model_name(content, evaluation, model["name"]),
                data(found["scored"], count),
                data(found["images"], count),
                why,
            ]
        )
        reasons += [
            tag("li", tag("code", one["id"]), f": {one['status']}, {one['reason']}") for one in found["examples"]
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
    judged = [model for model in evaluation["models"] if "subsets" in model["selections"][selection]]
    if not judged:
        return None
    names = list(judged[0]["selections"][selection]["subsets"])
    rows: list[list[object]] = []
    for name in names:
        found = [model["selections"][selection]["subsets"][name] for model in judged]
        rows.append([name, data(found[0]["n"], count), *(with_interval(one["metrics"]["srcc"]) for one in found)])
    means = [model["selections"][selection]["subset_mean"] for model in judged]
    total = judged[0]["selections"][selection]["n"]
    rows.append(["mean of subsets", data(total, count), *(with_interval(one["metrics"]["srcc"]) for one in means)])
    note = "A model can look good overall by telling the subsets apart; the mean of the subsets earns it nothing."
    header = ["subset", "n", *(f"{model['name']}, SRCC" for model in judged)]
    return [soft(note), table(header, rows)]
