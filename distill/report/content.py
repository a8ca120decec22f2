"""From the inputs to the content of the report: the JSON twin, of which the page is only a rendering."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill.html.markup import plain
from distill.html.tables import decimals, milliseconds, si
from distill.leakage.record import closest_scenes, facts, in_words
from distill.report.inputs import Neighbours, ReportInputs
from pseudo_labels.errors import PocketiqaError

# Benchmarks that get a tile: with more, the costs beside them would be lost in the row.
_MOST_BENCHMARKS = 2
_Tile = tuple[str, float | None, str, str]
RATINGS = "opinions"
"""The name that files have for targets that people rated."""
# Least SRCC, and what a student or teacher with it does; {} is whom it is compared with.
# The words are this project's own; the figure with its interval always stands beside them.
_DEGREES: Sequence[tuple[float, str]] = (
    (0.95, "orders quality almost exactly as {} does"),
    (0.85, "orders quality much as {} does"),
    (0.7, "orders quality largely as {} does"),
    (0.5, "orders quality roughly as {} does"),
    (0.0, "orders quality only faintly as {} does"),
    (-1.0, "orders quality against {}"),
)
_CHANCE = "does not measurably order quality as {} does"
FORMAT = 2
# Pictures make up most of the page's size: so many images far from their targets, close to them, and pairs of scenes.
_FARTHEST, _CLOSEST = 8, 4
_PAIRS = 6


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
        content: content of the report.
        name: name of the model.
        kind: kind of model, as its predictions say it; a benchmark may know a fitted teacher by another name than the
            recipe's.
    """
    if name == content["model"]:
        return content["kind"]
    return "teacher" if name == content["teacher"] or kind == "teacher" else "other"


def tiles(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The few numbers a reader wants first: ``label``, ``value``, ``kind`` of number, ``note``."""
    figures = [*_agreement_tiles(content), *_cost_tiles(content)]
    return [
        {"label": label, "value": value, "kind": kind, "note": note}
        for label, value, kind, note in figures
        if value is not None
    ]


def _agreement_tiles(content: Mapping[str, Any]) -> list[_Tile]:
    evaluation = content["evaluation"]
    source = "its teacher" if _among_teachers(content) else "people"
    note = f"SRCC with {source}, n\u00a0=\u00a0{_images(evaluation)}"
    figures = []
    for label, name in ((content["kind"].capitalize(), content["model"]), ("Teacher", content["teacher"])):
        metrics = headline_metrics(evaluation, name)
        if metrics is not None:
            figures.append((label, metrics["srcc"]["value"], "metric", note))
    for benchmark in content["benchmarks"][:_MOST_BENCHMARKS]:
        # The first model of a benchmark is the one that the page is about, under whatever name.
        metrics = headline_metrics(benchmark, benchmark["models"][0]["name"])
        if metrics is not None:
            words = f"SRCC on {benchmark['target']['name']}, n\u00a0=\u00a0{_images(benchmark)}"
            figures.append(("Benchmark", metrics["srcc"]["value"], "metric", words))
    return figures


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
    """Whether a student was evaluated on the labels of its teacher."""
    return content["kind"] == "student" and content["evaluation"]["target"]["source"] == "teacher"


def headline(content: Mapping[str, Any]) -> str:
    """The result of the first evaluation in one or two sentences that need no glossary; true at every value."""
    return _sentence(content, content["evaluation"]) + _cost_sentence(content["costs"].get(content["model"], {}))


def card_headline(content: Mapping[str, Any]) -> str:
    """The lead of the model card: the agreement with people first, where there are ratings, then ``headline``."""
    rated = [one for one in content["benchmarks"] if one["target"]["source"] == RATINGS]
    # Only people tell how good a model is; agreement with its teacher says how well it learned.
    if content["evaluation"]["target"]["source"] == RATINGS or not rated:
        return headline(content)
    return f"{_sentence(content, rated[0])} {headline(content)}"


def _sentence(content: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    model, target = content["model"], evaluation["target"]
    n, metrics = _images(evaluation), headline_metrics(evaluation, model)
    srcc = None if metrics is None else metrics["srcc"]
    if srcc is None or srcc["value"] is None:
        reason = srcc["reason"] if srcc else "it was not evaluated"
        return f"{model} was tested on {n} images, but its agreement cannot be stated: {reason}."
    interval = ""
    if srcc["low"] is not None:
        interval = f" (95 % interval {decimals(srcc['low'], 2)} to {decimals(srcc['high'], 2)})"
    value = f"SRCC {decimals(srcc['value'], 2)}{interval}"
    if target["source"] == RATINGS:
        beside = _teacher_beside(evaluation, content["teacher"])
        return f"On {n} held-out images of {target['name']}, {model} {_with_people(srcc)}: {value}{beside}."
    if content["kind"] == "student":
        teacher = f" ({content['teacher']})" if content["teacher"] else ""
        return f"On {n} held-out images, {model} {_as_the_teacher(srcc).format(f'its teacher{teacher}')}: {value}."
    return f"On {n} held-out images, {model} {_as_the_teacher(srcc).format(target['name'])}: {value}."


def _by_chance(srcc: Mapping[str, Any]) -> bool:
    """Whether the order may be chance: the interval includes 0; without an interval, whether the value is 0."""
    if srcc["low"] is None:
        return srcc["value"] == 0
    return srcc["low"] <= 0 <= srcc["high"]


def _as_the_teacher(srcc: Mapping[str, Any]) -> str:
    return _CHANCE if _by_chance(srcc) else next(words for least, words in _DEGREES if srcc["value"] >= least)


def _with_people(srcc: Mapping[str, Any]) -> str:
    if _by_chance(srcc):
        return "does not measurably agree with people"
    return "agrees with people" if srcc["value"] > 0 else "orders quality against people"


def _teacher_beside(evaluation: Mapping[str, Any], teacher: str | None) -> str:
    metrics = headline_metrics(evaluation, teacher)
    if metrics is None or metrics["srcc"]["value"] is None:
        return ""
    return f"; its teacher ({teacher}) reaches {decimals(metrics['srcc']['value'], 2)}"


def _cost_sentence(cost: Mapping[str, Any]) -> str:
    parts = []
    if cost.get("parameters") is not None:
        parts.append(f"{si(cost['parameters'])} parameters")
    if cost.get("latency_ms_median") is not None:
        parts.append(f"{milliseconds(cost['latency_ms_median'])} an image")
    return f" It needs {' and '.join(parts)}." if parts else ""


def build_content(inputs: ReportInputs) -> dict[str, Any]:
    """Everything the page shows, as JSON values.

    Raises:
        PocketiqaError: the model is not among those evaluated.
    """
    evaluated = [model["name"] for model in inputs.evaluation["models"]]
    if inputs.model not in evaluated:
        raise PocketiqaError(
            f"{inputs.kind} {inputs.model!r} was not evaluated: the evaluation holds {', '.join(evaluated)}"
        )
    farthest, closest = _examples(inputs)
    content: dict[str, Any] = {
        "format": FORMAT,
        "title": inputs.title,
        "model": inputs.model,
        "kind": inputs.kind,
        "teacher": inputs.teacher,
        "evaluation": dict(inputs.evaluation),
        "benchmarks": [dict(evaluation) for evaluation in inputs.benchmarks],
        "costs": {name: cost.as_dict() for name, cost in inputs.costs.items()},
        "machine": inputs.machine,
        "points": _points(inputs),
        "disagreement": farthest,
        "closest": closest,
        "history": [dict(record) for record in inputs.history],
        "kept_step": inputs.kept_step,
        "fitting": [one.as_dict() for one in inputs.fitting],
        "quality_maps": [
            {
                "name": one.name,
                "score": one.score,
                "low": float(one.quality_map.min()),
                "high": float(one.quality_map.max()),
            }
            for one in inputs.quality_maps
        ],
        # The key keeps its earlier name, as do those in each record: scripts read ``report.json``.
        "damaged": [_damaged(one) for one in inputs.distorted],
        "regions": None if inputs.regions is None else inputs.regions.as_dict(),
        "pools": [dict(pool) for pool in inputs.pools],
        "split": {name: dict(part) for name, part in inputs.split.items()},
        "teachers": [dict(stamp) for stamp in inputs.teachers],
        "overlap": None if inputs.overlap is None else dict(inputs.overlap),
        "neighbours": [_neighbours(one) for one in inputs.neighbours],
        "contract": None if inputs.contract is None else dict(inputs.contract),
        "command": inputs.command,
        "notes": list(inputs.notes),
        "licence": inputs.licence,
    }
    # Last, as both are read from the content. They are stored too: readers of the JSON need not build sentences.
    content["tiles"] = tiles(content)
    content["headline"] = headline(content)
    return content


def _neighbours(one: Neighbours) -> dict[str, Any]:
    """The near duplicates of one image set, with the closest pairs in place of all images; or why there are none."""
    if one.record is None:
        return {"name": one.name, "reason": one.reason, "pairs": []}
    return {
        "name": one.name,
        "reason": "",
        "folder": one.folder,
        "words": in_words(one.record),
        "scenes": one.record["scenes"],
        "split": one.record["split"],
        "pairs": [dict(pair) for pair in closest_scenes(one.record, _PAIRS)],
        **facts(one.record),
    }


def _points(inputs: ReportInputs) -> dict[str, Any]:
    """Target and score of every image, for the plots and for whoever wants to look further."""
    targets, known = inputs.targets, {model["name"] for model in inputs.evaluation["models"]}
    scores = {}
    for prediction in inputs.predictions:
        if prediction.name in known:
            # One order for targets and scores: the plots pair them by position. null for NaN, which JSON does not have.
            aligned = prediction.aligned(targets.ids).scores
            scores[prediction.name] = [None if np.isnan(score) else float(score) for score in aligned]
    return {
        "ids": [plain(id) for id in targets.ids],
        "names": [plain(name) for name in targets.names or targets.ids],
        "targets": [float(score) for score in targets.scores],
        "subsets": list(targets.subsets),
        "near_train": list(targets.near_training),
        "scores": scores,
    }


def _examples(inputs: ReportInputs) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The images on which the model is farthest from the target, and of the others the closest."""
    own = next((p for p in inputs.predictions if p.name == inputs.model), None)
    if own is None:
        return [], []
    teacher = next((p for p in inputs.predictions if p.name == inputs.teacher), None)
    scores = own.aligned(inputs.targets.ids).scores
    others = None if teacher is None else teacher.aligned(inputs.targets.ids).scores
    difference = scores - inputs.targets.scores
    # argsort puts NaN (no score) last; it is dropped, as it is neither far nor close.
    order = [int(at) for at in np.argsort(-np.abs(difference)) if np.isfinite(difference[at])]
    # The closest are taken from what is left, the very closest first: with few images, none is shown twice.
    farthest, closest = order[:_FARTHEST], order[_FARTHEST:][: -_CLOSEST - 1 : -1]
    return _rows(inputs, farthest, scores, others), _rows(inputs, closest, scores, others)


def _rows(
    inputs: ReportInputs, positions: Sequence[int], scores: np.ndarray, others: np.ndarray | None
) -> list[dict[str, Any]]:
    """Facts on single images; ``at`` is the position in the targets."""
    targets, rows = inputs.targets, []
    for at in positions:
        seen = None if others is None or np.isnan(others[at]) else float(others[at])
        rows.append(
            {
                "at": at,
                "id": plain(targets.ids[at]),
                "name": plain((targets.names or targets.ids)[at]),
                "target": float(targets.scores[at]),
                "score": float(scores[at]),
                "teacher": seen,
                "difference": float(scores[at] - targets.scores[at]),
            }
        )
    return rows


def _damaged(one: Any) -> dict[str, Any]:
    return {
        "name": plain(one.name),
        "damage": one.distortion,
        "original_score": one.original_score,
        "damaged_score": one.distorted_score,
        "difference": one.distorted_score - one.original_score,
    }
