"""The result of a study in a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from distill.html.tables import decimals, signed


def result_tables(result: Mapping[str, Any]) -> list[Table]:
    """Arms at every combination of values with their differences, and what each run cost."""
    moved = [_sensitivity(result)] if any(row["sensitivity"] for row in result["rows"]) else []
    return [_arms(result), *moved, _runs(result)]


def verdict(result: Mapping[str, Any]) -> str:
    """The study in one sentence: its goal, or how far it has come."""
    done = sum(run["state"] == "done" for run in result["runs"])
    progress = f"{done} of {len(result['runs'])} runs are done"
    goal = result["goal"]
    if goal is None:
        return f"{progress}."
    where = " and ".join(f"{axis} {value}" for axis, value in goal["at"].items()) or "all values"
    wanted = (
        f"{goal['arm']} to gain at least {decimals(goal['gain'])} {result['metric'].upper()} over "
        f"{result['baseline']} at {where}, with an interval above 0"
    )
    found = "; ".join(
        difference_words(row["differences"][goal["arm"]])
        for row in result["rows"]
        if all(row["values"][axis] == value for axis, value in goal["at"].items())
    )
    if goal["met"] is None:
        return f"Not known yet ({progress}): {wanted}. So far: {found}."
    return f"{'Reached' if goal['met'] else 'Not reached'}: {wanted}. Found: {found}."


def difference_words(found: Mapping[str, Any]) -> str:
    """A paired difference with its interval, in words."""
    if found["difference"] is None:
        return f"none ({found['reason']})"
    ends = "no interval"
    if found["low"] is not None:
        ends = f"{signed(found['low'])} to {signed(found['high'])}"
    return f"{signed(found['difference'])} ({ends})"


def arm_words(found: Mapping[str, Any]) -> str:
    """Mean and standard deviation over the repeats, and their number."""
    if found["mean"] is None:
        return "–"
    spread = "" if found["deviation"] is None else f" ± {decimals(found['deviation'])}"
    return f"{decimals(found['mean'])}{spread} (n={found['n']})"


def seconds_words(run: Mapping[str, Any]) -> str:
    """Time of a run; one that was resumed has taken longer than is known."""
    if run["seconds"] is None:
        return "–"
    return f"{'over ' if run['resumed'] else ''}{run['seconds']:.0f} s"


def memory_words(run: Mapping[str, Any]) -> str:
    """Peak memory of a run."""
    return "–" if run["peak_memory_bytes"] is None else f"{run['peak_memory_bytes'] / 1e6:,.0f} MB"


def value_words(row: Mapping[str, Any]) -> str:
    """The values of a row, each with its axis."""
    values = row["values"]
    return ", ".join(f"{axis} {value}" for axis, value in values.items()) or "all"


Row = tuple[str, str, Mapping[str, Any], Mapping[str, Any] | None]
"""Values, arm, what was measured of it, and its difference to the baseline where there is one."""


def arm_rows(result: Mapping[str, Any]) -> list[Row]:
    """Every arm at every combination of values."""
    return [
        (value_words(row), arm, found, row["differences"].get(arm))
        for row in result["rows"]
        for arm, found in row["arms"].items()
    ]


def header_of(result: Mapping[str, Any], *measured: str) -> list[str]:
    """Columns of a table of arms."""
    return ["at", "arm", *measured, *([f"− {result['baseline']}"] if result["baseline"] else [])]


def _arms(result: Mapping[str, Any]) -> Table:
    target = result["target"]
    title = f"{result['name']}: {result['metric'].upper()} with people, {target['n']} images of {target['name']}"
    caption = f"mean ± standard deviation over n values of {result['repeats']}; differences with 95 % interval"
    rows = [[at, arm, arm_words(found), _difference(gap)] for at, arm, found, gap in arm_rows(result)]
    return _table(title, caption, header_of(result, result["metric"].upper()), rows)


def _table(title: str, caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for name in header:
        table.add_column(name, justify="left" if name in ("at", "arm") else "right")
    for row in rows:
        table.add_row(*row[: len(header)])
    return table


def sensitivity_rows(result: Mapping[str, Any]) -> list[Row]:
    """Every arm whose sensitivity was measured."""
    return [
        (value_words(row), arm, found, row["sensitivity"]["differences"].get(arm))
        for row in result["rows"]
        if row["sensitivity"]
        for arm, found in row["sensitivity"]["arms"].items()
    ]


SENSITIVITY = ("moved by", "without selection", "channels closed")
"""Columns of a table of sensitivity."""


def _sensitivity(result: Mapping[str, Any]) -> Table:
    caption = "mean change of a score, in deviations of the scores; differences with 95 % interval"
    rows = [
        [
            at, arm, decimals(found["change"]), decimals(found["ungated"]), f"{100 * found['suppressed']:.0f} %",
            _difference(gap),
        ]
        for at, arm, found, gap in sensitivity_rows(result)
    ]  # fmt: skip
    return _table("Moved by matched noise", caption, header_of(result, *SENSITIVITY), rows)


def _difference(found: Mapping[str, Any] | None) -> str:
    return "–" if found is None or found["difference"] is None else difference_words(found)


def _runs(result: Mapping[str, Any]) -> Table:
    table = Table(title="Runs", title_justify="left")
    for name in ("run", result["metric"].upper(), "time", "memory"):
        table.add_column(name, justify="left" if name == "run" else "right")
    for run in result["runs"]:
        value = run["state"] if run["value"] is None else decimals(run["value"])
        table.add_row(run["name"], value, seconds_words(run), memory_words(run))
    return table
