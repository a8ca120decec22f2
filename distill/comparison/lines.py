"""Lines of the table: what was measured of each row, as JSON values; table and plots show them and add nothing."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from distill.comparison.config import Comparison, Row
from distill.evaluation.evaluate import CLEAN, evaluate, select
from distill.evaluation.paired import mean_difference
from distill.evaluation.predictions import Predictions
from distill.evaluation.targets import Targets
from pseudo_labels.metrics.bootstrap import Draws

RESAMPLES, SEED = 1000, 0
METRIC = "srcc"

Judged = Mapping[str, Sequence[Predictions]]


def lines_of(
    comparison: Comparison, judged: Judged, targets: Targets, times: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One record for each row, in order.

    A measured one has ``models``, of each the selections as ``evaluation.evaluate`` gives them, ``srcc``: mean, least
    and most over the models of the headline selection, and ``milliseconds`` where they were measured; a published one
    what its source says.
    """
    return [
        {"name": row.name, "parameters": row.parameters, "published": row.published.model_dump()}
        if row.published is not None
        else _measured(row, judged[row.name], targets, times)
        for row in comparison.rows
    ]  # fmt: skip


def _measured(row: Row, found: Sequence[Predictions], targets: Targets, times: Mapping[str, Any]) -> dict[str, Any]:
    results = [evaluate([one], targets, resamples=RESAMPLES, seed=SEED) for one in found]
    headline = results[0]["headline"]
    selections = [result["models"][0]["selections"] for result in results]
    values = [one[headline]["metrics"][METRIC]["value"] for one in selections]
    known = [value for value in values if value is not None]
    return {
        "name": row.name,
        "parameters": row.parameters or found[0].about.get("contract", {}).get("parameters"),
        "models": [
            {"kind": one.kind, "about": one.about, "selections": parts}
            for one, parts in zip(found, selections, strict=True)
        ],
        "headline": headline,
        METRIC: {"mean": statistics.fmean(known), "low": min(known), "high": max(known)} if known else None,
        "milliseconds": times["rows"].get(row.name, {}).get("milliseconds"),
    }


def gains_of(comparison: Comparison, judged: Judged, targets: Targets) -> list[dict[str, Any]]:
    """Differences in SRCC on the headline selection, see ``paired.mean_difference``.

    A row of one model is compared with each seed of the other; of two with seeds, the first with the first and so on.
    """
    mask = next(iter(select(targets).values()))
    draws = Draws.of(len(targets.ids), targets.groups, resamples=RESAMPLES, seed=SEED)
    return [
        {
            **gain.model_dump(),
            **mean_difference(_pairs(judged[gain.row], judged[gain.over]), targets.scores, mask, draws, METRIC),
        }
        for gain in comparison.gains
    ]


def _pairs(own: Sequence[Predictions], other: Sequence[Predictions]) -> list[tuple[Predictions, Predictions]]:
    if len(own) == 1 or len(other) == 1:
        return [(one, two) for one in own for two in other]
    return list(zip(own, other, strict=False))


def headline_words(targets: Targets) -> str:
    """What the first column of figures rests on."""
    clean = select(targets)
    n = int(next(iter(clean.values())).sum())
    return f"{n} images that show no scene of the training part" if CLEAN in clean else f"all {n} images"
