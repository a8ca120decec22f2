"""What was measured, as tables for a terminal."""

import math
from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from distill.stress.levels import LevelFigures, level_verdicts
from distill.stress.measure import StressResult, verdicts
from distill.terminal.console import shown
from pseudo_labels.metrics.draws import MIN_GROUPS

_COLUMNS = ("check", "n", "figure", "95 % interval", "limit", "passed")
_LEVEL_COLUMNS = (
    "distortion", "SRCC, levels 1 to 5", "levels 3 to 5", "5 above", "drop 1", "2", "3", "4", "5", "must", "",
)  # fmt: skip
_LEVEL_CAPTION = (
    "SRCC: of level and falling score within a photograph, mean and 95 % interval over photographs. 5 above: fraction "
    "of photographs of which the copy of level 5 scores above the original. Drop: mean fall of the score. Must: for "
    "blur, noise, compression and spatial the SRCC of levels 1 to 5, for the other effects that of levels 3 to 5; for "
    "each distortion the fraction above."
)


def stress_table(result: StressResult) -> Table:
    """A row for each limit: check, n, figure, interval, limit, passed; then both fractions by distortion."""
    title = f"{shown(result.model)} ({result.digest[:12]}) on {result.photographs} photographs"
    table = Table(*_COLUMNS, title=title, title_justify="left")
    colours = {"yes": "green", "no": "red", "undecided": "yellow"}
    for verdict in verdicts(result):
        passed = Text(verdict.outcome, colours[verdict.outcome])
        measured = (str(verdict.n), f"{verdict.figure:.4g}", _interval_words(verdict.low, verdict.high))
        table.add_row(verdict.check, *measured, verdict.limit_words, passed)
    table.add_section()
    _add_fractions(table, "ordered", "ordered rightly", result.ordering.fraction_by_distortion, result)
    _add_fractions(table, "pointed", "pointed at", result.pointing.fraction_by_distortion, result)
    if any(verdict.outcome == "undecided" for verdict in verdicts(result)):
        table.caption = (
            f"undecided: missed, but by no more than the choice of photographs explains (or there are fewer than "
            f"{MIN_GROUPS}): name more photographs"
        )
    return table


def level_rows(result: StressResult) -> Table:
    """Each effect with its distortions: order of the levels, worst copies above the original, mean drops, pass or miss.

    Raises:
        ValueError: the levels of all distortions were not measured.
    """
    if result.levels is None:
        raise ValueError("a short measurement has no table of all distortions")
    levels, told = result.levels, level_verdicts(result.levels)
    title = f"{shown(result.model)}: levels of all distortions, {levels.photographs} photographs"
    table = Table(*_LEVEL_COLUMNS, title=title, title_justify="left", caption_justify="left", caption=_LEVEL_CAPTION)
    for effect in levels.effects.values():
        for row in (effect, *(levels.distortions[name] for name in effect.distortions)):
            verdict = told[row.name]
            words = Text("pass", "green") if verdict.passed else Text("miss", "red")
            style = "bold" if row is effect else None
            drops = (f"{drop:.3f}" for drop in row.drops)
            cells = (_with_interval(row, "srcc"), _with_interval(row, "srcc_strong"), f"{row.above:.1%}", *drops)
            table.add_row(shown(row.name), *cells, verdict.limit_words, words, style=style)
        table.add_section()
    return table


def _with_interval(row: LevelFigures, figure: str) -> str:
    interval, value = row.intervals[figure], getattr(row, figure)
    return f"{value:.2f}" if math.isnan(interval.low) else f"{value:.2f} ({interval.low:.2f} to {interval.high:.2f})"


def _interval_words(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"{low:.4g} to {high:.4g}"


def _add_fractions(table: Table, name: str, words: str, fractions: Mapping[str, float], result: StressResult) -> None:
    for distortion, fraction in fractions.items():
        bounds = result.intervals.get(f"{name} {distortion}")
        interval_words = "" if bounds is None else _interval_words(bounds.low, bounds.high)
        # No limit: these rows say which distortion makes the figures above.
        measured = (str(result.photographs), f"{fraction:.4g}", interval_words)
        table.add_row(f"{distortion}, {words}", *measured, "", "")
