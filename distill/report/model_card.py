"""The model card: what the model is, how good, from what, and what it cannot do; as Markdown and as HTML.

The headings follow Mitchell et al., "Model cards for model reporting" (2019).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill.evaluation.evaluate import UNMARKED
from distill.html.markup import Html, plain, tag
from distill.html.tables import count, decimals, megabytes, milliseconds, si, size
from distill.report.agreement import METRIC_LABELS, SELECTION_LABELS
from distill.report.content import RATINGS, card_headline, evaluations
from distill.report.regions import region_results

_KINDS = {
    "student": "A compact no-reference image quality model",
    "teacher": "A teacher of image quality, fitted to ratings of people",
}
_USES = {
    "student": "Sorting, filtering and monitoring photographs by visible technical quality, on a CPU, without a "
    "reference.",
    "teacher": "Labelling photographs by visible technical quality for small students, and scoring them where time "
    "does not matter.",
}
# Characters that can begin markup in Markdown: names of files and models are the user's, and may hold any of them.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


@dataclass(frozen=True)
class Part:
    """One heading of the card with the statements below it.

    Attributes:
        title: the heading.
        points: the statements.
        code: whether they are commands to be copied.
    """

    title: str
    points: Sequence[str]
    code: bool = False


def card(content: Mapping[str, Any]) -> list[Part]:
    """The parts of the card; a part without statements is left out."""
    parts = [
        Part("What it is", _identity(content)),
        Part("Intended use", _use(content["kind"])),
        Part("Results", _results(content)),
        Part("Cost", _cost(content)),
        Part("Training data and teachers", _training(content)),
        Part("Limits", [*content["notes"], *_limits(content)]),
        Part("How to repeat", [content["command"]] if content["command"] else [], code=True),
    ]
    # A heading without statements would look as if something had been lost.
    return [part for part in parts if part.points]


def to_markdown(content: Mapping[str, Any], parts: Sequence[Part]) -> str:
    """The card as a Markdown file; every text in it is escaped."""
    lines = [f"# {marked(content['model'])}", "", marked(card_headline(content)), ""]
    for part in parts:
        # Four spaces make a line literal: nothing in it is markup.
        points = [f"    {_one_line(text)}" if part.code else f"- {marked(text)}" for text in part.points]
        lines += [f"## {part.title}", "", *points, ""]
    return "\n".join(lines)


def to_html(parts: Sequence[Part]) -> Html:
    """The card as markup for the page."""
    return tag(
        "div",
        [[tag("h3", part.title), tag("ul", [tag("li", _shown(part, text)) for text in part.points])] for part in parts],
        class_="card",
    )


def _shown(part: Part, text: str) -> Html | str:
    return tag("code", text) if part.code else text


def marked(text: object) -> str:
    """One line of Markdown in which ``text`` means only itself."""
    return _SPECIAL.sub(r"\\\1", _one_line(text))


def _one_line(text: object) -> str:
    # A line break in a name would begin a new paragraph, or a heading.
    return " ".join(plain(text).split())


def _identity(content: Mapping[str, Any]) -> list[str]:
    contract, points = content["contract"], []
    points.append(
        f"{_KINDS[content['kind']]}: {content['model']}. It gives a photograph a score from 0 (worst) to 1 (best)."
    )
    if content["kind"] == "teacher":
        points += [_stamped(stamp) for stamp in content["teachers"][:1]]
    if content["teacher"]:
        points.append(f"Distilled from the teacher {content['teacher']}.")
    if contract:
        sides = contract.get("preprocess", {})
        backbone = contract.get("student", {}).get("backbone", "unknown")
        points.append(f"Backbone {backbone}; code version {contract.get('code_version')}.")
        if contract.get("digest"):
            points.append(f"Model {contract['digest'][:12]} (SHA-256 of its graph, checked when it is opened).")
        points.append(f"Scale: {contract.get('scale')}. Images are reduced to at most {sides.get('max_side')} pixels.")
    if content["licence"]:
        points.append(f"Licence: {content['licence']}.")
    return points


def _stamped(stamp: Mapping[str, Any]) -> str:
    """Which fitted teacher it is."""
    named = {"weights": "weights", "base": "frozen base", "digest": "stamp"}
    digests = ", ".join(f"{words} {stamp[key][:16]}" for key, words in named.items() if stamp.get(key))
    return f"Built as {stamp['name']}, version {stamp['version']} ({digests}). Scale: {stamp['scale']}."


def _use(kind: str) -> list[str]:
    return [
        _USES[kind],
        "Not for judging beauty, content or people, and not as the only ground for a decision about a person's work.",
    ]


def _results(content: Mapping[str, Any]) -> list[str]:
    points = []
    # Agreement with people before agreement with a teacher: only the former says how good the model is.
    for evaluation in sorted(evaluations(content), key=lambda one: one["target"]["source"] != RATINGS):
        for model in evaluation["models"]:
            points += [_result(evaluation, model, name) for name in (evaluation["headline"], UNMARKED)]
    return [point for point in points if point] + region_results(content)


def _result(evaluation: Mapping[str, Any], model: Mapping[str, Any], selection: str) -> str:
    """The metrics of a model on a selection; nothing where there is no such selection."""
    part = model["selections"].get(selection)
    if part is None:
        return ""
    written = [f"{label} {_measured(part['metrics'][metric])}" for metric, label in METRIC_LABELS.items()]
    which = f", {SELECTION_LABELS[selection]}" if len(model["selections"]) > 1 else ""
    return f"{model['name']} on {evaluation['target']['name']}{which}, n = {part['n']}: {'; '.join(written)}."


def _measured(metric: Mapping[str, Any]) -> str:
    if metric["value"] is None:
        return f"does not exist ({metric['reason']})"
    ends = "" if metric["low"] is None else f" ({decimals(metric['low'])} to {decimals(metric['high'])})"
    return decimals(metric["value"]) + ends


def _cost(content: Mapping[str, Any]) -> list[str]:
    cost = content["costs"].get(content["model"])
    if cost is None:
        return []
    written = {
        "parameters": lambda v: f"{si(v)} parameters",
        "trained": lambda v: f"{si(v)} of them fitted to ratings",
        "macs": lambda v: f"{si(v)} multiply-adds an image",
        "file_bytes": lambda v: f"file of {size(v)}",
        "latency_ms_median": lambda v: f"{milliseconds(v)} an image (median)",
        "latency_ms_p95": lambda v: f"{milliseconds(v)} (95th percentile)",
        "peak_memory_mb": lambda v: f"peak memory {megabytes(v)}",
    }
    known = [write(cost[key]) for key, write in written.items() if cost[key] is not None]
    return [*known, content["machine"]] if known and content["machine"] else known


def _training(content: Mapping[str, Any]) -> list[str]:
    points = []
    for pool in content["pools"]:
        images = f"{count(pool['images'])} images" if pool.get("images") is not None else "images"
        points.append(f"{pool.get('name', 'pool')}: {images}; licence: {pool.get('licence') or 'not stated'}.")
    for one in content["fitting"]:
        for pool in one["opinions"]:
            points.append(
                f"Teacher {one['teacher']} was fitted to {pool['name']}: {count(pool['images'])} images; "
                f"{pool['licence']}."
            )
    # On the page of a teacher the first stamp is the model's own, which the first part shows: the slice begins at 1.
    for stamp in content["teachers"][content["kind"] == "teacher" :]:
        points.append(
            f"Teacher {stamp['name']}, version {stamp['version']}: {stamp['scale']}; licence: {stamp['licence']}."
        )
    for name, part in content["split"].items():
        points.append(f"Part {name}: {count(part.get('images', 0))} images in {count(part.get('groups', 0))} groups.")
    return points


def _limits(content: Mapping[str, Any]) -> list[str]:
    points = []
    if content["kind"] == "teacher":
        points.append(
            "It knows the photographs and the distortions that it was fitted to; on others its scores may be wrong."
        )
    elif content["teachers"]:
        points.append("A student knows what its teachers know: where they err alike, it errs too.")
    if content["evaluation"]["target"]["source"] == "teacher":
        points.append("On the held-out part it was evaluated on a teacher's labels, not on ratings of people.")
    overlap = content["overlap"]
    if overlap is None:
        points.append("Overlap of training and test images was not examined.")
    else:
        equal = overlap["same_file"] + overlap["near"]
        points.append(f"{equal} of {overlap['tested']} test images were found in the training data.")
    points += [f"{one['name']}: {one['words']}." for one in content["neighbours"] if not one["reason"]]
    return points
