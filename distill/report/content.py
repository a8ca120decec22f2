"""From the inputs to the content of the report: the JSON twin, of which the page is only a rendering."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill.report.inputs import ReportInputs
from distill.report.markup import plain
from distill.report.numbers import decimals, milliseconds, si
from pseudo_labels.errors import PocketiqaError

FORMAT = 1
_DISAGREEMENTS = 8


def build_content(inputs: ReportInputs) -> dict[str, Any]:
    """Everything the page shows, as JSON values.

    Raises:
        PocketiqaError: the student is not among the evaluated models.
    """
    evaluated = [model["name"] for model in inputs.evaluation["models"]]
    if inputs.student not in evaluated:
        raise PocketiqaError(
            f"student {inputs.student!r} was not evaluated: the evaluation holds {', '.join(evaluated)}"
        )
    content: dict[str, Any] = {
        "format": FORMAT,
        "title": inputs.title,
        "student": inputs.student,
        "teacher": inputs.teacher,
        "evaluation": dict(inputs.evaluation),
        "costs": {name: cost.as_dict() for name, cost in inputs.costs.items()},
        "machine": inputs.machine,
        "points": _points(inputs),
        "disagreement": _disagreement(inputs),
        "history": [dict(record) for record in inputs.history],
        "quality_maps": [
            {
                "name": one.name,
                "score": one.score,
                "low": float(one.quality_map.min()),
                "high": float(one.quality_map.max()),
            }
            for one in inputs.quality_maps
        ],
        "damaged": [_damaged(one) for one in inputs.damaged],
        "pools": [dict(pool) for pool in inputs.pools],
        "split": {name: dict(part) for name, part in inputs.split.items()},
        "teachers": [dict(stamp) for stamp in inputs.teachers],
        "overlap": None if inputs.overlap is None else dict(inputs.overlap),
        "contract": None if inputs.contract is None else dict(inputs.contract),
        "command": inputs.command,
        "notes": list(inputs.notes),
        "licence": inputs.licence,
    }
    content["tiles"] = _tiles(content)
    content["headline"] = headline(content)
    return content


def model_of(content: Mapping[str, Any], name: str | None) -> Mapping[str, Any] | None:
    """The evaluation of one model; None if it was not evaluated."""
    return next((model for model in content["evaluation"]["models"] if model["name"] == name), None)


def headline_metrics(content: Mapping[str, Any], name: str | None) -> Mapping[str, Any] | None:
    """Metrics of one model on the headline selection; None if it was not evaluated."""
    model = model_of(content, name)
    return None if model is None else model["selections"][content["evaluation"]["headline"]]["metrics"]


def role(content: Mapping[str, Any], name: str) -> str:
    """Class that colours a model: ``student``, ``teacher`` or ``other``."""
    return "student" if name == content["student"] else "teacher" if name == content["teacher"] else "other"


def _points(inputs: ReportInputs) -> dict[str, Any]:
    """Target and score of every image, for the plots and for whoever wants to look further."""
    targets, known = inputs.targets, {model["name"] for model in inputs.evaluation["models"]}
    scores = {}
    for prediction in inputs.predictions:
        if prediction.name in known:
            found = prediction.aligned(targets.ids).scores
            scores[prediction.name] = [None if np.isnan(score) else float(score) for score in found]
    return {
        "ids": [plain(id) for id in targets.ids],
        "names": [plain(name) for name in targets.names or targets.ids],
        "targets": [float(score) for score in targets.scores],
        "subsets": list(targets.subsets),
        "near_train": list(targets.near_train),
        "scores": scores,
    }


def _disagreement(inputs: ReportInputs) -> list[dict[str, Any]]:
    """The images on which the student is farthest from the target; ``at`` is the position in the targets."""
    student = next((p for p in inputs.predictions if p.name == inputs.student), None)
    if student is None:
        return []
    teacher = next((p for p in inputs.predictions if p.name == inputs.teacher), None)
    own = student.aligned(inputs.targets.ids).scores
    other = None if teacher is None else teacher.aligned(inputs.targets.ids).scores
    difference = own - inputs.targets.scores
    order = [int(at) for at in np.argsort(-np.abs(difference)) if np.isfinite(difference[at])]
    rows = []
    for at in order[:_DISAGREEMENTS]:
        seen = None if other is None or np.isnan(other[at]) else float(other[at])
        rows.append(
            {
                "at": at,
                "id": plain(inputs.targets.ids[at]),
                "name": plain((inputs.targets.names or inputs.targets.ids)[at]),
                "target": float(inputs.targets.scores[at]),
                "student": float(own[at]),
                "teacher": seen,
                "difference": float(difference[at]),
            }
        )
    return rows


def _damaged(one: Any) -> dict[str, Any]:
    return {
        "name": plain(one.name),
        "damage": one.damage,
        "original_score": one.original_score,
        "damaged_score": one.damaged_score,
        "difference": one.damaged_score - one.original_score,
    }


def _tiles(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The few numbers a reader wants first."""
    student, teacher = content["student"], content["teacher"]
    own, theirs = headline_metrics(content, student), headline_metrics(content, teacher)
    cost = content["costs"].get(student, {})
    teacher_cost = content["costs"].get(teacher, {})
    tiles: list[dict[str, Any]] = []

    def add(label: str, value: float | None, kind: str, note: str = "") -> None:
        if value is not None:
            tiles.append({"label": label, "value": value, "kind": kind, "note": note})

    n = content["evaluation"]["selections"][content["evaluation"]["headline"]]["n"]
    source = "its teacher" if content["evaluation"]["target"]["source"] == "teacher" else "people"
    if own is not None:
        add("Student", own["srcc"]["value"], "metric", f"SRCC with {source}, n\u00a0=\u00a0{n}")
    if theirs is not None:
        add("Teacher", theirs["srcc"]["value"], "metric", f"SRCC with {source}, n\u00a0=\u00a0{n}")
    add("Size", cost.get("parameters"), "si", "parameters")
    add("File", cost.get("file_bytes"), "size", "everything it needs")
    add("Time", cost.get("latency_ms_median"), "ms", "an image, median")
    slow, fast = teacher_cost.get("latency_ms_median"), cost.get("latency_ms_median")
    if slow and fast:
        add("Speed", slow / fast, "times", "that of the teacher")
    return tiles


def headline(content: Mapping[str, Any]) -> str:
    """The result in one or two sentences that need no glossary."""
    evaluation, student, teacher = content["evaluation"], content["student"], content["teacher"]
    n = evaluation["selections"][evaluation["headline"]]["n"]
    own, theirs = headline_metrics(content, student), headline_metrics(content, teacher)
    found = None if own is None else own["srcc"]
    if found is None or found["value"] is None:
        reason = found["reason"] if found else "it was not evaluated"
        return f"{student} was tested on {n} images, but its agreement cannot be stated: {reason}."
    interval = ""
    if found["low"] is not None:
        interval = f" (95 % interval {decimals(found['low'], 2)} to {decimals(found['high'], 2)})"
    value = decimals(found["value"], 2)
    if evaluation["target"]["source"] == "teacher":
        alike = f"{_degree(found['value'])} as its teacher{f' ({teacher})' if teacher else ''}"
        first = f"On {n} held-out images, {student} orders quality {alike} does: SRCC {value}{interval}."
    else:
        name = evaluation["target"]["name"]
        first = f"On {n} held-out images of {name}, {student} agrees with people at SRCC {value}{interval}"
        known = theirs is not None and theirs["srcc"]["value"] is not None
        first += (
            f"; its teacher ({teacher}) reaches {decimals(theirs['srcc']['value'], 2)}." if known and theirs else "."
        )
    return f"{first}{_cost_sentence(content['costs'].get(student, {}))}"


def _degree(value: float) -> str:
    steps: Sequence[tuple[float, str]] = ((0.95, "almost exactly"), (0.85, "much"), (0.7, "largely"), (0.5, "roughly"))
    return next((word for least, word in steps if value >= least), "only faintly")


def _cost_sentence(cost: Mapping[str, Any]) -> str:
    parts = []
    if cost.get("parameters") is not None:
        parts.append(f"{si(cost['parameters'])} parameters")
    if cost.get("latency_ms_median") is not None:
        parts.append(f"{milliseconds(cost['latency_ms_median'])} an image")
    return f" It needs {' and '.join(parts)}." if parts else ""
