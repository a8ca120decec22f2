"""The result of a study in a terminal, and in one sentence."""

from pathlib import Path

import pytest

from distill.study.cells import cells_of, study_targets
from distill.study.config import Study
from distill.study.page import study_page
from distill.study.tables import (
    arm_rows,
    arm_words,
    difference_words,
    header_of,
    memory_words,
    result_tables,
    seconds_words,
    value_words,
    verdict,
)
from tests.helpers.written_study import result_of, score, written_study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return written_study(tmp_path)


def test_before_the_first_run_there_is_a_page_and_a_table(study: Study):
    result = result_of(study, cells_of(study))
    assert "0 of 12 runs are done" in study_page(result)
    assert [table.row_count for table in result_tables(result)] == [4, 12]
    assert result["rows"][0]["differences"]["more"]["reason"] == "no repeat has both"


def test_figures_in_words():
    gap = {"difference": 0.0123, "low": -0.004, "high": 0.03}
    assert difference_words(gap) == "+0.012 (−0.004 to +0.030)"
    assert difference_words({**gap, "low": None, "high": None}) == "+0.012 (no interval)"
    assert difference_words({"difference": None, "reason": "no repeat has both"}) == "none (no repeat has both)"
    assert arm_words({"mean": 0.5, "deviation": 0.01, "n": 3}) == "0.500 ± 0.010 (n=3)"
    assert arm_words({"mean": 0.5, "deviation": None, "n": 1}) == "0.500 (n=1)"
    assert arm_words({"mean": None}) == "–"
    assert seconds_words({"seconds": 12.4, "resumed": True}) == "over 12 s"
    assert seconds_words({"seconds": None, "resumed": False}) == "–"
    assert memory_words({"peak_memory_bytes": 2_500_000_000}) == "2,500 MB"
    assert value_words({"values": {"labels": "10", "size": "small"}}) == "labels 10, size small"
    assert value_words({"values": {}}) == "all"


def test_every_arm_has_a_row_and_the_baseline_no_difference(study: Study):
    for cell in cells_of(study):
        score(study, cell, study_targets(cells_of(study)))
    result = result_of(study, cells_of(study))
    rows = arm_rows(result)
    assert [(at, arm) for at, arm, _, _ in rows] == [
        ("labels 10", "alone"), ("labels 10", "more"), ("labels 20", "alone"), ("labels 20", "more"),
    ]  # fmt: skip
    assert [gap is None for *_, gap in rows] == [True, False, True, False]
    assert header_of(result, "SRCC") == ["at", "arm", "SRCC", "− alone"]
    assert header_of({**result, "baseline": None}, "SRCC") == ["at", "arm", "SRCC"]


def test_a_study_without_a_goal_says_how_far_it_is(study: Study):
    result = result_of(study, cells_of(study))
    assert verdict({**result, "goal": None}) == "0 of 12 runs are done."
