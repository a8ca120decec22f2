"""The result of a study in a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from distill.html.tables import decimals, signed

Row = tuple[str, str, Mapping[str, Any], Mapping[str, Any] | None]
"""Values of the axes, arm, its figures, and its difference to the baseline where there is one."""
SENSITIVITY = ("moved by", "without selection", "channels closed")
"""Columns of a table of sensitivity."""


def result_tables(result: Mapping[str, Any]) -> list[Table]:
    """Arms at every combination of values with their differences, and the cost of each run."""
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
    measured = "; ".join(
        difference_words(row["differences"][goal["arm"]])
        for row in result["rows"]
        if all(row["values"][axis] == value for axis, value in goal["at"].items())
    )
    # Null until all runs at the goal are done; then the differences so far are still worth showing.
    if goal["met"] is None:
        return f"Not known yet ({progress}): {wanted}. So far: {measured}."
    return f"{'Reached' if goal['met'] else 'Not reached'}: {wanted}. Measured: {measured}."


def difference_words(gap: Mapping[str, Any]) -> str:
    """A paired difference with its interval, in words."""
    if gap["difference"] is None:
        return f"none ({gap['reason']})"
    # Few scenes give a difference without an interval, see ``bootstrap.MIN_GROUPS``.
    ends = "no interval"
    if gap["low"] is not None:
        ends = f"{signed(gap['low'])} to {signed(gap['high'])}"
    return f"{signed(gap['difference'])} ({ends})"


def arm_words(values: Mapping[str, Any]) -> str:
    """Mean and standard deviation over the repeats, and their number."""
    if values["mean"] is None:
        return "–"
    spread = "" if values["deviation"] is None else f" ± {decimals(values['deviation'])}"
    return f"{decimals(values['mean'])}{spread} (n={values['n']})"


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


def arm_rows(result: Mapping[str, Any]) -> list[Row]:
    """Every arm at every combination of values."""
    return [
        (value_words(row), arm, values, row["differences"].get(arm))
        for row in result["rows"]
        for arm, values in row["arms"].items()
    ]


def header_of(result: Mapping[str, Any], *measured: str) -> list[str]:
    """Columns of a table of arms."""
    return ["at", "arm", *measured, *([f"− {result['baseline']}"] if result["baseline"] else [])]


def _arms(result: Mapping[str, Any]) -> Table:
    target = result["target"]
    title = f"{result['name']}: {result['metric'].upper()} with people, {target['n']} images of {target['name']}"
    caption = f"mean ± standard deviation over n values of {result['repeats']}; differences with 95 % interval"
    rows = [[at, arm, arm_words(values), _difference(gap)] for at, arm, values, gap in arm_rows(result)]
    return _table(title, caption, header_of(result, result["metric"].upper()), rows)


def _table(title: str, caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for name in header:
        table.add_column(name, justify="left" if name in ("at", "arm") else "right")
    for row in rows:
        # Without a baseline the header has no column of differences, and the last cell is cut off.
        table.add_row(*row[: len(header)])
    return table


def sensitivity_rows(result: Mapping[str, Any]) -> list[Row]:
    """Every arm whose sensitivity was measured."""
    return [
        (value_words(row), arm, values, row["sensitivity"]["differences"].get(arm))
        for row in result["rows"]
        if row["sensitivity"]
        for arm, values in row["sensitivity"]["arms"].items()
    ]


def _sensitivity(result: Mapping[str, Any]) -> Table:
    caption = "mean change of a score, in deviations of the scores; differences with 95 % interval"
    rows = [
        [
            at, arm, *("–" if values[name] is None else decimals(values[name]) for name in ("change", "ungated")),
            f"{100 * values['suppressed']:.0f} %", _difference(gap),
        ]
        for at, arm, values, gap in sensitivity_rows(result)
    ]  # fmt: skip
    return _table("Moved by matched noise", caption, header_of(result, *SENSITIVITY), rows)


def _difference(gap: Mapping[str, Any] | None) -> str:
    return "–" if gap is None or gap["difference"] is None else difference_words(gap)


def _runs(result: Mapping[str, Any]) -> Table:
    table = Table(title="Runs", title_justify="left")
    for name in ("run", result["metric"].upper(), "time", "memory"):
        table.add_column(name, justify="left" if name == "run" else "right", overflow="fold")
    for run in result["runs"]:
        value = run["state"] if run["value"] is None else decimals(run["value"])
        table.add_row(run["name"], value, seconds_words(run), memory_words(run))
    return table
