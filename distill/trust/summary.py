"""From scores to figures: the content of the page, as JSON values."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.trust import attack
from distill.trust.definitions import (
    ATTACK,
    CATALOGUE,
    DEFINITIONS,
    GMAD_LEVELS,
    GMAD_WIDTH,
    LEAST_DIFFERENCE,
    VIEWS,
    WATERLOO,
)
from distill.trust.figures import (
    Figure,
    auroc,
    clean_above,
    discrimination,
    level_order,
    mad_pairs,
    mean_figure,
    percentiles,
    preference,
)
from distill.trust.measure import ATTACK_LABELS, ATTACKED, Measured, attack_test
from distill.trust.models import Model
from distill.trust.pictures import CLEAN, CROPS, KINDS, LABELS, LEVELS, SIZES, copies
from pseudo_labels.distort import CATALOGUE as DISTORTIONS
from pseudo_labels.distort import effects

FloatArray = NDArray[np.float64]
_CANDIDATES = (WATERLOO, CATALOGUE)


def summarise(models: Sequence[Model], measured: Measured, tests: Sequence[str]) -> dict[str, Any]:
    """All figures of the tests without people.

    Returns:
        ``photographs`` (names), ``tests``, ``models`` (of each ``name``, ``given``, ``kind``, ``about`` and its
        figures by the names of ``DEFINITIONS``) and ``gmad`` (pairs of pictures, see ``gmad_of``).
    """
    records = []
    for model in models:
        record: dict[str, Any] = {"name": model.name, "given": model.given, "kind": model.kind, **_identity(model)}
        if WATERLOO in tests:
            record |= _of_waterloo(measured, model.name)
        if CATALOGUE in tests:
            record.setdefault("auroc", {}).update(_of_catalogue(measured.scores[model.name, CATALOGUE]))
        if VIEWS in tests:
            record |= _of_views(measured.scores[model.name, VIEWS])
        if ATTACK in tests:
            record |= _of_attacks(models, measured, model.name)
        records.append(record)
    return {
        "photographs": [file.path.name for file in measured.photographs],
        "tests": list(tests),
        "models": records,
        "gmad": gmad_of(models, measured, [test for test in _CANDIDATES if test in tests]),
    }


def _identity(model: Model) -> dict[str, Any]:
    about = model.predictor.about
    facts = {key: about[key] for key in ("digest", "stamp", "file_bytes") if key in about}
    return {"about": facts, "key": model.key}


def _columns(scores: FloatArray, test: str, labels: Sequence[str]) -> FloatArray:
    """Scores [photographs, labels] of some pictures of a test."""
    known = LABELS[test]
    return scores[:, [known.index(label) for label in labels]]


def _clean(scores: FloatArray, test: str) -> FloatArray:
    return _columns(scores, test, [CLEAN])[:, 0]


def _of_waterloo(measured: Measured, name: str) -> dict[str, Any]:
    scores, metrics = measured.scores[name, WATERLOO], measured.metrics
    clean, damaged = _clean(scores, WATERLOO), _columns(scores, WATERLOO, copies(KINDS))
    by_kind = damaged.reshape(len(scores), len(KINDS), len(LEVELS))
    if metrics is None:
        raise ValueError("the Waterloo set was measured without its full-reference metrics")
    agreement, pairs = preference(scores, metrics, LEAST_DIFFERENCE)
    order = level_order(by_kind)
    kinds = {kind: mean_of_kind.as_dict() for kind, mean_of_kind in _orders(by_kind).items()}
    return {
        "d": _judged("d", discrimination(clean, damaged)),
        "l": _judged("l", order) | {"kinds": kinds},
        "p": _judged("p", agreement) | {"pairs": pairs},
        "spread": float(scores.std()),
        "auroc": {
            "waterloo": {
                kind: [clean_above(clean, by_kind[:, at, [level - 1]]).as_dict() for level in LEVELS]
                for at, kind in enumerate(KINDS)
            }
        },
    }


def _orders(by_kind: FloatArray) -> dict[str, Figure]:
    return {kind: level_order(by_kind[:, [at]]) for at, kind in enumerate(KINDS)}


def _judged(name: str, figure: Figure) -> dict[str, Any]:
    definition = DEFINITIONS[name]
    least = definition.least
    if least is None:
        return figure.as_dict()
    return figure.as_dict() | {"least": least, "reached": figure.verdict(definition.title, least).outcome}


def _of_catalogue(scores: FloatArray) -> dict[str, Any]:
    clean = _clean(scores, CATALOGUE)

    def at_levels(*names: str) -> list[FloatArray]:
        return [_columns(scores, CATALOGUE, [f"{name} {level}" for name in names]) for level in LEVELS]

    return {
        "effects": {
            effect: [clean_above(clean, copies).as_dict() for copies in at_levels(*names)]
            for effect, names in effects().items()
        },
        # Without intervals: 155 of them would be read by nobody.
        "distortions": {name: [auroc(clean, copies) for copies in at_levels(name)] for name in DISTORTIONS},
    }


def _of_views(scores: FloatArray) -> dict[str, Any]:
    clean = _clean(scores, VIEWS)
    crops, sizes = _columns(scores, VIEWS, CROPS), _columns(scores, VIEWS, SIZES)
    return {
        "crops": mean_figure(np.abs(crops - clean[:, None]).mean(axis=1)).as_dict(),
        "sizes": mean_figure(np.ptp(sizes, axis=1)).as_dict() | {"mean_score": sizes.mean(axis=0).tolist()},
    }


def _of_attacks(models: Sequence[Model], measured: Measured, name: str) -> dict[str, Any]:
    """Gains of a model under its own attack, and on the pictures that were made against the others."""
    if name in measured.without_twin:
        own: dict[str, Any] = {"reason": measured.without_twin[name]}
    else:
        gains = _gains(measured.scores[name, attack_test(name)])
        own = {picture: {way: one.as_dict() for way, one in of_ways.items()} for picture, of_ways in gains.items()}
    cross = {}
    for other in models:
        if other.name != name and other.name not in measured.without_twin:
            gains = _gains(measured.scores[name, attack_test(other.name)])
            cross[other.name] = {picture: gains[picture][attack.STRONGEST].as_dict() for picture in ATTACKED}
    return {"attack": own, "cross": cross}


def _gains(scores: FloatArray) -> dict[str, dict[str, Figure]]:
    of = dict(zip(ATTACK_LABELS, scores.T, strict=True))
    return {
        picture: {way: mean_figure(of[f"{picture} | {way}"] - of[f"{picture} | {CLEAN}"]) for way in attack.LABELS}
        for picture in ATTACKED
    }


def gmad_of(models: Sequence[Model], measured: Measured, tests: Sequence[str]) -> list[dict[str, Any]]:
    """Pairs of pictures at which two models disagree, for each model as the defender against each other.

    Returns:
        Of each ``defender``, ``attacker``, ``level`` and the pictures ``better`` and ``worse``: ``photograph``
        (position), ``test``, ``label``, and ``scores`` and ``percentiles`` by name of the two models.
    """
    if not tests:
        return []
    labels = [(test, label) for test in tests for label in LABELS[test] if label != CLEAN or test == tests[0]]
    parts = {test: [label for of, label in labels if of == test] for test in tests}
    scores = {
        model.name: np.concatenate(
            [_columns(measured.scores[model.name, test], test, own) for test, own in parts.items()], axis=1
        )
        for model in models
    }
    ranks = {name: percentiles(own) for name, own in scores.items()}
    found = []
    for defender in scores:
        for attacker in scores:
            if attacker == defender:
                continue
            for pair in mad_pairs(scores[defender], scores[attacker], GMAD_LEVELS, GMAD_WIDTH):
                sides = {
                    side: {
                        "photograph": place[0],
                        "test": labels[place[1]][0],
                        "label": labels[place[1]][1],
                        "scores": {name: float(scores[name][place]) for name in (defender, attacker)},
                        "percentiles": {name: float(ranks[name][place]) for name in (defender, attacker)},
                    }
                    for side, place in (("better", pair.better), ("worse", pair.worse))
                }
                found.append({"defender": defender, "attacker": attacker, "level": pair.level, **sides})
    return found


def mean_auroc(record: Mapping[str, Any], part: str) -> float | None:
    """Mean AUROC over all rows and strengths of a part (``effects`` or ``waterloo``); None if it was not measured."""
    rows = record.get("auroc", {}).get(part)
    return fmean(cell["value"] for cells in rows.values() for cell in cells) if rows else None
