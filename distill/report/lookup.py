"""Where things stand in the content of a report."""

from collections.abc import Mapping
from typing import Any


def model_of(evaluation: Mapping[str, Any], name: str | None) -> Mapping[str, Any] | None:
    """One model of an evaluation; None if it was not evaluated."""
    return next((model for model in evaluation["models"] if model["name"] == name), None)


def headline_metrics(evaluation: Mapping[str, Any], name: str | None) -> Mapping[str, Any] | None:
    """Metrics of one model on the headline selection; None if it was not evaluated."""
    model = model_of(evaluation, name)
    return None if model is None else model["selections"][evaluation["headline"]]["metrics"]


def evaluations(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All of them, that of the held-out part first."""
    return [content["evaluation"], *content["benchmarks"]]


def role(content: Mapping[str, Any], name: str, kind: str = "") -> str:
    """Class that colours a model: ``student``, ``teacher`` or ``other``.

    Args:
        content: of the report.
        name: of the model.
        kind: as its predictions say it; a benchmark may know a fitted teacher by another name than the recipe's.
    """
    if name == content["model"]:
        return content["kind"]
    return "teacher" if name == content["teacher"] or kind == "teacher" else "other"
