"""The result of a report in a few numbers and a sentence or two."""

from collections.abc import Mapping, Sequence
from typing import Any

from distill.report.lookup import headline_metrics
from distill.report.numbers import decimals, milliseconds, si

_MOST_BENCHMARKS = 2


def tiles(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The few numbers a reader wants first: ``label``, ``value``, ``kind`` of number, ``note``."""
    found = [*_agreement_tiles(content), *_cost_tiles(content)]
    return [
        {"label": label, "value": value, "kind": kind, "note": note}
        for label, value, kind, note in found
        if value is not None
    ]


_Tile = tuple[str, float | None, str, str]


def _agreement_tiles(content: Mapping[str, Any]) -> list[_Tile]:
    evaluation = content["evaluation"]
    source = "its teacher" if _among_teachers(content) else "people"
    note = f"SRCC with {source}, n\u00a0=\u00a0{_images(evaluation)}"
    found = []
    for label, name in ((content["kind"].capitalize(), content["model"]), ("Teacher", content["teacher"])):
        metrics = headline_metrics(evaluation, name)
        if metrics is not None:
            found.append((label, metrics["srcc"]["value"], "metric", note))
    for benchmark in content["benchmarks"][:_MOST_BENCHMARKS]:
        metrics = headline_metrics(benchmark, benchmark["models"][0]["name"])
        if metrics is not None:
            words = f"SRCC on {benchmark['target']['name']}, n\u00a0=\u00a0{_images(benchmark)}"
            found.append(("Benchmark", metrics["srcc"]["value"], "metric", words))
    return found


def _cost_tiles(content: Mapping[str, Any]) -> list[_Tile]:
    cost, teacher = content["costs"].get(content["model"], {}), content["costs"].get(content["teacher"], {})
    slow, fast = teacher.get("latency_ms_median"), cost.get("latency_ms_median")
    # Times on two kinds of device say nothing of the models.
    comparable = slow and fast and teacher.get("device") == cost.get("device")
    student = content["kind"] == "student"
    return [
        ("Size", cost.get("parameters"), "si", "parameters"),
        ("Fitted", cost.get("trained"), "si", "of the parameters"),
        ("File", cost.get("file_bytes"), "size", "everything it needs" if student else "what was fitted"),
        ("Time", cost.get("latency_ms_median"), "ms", "an image, median"),
        ("Speed", slow / fast if comparable else None, "times", "that of the teacher"),
    ]


def _images(evaluation: Mapping[str, Any]) -> int:
    return evaluation["selections"][evaluation["headline"]]["n"]


def _among_teachers(content: Mapping[str, Any]) -> bool:
    """Whether a student was judged by the labels of its teacher."""
    return content["kind"] == "student" and content["evaluation"]["target"]["source"] == "teacher"


def headline(content: Mapping[str, Any]) -> str:
    """The result in one or two sentences that need no glossary."""
    evaluation, model = content["evaluation"], content["model"]
    n, metrics = _images(evaluation), headline_metrics(evaluation, model)
    found = None if metrics is None else metrics["srcc"]
    if found is None or found["value"] is None:
        reason = found["reason"] if found else "it was not evaluated"
        return f"{model} was tested on {n} images, but its agreement cannot be stated: {reason}."
    interval = ""
    if found["low"] is not None:
        interval = f" (95 % interval {decimals(found['low'], 2)} to {decimals(found['high'], 2)})"
    value = f"SRCC {decimals(found['value'], 2)}{interval}"
    cost = _cost_sentence(content["costs"].get(model, {}))
    name = evaluation["target"]["name"]
    if _among_teachers(content):
        teacher = f" ({content['teacher']})" if content["teacher"] else ""
        alike = f"{_degree(found['value'])} as its teacher{teacher}"
        return f"On {n} held-out images, {model} orders quality {alike} does: {value}.{cost}"
    if evaluation["target"]["source"] == "teacher":
        return f"On {n} held-out images, {model} agrees with {name} at {value}.{cost}"
    beside = _teacher_beside(evaluation, content["teacher"])
    return f"On {n} held-out images of {name}, {model} agrees with people at {value}{beside}.{cost}"


def _teacher_beside(evaluation: Mapping[str, Any], teacher: str | None) -> str:
    metrics = headline_metrics(evaluation, teacher)
    if metrics is None or metrics["srcc"]["value"] is None:
        return ""
    return f"; its teacher ({teacher}) reaches {decimals(metrics['srcc']['value'], 2)}"


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
