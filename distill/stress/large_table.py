"""The table of ``pocketiqa stress --large``."""

import math

from rich.table import Table
from rich.text import Text

from distill.stress.large import LargeResult
from distill.stress.large_copies import LADDERS
from distill.terminal.console import shown

_COLUMNS = ("check", "n", "figure", "95 % interval", "limit", "passed")
_COLOURS = {"yes": "green", "no": "red", "undecided": "yellow"}


def large_table(result: LargeResult) -> Table:
    """A row for each limit, then the fraction of visible pairs by kind."""
    title = f"{shown(result.model)} ({result.digest[:12]}), {result.look} look, {len(result.photographs)} photographs"
    table = Table(*_COLUMNS, title=title, title_justify="left")
    for verdict in result.verdicts:
        interval = "" if math.isnan(verdict.low) else f"{verdict.low:.4g} to {verdict.high:.4g}"
        outcome = "" if math.isnan(verdict.figure) else verdict.outcome
        figure = "no photograph" if math.isnan(verdict.figure) else f"{verdict.figure:.4g}"
        passed = Text(outcome, _COLOURS.get(outcome, ""))
        measured = (str(verdict.n), figure, interval)
        table.add_row(verdict.check, *measured, verdict.limit_words, passed)
    table.add_section()
    for kind in LADDERS:
        fraction, pairs = result.fraction(kind)
        table.add_row(f"{kind}, visible pairs ordered", str(pairs), f"{fraction:.4g}")
    return table
