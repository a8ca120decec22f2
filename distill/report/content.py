"""From the inputs to the content of the report: the JSON twin, of which the page is only a rendering."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from distill.overlap.record import closest_scenes, facts, in_words
from distill.report.headline import headline, tiles
from distill.report.inputs import Neighbours, ReportInputs
from distill.report.markup import plain
from pseudo_labels.errors import PocketiqaError

FORMAT = 2
_FARTHEST, _CLOSEST = 8, 4
_PAIRS = 6


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
        "damaged": [_damaged(one) for one in inputs.damaged],
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
    content["tiles"] = tiles(content)
    content["headline"] = headline(content)
    return content


def _neighbours(one: Neighbours) -> dict[str, Any]:
    """What was found, with a few of the closest pairs alone of the single images; or why nothing was compared."""
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


def _examples(inputs: ReportInputs) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The images on which the model is farthest from the target, and of the others the closest."""
    own = next((p for p in inputs.predictions if p.name == inputs.model), None)
    if own is None:
        return [], []
    teacher = next((p for p in inputs.predictions if p.name == inputs.teacher), None)
    scores = own.aligned(inputs.targets.ids).scores
    others = None if teacher is None else teacher.aligned(inputs.targets.ids).scores
    difference = scores - inputs.targets.scores
    order = [int(at) for at in np.argsort(-np.abs(difference)) if np.isfinite(difference[at])]
    farthest, closest = order[:_FARTHEST], order[_FARTHEST:][: -_CLOSEST - 1 : -1]
    return _rows(inputs, farthest, scores, others), _rows(inputs, closest, scores, others)


def _rows(
    inputs: ReportInputs, places: Sequence[int], scores: np.ndarray, others: np.ndarray | None
) -> list[dict[str, Any]]:
    """Facts on single images; ``at`` is the position in the targets."""
    targets, rows = inputs.targets, []
    for at in places:
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
        "damage": one.damage,
        "original_score": one.original_score,
        "damaged_score": one.damaged_score,
        "difference": one.damaged_score - one.original_score,
    }
