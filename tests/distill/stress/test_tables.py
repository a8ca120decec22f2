from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from distill.stress import StressResult, stress
from distill.stress.levels import level_table
from distill.stress.ordering import Ladder
from distill.stress.tables import level_rows, stress_table
from pseudo_labels.distort import CATALOGUE
from tests.helpers.pools import write_photographs
from tests.helpers.tiny_students import export_tiny


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> StressResult:
    folder = tmp_path_factory.mktemp("stress")
    files = write_photographs(folder / "photographs", images=1, max_side=96)
    return stress([export_tiny(folder / "tiny.onnx").path], files, short=True)[0]


def printed(table: Table) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_checks_are_rows_with_their_limits(result: StressResult):
    shown = printed(stress_table(result))
    assert "pairs of strengths ordered rightly" in shown
    assert "undecided: missed" in shown
    assert shown.count("ordered rightly") == 5  # all, and each of four distortions


def test_levels_are_rows_by_effect_with_pass_or_miss(result: StressResult):
    right, wrong = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4), (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    ladders = [
        Ladder(str(n), name, wrong if one.effect == "sharpness" else right)
        for n in range(5)
        for name, one in CATALOGUE.items()
    ]
    lines = printed(level_rows(replace(result, levels=level_table(ladders)))).splitlines()
    row = {name: next(line for line in lines if f" {name} " in line) for name in ("blur", "sharpness", "high_sharpen")}
    assert "1.00 (1.00 to 1.00)" in row["blur"]
    assert "pass" in row["blur"]
    assert "0.100" in row["blur"]
    assert "-1.00" in row["sharpness"]
    assert "miss" in row["sharpness"]
    assert "100.0%" in row["high_sharpen"]
    assert sum(" pass " in line for line in lines) == 7 + 29
    assert sum(" miss " in line for line in lines) == 1 + 2


def test_a_short_measurement_has_no_such_table(result: StressResult):
    with pytest.raises(ValueError, match="short"):
        level_rows(result)
