"""The table as Markdown, for a README, and for the console."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from distill.comparison.config import Comparison, Row
from distill.evaluation.evaluate import ALL, CLEAN, evaluate, select
from distill.evaluation.paired import mean_difference
from distill.evaluation.predictions import Predictions
from distill.evaluation.targets import Targets
from distill.html.tables import si
from pseudo_labels.metrics.draws import Draws

# Fixed, so that the table is the same for whoever makes it again.
RESAMPLES, SEED = 1000, 0
METRIC = "srcc"

Predicted = Mapping[str, Sequence[Predictions]]
NOTHING = ""


def lines_of(
    comparison: Comparison, predicted: Predicted, targets: Targets, times: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One record for each row, in order.

    A measured one has ``models``, of each the selections as ``evaluation.evaluate`` gives them, ``srcc``: mean, least
    and most over the models of the headline selection, and ``milliseconds`` where they were measured; a published one
    what its source says.
    """
    return [
        {"name": row.name, "parameters": row.parameters, "published": row.published.model_dump()}
        if row.published is not None
        else _measured(row, predicted[row.name], targets, times)
        for row in comparison.rows
    ]  # fmt: skip


def _measured(
    row: Row, predictions: Sequence[Predictions], targets: Targets, times: Mapping[str, Any]
) -> dict[str, Any]:
    results = [evaluate([one], targets, resamples=RESAMPLES, seed=SEED) for one in predictions]
    headline = results[0]["headline"]
    selections = [result["models"][0]["selections"] for result in results]
    values = [one[headline]["metrics"][METRIC]["value"] for one in selections]
    known = [value for value in values if value is not None]
    return {
        "name": row.name,
        # Exported students say it in their contract; of teachers only the file of the comparison may know it.
        "parameters": row.parameters or predictions[0].about.get("contract", {}).get("parameters"),
        "models": [
            {"kind": one.kind, "about": one.about, "selections": parts}
            for one, parts in zip(predictions, selections, strict=True)
        ],
        "headline": headline,
        # Least and most, not a deviation: of three seeds it would say little.
        METRIC: {"mean": statistics.fmean(known), "low": min(known), "high": max(known)} if known else None,
        "milliseconds": times["rows"].get(row.name, {}).get("milliseconds"),
    }


def gains_of(comparison: Comparison, predicted: Predicted, targets: Targets) -> list[dict[str, Any]]:
    """Differences in SRCC on the headline selection, see ``paired.mean_difference``.

    A row of one model is compared with each seed of the other; of two with seeds, the first with the first and so on.
    """
    mask = next(iter(select(targets).values()))
    # The same resamples for both rows: what makes an image hard for both cancels out in the difference.
    draws = Draws.of(len(targets.ids), targets.groups, resamples=RESAMPLES, seed=SEED)
    return [
        {
            **gain.model_dump(),
            **mean_difference(_pairs(predicted[gain.row], predicted[gain.over]), targets.scores, mask, draws, METRIC),
        }
        for gain in comparison.gains
    ]


def _pairs(own: Sequence[Predictions], other: Sequence[Predictions]) -> list[tuple[Predictions, Predictions]]:
    if len(own) == 1 or len(other) == 1:
        return [(one, two) for one in own for two in other]
    # Seeds without a partner are left out.
    return list(zip(own, other, strict=False))


def headline_words(targets: Targets) -> str:
    """The images that the first column of figures was computed on, in words."""
    clean = select(targets)
    n = int(next(iter(clean.values())).sum())
    return f"{n} images that show no scene of the training part" if CLEAN in clean else f"all {n} images"


def header(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Titles of the columns."""
    first = next(line for line in lines if "models" in line)
    selection = first["models"][0]["selections"][first["headline"]]
    n, subsets = selection["n"], list(selection.get("subsets", {}))
    every = first["models"][0]["selections"][ALL]["n"]
    parts = [*subsets, "mean of subsets"] if subsets else []
    rest = [] if first["headline"] == ALL else [f"all {every}"]
    return ["model", "parameters", f"SRCC, {n} {first['headline']} images (95 %)", *rest, "PLCC", *parts, "ms"]


def rows_of(lines: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The texts of all rows."""
    columns, selected = len(header(lines)), next(line["headline"] for line in lines if "models" in line)
    return [cells(line, columns, selected) for line in lines]


def cells(line: Mapping[str, Any], columns: int, selected: str) -> list[str]:
    """The texts of one row; ``selected`` is the headline selection."""
    size = NOTHING if line["parameters"] is None else si(line["parameters"])
    if "published" in line:
        published = line["published"]
        # Measured on all images, near duplicates included: it stands in that column where there is one.
        gap = [] if selected == ALL else [NOTHING]
        row = [
            f"{line['name']} (published: {published['source']})",
            size,
            *gap,
            f"{published['srcc']:.3g} on {published['images']}",
        ]
        return row + [NOTHING] * (columns - len(row))
    several = len(line["models"]) > 1
    selections = [model["selections"] for model in line["models"]]
    headline = [one[line["headline"]] for one in selections]
    row = [f"{line['name']} ({len(headline)} seeds)" if several else line["name"], size, _main(line, headline)]
    if line["headline"] != ALL:
        row.append(_mean([one[ALL]["metrics"]["srcc"]["value"] for one in selections]))
    row.append(_mean([one["metrics"]["plcc"]["value"] for one in headline]))
    for subset in headline[0].get("subsets", {}):
        row.append(_mean([one["subsets"][subset]["metrics"]["srcc"]["value"] for one in headline]))
    if headline[0].get("subsets"):
        row.append(_mean([one["subset_mean"]["metrics"]["srcc"]["value"] for one in headline]))
    ms = line["milliseconds"]
    return [*row, NOTHING if ms is None else f"{ms:.1f}"]


def _main(line: Mapping[str, Any], headline: Sequence[Mapping[str, Any]]) -> str:
    srcc = line["srcc"]
    if srcc is None:
        return "no score"
    if len(headline) > 1:
        return f"{srcc['mean']:.3f} ({srcc['low']:.3f} to {srcc['high']:.3f} over seeds)"
    metric = headline[0]["metrics"]["srcc"]
    span = NOTHING if metric["low"] is None else f" [{metric['low']:.3f}, {metric['high']:.3f}]"
    return f"{srcc['mean']:.3f}{span}"


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.3f}" if known else NOTHING


def gain_sentence(gain: Mapping[str, Any]) -> str:
    """A difference in words."""
    pair = f"{gain['row']} over {gain['over']}"
    if gain["difference"] is None:
        return f"{pair}: no difference ({gain['reason']})"
    span = f"{gain['low']:+.3f} to {gain['high']:+.3f}" if gain["low"] is not None else gain["interval_reason"]
    repeats = f", mean of {gain['n']} seeds" if gain["n"] > 1 else NOTHING
    return f"{pair}: {gain['difference']:+.3f} ({span}{repeats})"


def markdown(result: Mapping[str, Any]) -> str:
    """Table, gains and footing."""
    titles = header(result["lines"])
    rows = [titles, ["---"] * len(titles), *rows_of(result["lines"])]
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    gains = "".join(f"- {gain_sentence(gain)}\n" for gain in result["gains"])
    return f"{text}\n\n{gains}\n{footing(result)}\n"


def footing(result: Mapping[str, Any]) -> str:
    """Target, resamples and machine of the figures, in words."""
    times = result["times"]
    # Times of the first version, which a folder may hold still, leave the reading out.
    reading = ", reading included," if times.get("reading") else ""
    return (
        f"{result['target']['name']}, {result['headline']}; intervals by {result['resamples']} resamples of scenes. "
        f"Milliseconds: median from file to score{reading} on one core, all in turn ({times['machine']})."
    )


def console_table(result: Mapping[str, Any]) -> Table:
    """The table for the console."""
    titles = header(result["lines"])
    table = Table(*titles, box=None, header_style="bold", pad_edge=False)
    table.columns[0].overflow = "fold"
    for texts in rows_of(result["lines"]):
        table.add_row(*texts)
    return table
