"""The table as Markdown, for a README, and for the console."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from distill.evaluation.evaluate import ALL
from distill.report.numbers import si

NOTHING = ""


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
        found = line["published"]
        # Measured on all images, near ones included: it stands in that column where there is one.
        gap = [] if selected == ALL else [NOTHING]
        row = [
            f"{line['name']} (published: {found['source']})",
            size,
            *gap,
            f"{found['srcc']:.3g} on {found['images']}",
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
    found = line["srcc"]
    if found is None:
        return "no score"
    if len(headline) > 1:
        return f"{found['mean']:.3f} ({found['low']:.3f} to {found['high']:.3f} over seeds)"
    metric = headline[0]["metrics"]["srcc"]
    span = NOTHING if metric["low"] is None else f" [{metric['low']:.3f}, {metric['high']:.3f}]"
    return f"{found['mean']:.3f}{span}"


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
    """What the figures rest on."""
    return (
        f"{result['target']['name']}, {result['headline']}; intervals by {result['resamples']} resamples of scenes. "
        f"Milliseconds: median from file to score on one core, all in turn ({result['times']['machine']})."
    )


def console_table(result: Mapping[str, Any]) -> Table:
    """The same for the console."""
    titles = header(result["lines"])
    table = Table(*titles, box=None, header_style="bold", pad_edge=False)
    for texts in rows_of(result["lines"]):
        table.add_row(*texts)
    return table
