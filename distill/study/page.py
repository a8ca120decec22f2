"""The page of a study: whether its goal was reached, the curve, the table, what each run cost and repeats it."""

from collections.abc import Mapping, Sequence
from typing import Any

from distill.html.markup import Html, document, tag
from distill.html.plots import Frame, Span, intervals, legend, padded
from distill.html.style import CSS
from distill.html.tables import Section, count, data, decimals, percent, signed, soft, table, with_interval
from distill.study.tables import SENSITIVITY, arm_rows, header_of, sensitivity_rows, verdict

# CSS classes of the report's colours; a fifth arm has the first colour again, and its name at the end of its line.
COLOURS = ("other", "student", "teacher", "target")
BAND_CSS = """
.band { fill-opacity: .16; stroke: none; fill: var(--other); }
.band.student { fill: var(--student); } .band.teacher { fill: var(--teacher); } .band.target { fill: var(--target); }
.curve.other { stroke: var(--other); } .study .chart { max-width: 640px; }
"""
_WIDTH, _HEIGHT = 560, 360
_Point = tuple[float, float, float, float]


def colour_of(result: Mapping[str, Any], arm: str) -> str:
    """CSS class of an arm."""
    return COLOURS[result["arms"].index(arm) % len(COLOURS)]


def curve(result: Mapping[str, Any]) -> Html | None:
    """The chart; None unless there is one axis beside the repeats, of two numbers at least, and something measured."""
    # A curve needs one axis of numbers; with two, a line would join points that differ in both.
    axes = [axis for axis in result["axes"] if axis != result["repeats"]]
    if len(axes) != 1 or len(result["rows"]) < 2:
        return None
    xs = [_number(row["values"][axes[0]]) for row in result["rows"]]
    lines = {arm: _points(result, arm, xs) for arm in result["arms"]}
    known = [point for points in lines.values() for point in points]
    if None in xs or not known:
        return None
    reach = padded([x for x, *_ in known], 0.04), padded([end for _, *ends in known for end in ends])
    frame = Frame(*reach, axes[0], result["metric"].upper(), width=_WIDTH, height=_HEIGHT)
    marks = [_line(frame, points, colour_of(result, arm), arm) for arm, points in lines.items() if points]
    words = "; ".join(
        f"{arm}: " + ", ".join(f"{decimals(mean)} at {x:g}" for x, mean, _, _ in points)
        for arm, points in lines.items()
        if points
    )
    title = f"{result['metric'].upper()} over {axes[0]}"
    return tag("div", frame.drawing(title, words + ".", *marks), class_="study")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _points(result: Mapping[str, Any], arm: str, xs: Sequence[float | None]) -> list[_Point]:
    """x, mean, lowest and highest repeat, from left to right, where anything is known."""
    arms = [row["arms"][arm] for row in result["rows"]]
    points = [
        (x, one["mean"], one["low"], one["high"])
        for x, one in zip(xs, arms, strict=True)
        if x is not None and one["mean"] is not None
    ]
    return sorted(points)


def _line(frame: Frame, points: Sequence[_Point], css: str, arm: str) -> list[Html]:
    # The band is one closed path: along the highest repeats to the right, and back along the lowest.
    upper = [(frame.at_x(x), frame.at_y(high)) for x, _, _, high in points]
    lower = [(frame.at_x(x), frame.at_y(low)) for x, _, low, _ in reversed(points)]
    middle = [(frame.at_x(x), frame.at_y(mean)) for x, mean, _, _ in points]
    dots = [
        tag("circle", tag("title", f"{arm}, {x:g}: {decimals(mean)}"), cx=at[0], cy=at[1], r=4, class_=f"end {css}")
        for at, (x, mean, _, _) in zip(middle, points, strict=True)
    ]
    return [
        tag("path", d=f"{_path([*upper, *lower])}Z", class_=f"band {css}"),
        tag("path", d=_path(middle), class_=f"curve {css}"),
        *dots,
    ]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x} {y}" for x, y in points)


def study_page(result: Mapping[str, Any]) -> str:
    """The page as text; it loads no other file, and equal results give equal bytes.

    Args:
        result: result of ``result.build_result``.
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
    # Cut to the header, which has no column of differences where the study has no baseline.
    rows = [[at, arm, _arm(values), _difference(gap)][: len(header)] for at, arm, values, gap in arm_rows(result)]
    caption = f"{metric} with people, {target['n']} images of {target['name']}"
    explained = [f"Mean over {result['repeats']}, standard deviation and number of runs beneath it. "]
    if result["baseline"]:
        explained.append(
            f"Differences are paired: in each of {result['bootstrap']['resamples']} resamples of the scenes both arms "
            f"are evaluated on the same images, each {result['repeats']} against the same, and the differences are "
            "averaged. The 95 % interval is for other images, not for other seeds, which the deviation shows."
        )
    arms = legend([(arm, colour_of(result, arm)) for arm in result["arms"]])
    # Axes of names have no curve: there the differences are drawn, if there is a baseline.
    chart = curve(result) or _differences(result)
    return Section("results", "Results", [chart, arms, table(header, rows, caption=caption), soft(explained)])


def _sensitivity(result: Mapping[str, Any]) -> Section | None:
    """Section on how far matched noise moves the scores; None where no teacher was measured."""
    header = header_of(result, *SENSITIVITY)
    rows = [
        [
            at, arm, data(values["change"], decimals), data(values["ungated"], decimals),
            data(values["suppressed"], percent), _difference(gap),
        ][: len(header)]
        for at, arm, values, gap in sensitivity_rows(result)
    ]  # fmt: skip
    if not rows:
        return None
    explained = (
        "Images of similar ratings and different semantics are matched; what they differ in is added to the features "
        "at the decoder's input, the strongest of the matches. The change of the score is given in deviations of the "
        "model's own scores, mean over images; differences are paired by image, with the interval of other scenes."
    )
    return Section("sensitivity", "Moved by matched noise", [table(header, rows), soft(explained)])


def _arm(values: Mapping[str, Any]) -> Html:
    if values["mean"] is None:
        return data(None, decimals, why="no run of it is done")
    spread = None if values["deviation"] is None else ["± ", data(values["deviation"], decimals), ", "]
    beneath = tag("span", spread, "n=", data(values["n"], count), class_="interval")
    return tag("span", tag("span", data(values["mean"], decimals), class_="value"), beneath, class_="measured")


def _difference(gap: Mapping[str, Any] | None) -> Html | str:
    return "–" if gap is None else with_interval(gap, difference=True)


def _differences(result: Mapping[str, Any]) -> Html | None:
    """Where no curve can be drawn: each arm's difference to the baseline, with its interval."""
    spans = [
        Span(f"{arm} {_short(row)}".strip(), colour_of(result, arm), gap["difference"], gap["low"], gap["high"])
        for row in result["rows"]
        for arm, gap in row["differences"].items()
        if gap["difference"] is not None
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
        "Time counts stages that several runs use (marked *) as if this run were the only one; memory is the most "
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
    return Section("judged", f"Evaluated on {result['target']['name']}", [listed, wanted])


def _repeat(result: Mapping[str, Any]) -> Section:
    note = soft(
        "The same command resumes where it was interrupted. A run's folder holds its whole recipe as ",
        tag("code", "recipe.yaml"),
        ".",
    )
    lines = "\n".join([result["command"], "", *(run["command"] for run in result["runs"])])
    return Section("repeat", "Repeat it", [note, tag("pre", tag("code", lines))])
