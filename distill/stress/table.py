"""The verdicts as a table for the terminal."""

from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table

from distill.stress.measure import StressResult, verdicts


def stress_table(result: StressResult) -> Table:
    """A row a limit: check, figure, limit, passed; then what the two shares are made of."""
    title = escape(f"{result.model} ({result.digest[:12]}) on {result.photographs} photographs")
    table = Table("check", "figure", "limit", "passed", title=title, title_justify="left")
    for verdict in verdicts(result):
        passed = "[green]yes[/]" if verdict.passed else "[red]no[/]"
        table.add_row(escape(verdict.check), f"{verdict.figure:.4g}", verdict.limit_words, passed)
    table.add_section()
    _add_fractions(table, "ordered rightly", result.ordering.fraction_by_distortion)
    _add_fractions(table, "pointed at", result.pointing.fraction_by_distortion)
    return table


def _add_fractions(table: Table, words: str, fractions: Mapping[str, float]) -> None:
    for distortion, fraction in fractions.items():
        table.add_row(f"{distortion}, {words}", f"{fraction:.4g}", "", "")
