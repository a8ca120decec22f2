"""The page of a study: whether its goal was reached, the curve, the table, what each run cost and repeats it."""

from collections.abc import Mapping
from typing import Any

from distill.report.markup import Html, document, tag
from distill.report.numbers import count, data, decimals, percent, signed, with_interval
from distill.report.plots import Span, intervals, legend
from distill.report.style import CSS
from distill.report.tables import Section, soft, table
from distill.study.chart import BAND_CSS, colour_of, curve
from distill.study.tables import SENSITIVITY, arm_rows, header_of, sensitivity_rows, verdict


def study_page(result: Mapping[str, Any]) -> str:
    """The page as text; it needs nothing but itself, and equal results give equal bytes.

    Args:
        result: see ``result.build_result``.
    """
    parts = (_results, _sensitivity, _runs, _failures, _origins, _repeat)
    sections = [part(result) for part in parts]
    body = tag(
        "main",
        tag("p", "pocketiqa study", class_="kicker"),
        tag("h1", result["name"]),
        tag("p", verdict(result), class_="lead"),
        [section.html() for section in sections if section is not None],
        tag("footer", "Every number on this page stands in ", tag("code", "study.json"), " with all its digits."),
    )
    return document(result["name"], body, CSS + BAND_CSS)


def _results(result: Mapping[str, Any]) -> Section:
    target, metric = result["target"], result["metric"].upper()
    header = header_of(result, metric)
    rows = [[at, arm, _arm(found), _difference(gap)][: len(header)] for at, arm, found, gap in arm_rows(result)]
    caption = f"{metric} with people, {target['n']} images of {target['name']}"
    explained = [f"Mean over {result['repeats']}, standard deviation and number of runs beneath it. "]
    if result["baseline"]:
        explained.append(
            f"Differences are paired: in each of {result['bootstrap']['resamples']} resamples of the scenes both arms "
            f"are judged by the same images, each {result['repeats']} against the same, and the differences are "
            "averaged. The 95 % interval is that of other images, not of other seeds, which the deviation shows."
        )
    arms = legend([(arm, colour_of(result, arm)) for arm in result["arms"]])
    chart = curve(result) or _differences(result)
    return Section("results", "Results", [chart, arms, table(header, rows, caption=caption), soft(explained)])


def _sensitivity(result: Mapping[str, Any]) -> Section | None:
    """How far matched noise moves the scores of teachers that were measured so."""
    header = header_of(result, *SENSITIVITY)
    rows = [
        [
            at, arm, data(found["change"], decimals), data(found["ungated"], decimals),
            data(found["suppressed"], percent), _difference(gap),
        ][: len(header)]
        for at, arm, found, gap in sensitivity_rows(result)
    ]  # fmt: skip
    if not rows:
        return None
    explained = (
        "Images of similar opinions and different semantics are matched; what they differ in is added to the features "
        "at the decoder's input, the strongest of the matches. The change of the score is given in deviations of the "
        "model's own scores, mean over images; differences are paired by image, with the interval of other scenes."
    )
    return Section("sensitivity", "Moved by matched noise", [table(header, rows), soft(explained)])


def _arm(found: Mapping[str, Any]) -> Html:
    if found["mean"] is None:
        return data(None, decimals, why="no run of it is done")
    spread = None if found["deviation"] is None else ["± ", data(found["deviation"], decimals), ", "]
    beneath = tag("span", spread, "n=", data(found["n"], count), class_="interval")
    return tag("span", tag("span", data(found["mean"], decimals), class_="value"), beneath, class_="measured")


def _difference(found: Mapping[str, Any] | None) -> Html | str:
    return "–" if found is None else with_interval(found, difference=True)


def _differences(result: Mapping[str, Any]) -> Html | None:
    """Where no curve can be drawn: each arm's difference to the baseline, with its interval."""
    spans = [
        Span(f"{arm} {_short(row)}".strip(), colour_of(result, arm), found["difference"], found["low"], found["high"])
        for row in result["rows"]
        for arm, found in row["differences"].items()
        if found["difference"] is not None
    ]
    if not spans:
        return None
    label = f"difference in {result['metric'].upper()} to {result['baseline']}"
    return tag("div", intervals(spans, x_label=label, title="Differences"), class_="study")


def _short(row: Mapping[str, Any]) -> str:
    return " ".join(row["values"].values())


def _runs(result: Mapping[str, Any]) -> Section:
    rows = [
        [
            run["name"],
            data(run["value"], decimals, why=run["reason"] or run["state"]),
            _seconds(run),
            data(run["peak_memory_bytes"], lambda size: f"{size / 1e6:,.0f} MB"),
            [_stage(at, name, cost) for at, (name, cost) in enumerate(run["stages"].items())],
        ]
        for run in result["runs"]
    ]
    caption = (
        "Time counts what a run shares with others (marked *) as though it had been the only one; memory is the most "
        "that its largest process held"
    )
    columns = ["run", result["metric"].upper(), "time", "peak memory", "seconds by stage"]
    return Section("runs", "Time and memory", [table(columns, rows, caption=caption)])


def _seconds(run: Mapping[str, Any]) -> Html:
    more = "more than " if run["resumed"] else ""
    return tag("span", more, data(run["seconds"], lambda value: f"{value:,.0f} s"))


def _stage(at: int, name: str, cost: Mapping[str, Any]) -> Html:
    star = "*" if cost["shared"] else ""
    return tag("span", ", " if at else "", f"{name}{star} ", data(cost["seconds"], lambda value: f"{value:.1f}"))


def _failures(result: Mapping[str, Any]) -> Section | None:
    failed = [[run["name"], run["reason"]] for run in result["runs"] if run["state"] == "failed"]
    return Section("failures", "Runs that failed", [table(["run", "why"], failed)]) if failed else None


def _origins(result: Mapping[str, Any]) -> Section:
    about = result["target"]["about"]
    facts = [about["citation"], f"licence: {about['licence']}", *about["notes"]]
    goal = result["goal"]
    wanted = None if goal is None else soft("Least gain that was asked for: ", data(goal["gain"], signed), ".")
    listed = tag("ul", [tag("li", fact) for fact in facts])
    return Section("judged", f"Judged by {result['target']['name']}", [listed, wanted])


def _repeat(result: Mapping[str, Any]) -> Section:
    note = soft(
        "The same command goes on where it was interrupted. A run's folder holds its whole recipe as ",
        tag("code", "recipe.yaml"),
        ".",
    )
    lines = "\n".join([result["command"], "", *(run["command"] for run in result["runs"])])
    return Section("repeat", "Repeat it", [note, tag("pre", tag("code", lines))])
