"""The page of a study: curve, table, costs, failures, commands."""

from pathlib import Path

import pytest

from distill.study.cells import cells_of, study_targets
from distill.study.config import Study
from distill.study.page import COLOURS, colour_of, curve, study_page
from distill.study.worker import FAILURE
from tests.helpers.markup import parsed
from tests.helpers.written_study import result_of, score, written_study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return written_study(tmp_path)


def test_the_page_shows_curve_table_costs_failures_and_commands_and_links_nowhere(study: Study):
    cells = cells_of(study)
    targets = study_targets(cells)
    for cell in cells[:-1]:
        score(study, cell, targets)
    cells[-1].recipe.out.mkdir(parents=True)
    (cells[-1].recipe.out / FAILURE).write_text("the <teacher> was ill\n\nTraceback: here\n")
    result = result_of(study, cells)
    page = study_page(result)
    measured = parsed(page)
    assert "http" not in page
    assert not [attributes for _, attributes in measured.tags if {"src", "href"} & set(attributes)]
    assert "SRCC over labels" in measured.text
    assert [attributes["class"] for tag, attributes in measured.tags if tag == "path"] == [
        "band other", "curve other", "band student", "curve student",
    ]  # fmt: skip
    assert "the <teacher> was ill" in measured.text
    assert all(f"again {cell.name}" in measured.text for cell in cells)
    assert "more than 12 s" in measured.text  # of seed 2, which was resumed
    numbers = {attributes["value"] for tag, attributes in measured.tags if tag == "data"}
    assert repr(result["rows"][0]["differences"]["more"]["difference"]) in numbers
    assert page == study_page(result_of(study, cells))


def test_a_study_without_numbers_on_its_axis_shows_differences_in_place_of_a_curve(study: Study):
    cells = cells_of(study)
    for cell in cells:
        score(study, cell, study_targets(cells))
    result = result_of(study, cells)
    for row, name in zip(result["rows"], ("few", "many"), strict=True):
        row["values"] = {"labels": name}
    page = parsed(study_page(result))
    assert "difference in SRCC to alone" in page.text
    assert "SRCC over labels" not in page.text


def test_a_curve_needs_numbers_on_one_axis(study: Study):
    empty = result_of(study, cells_of(study))
    assert curve(empty) is None
    for cell in cells_of(study):
        score(study, cell, study_targets(cells_of(study)))
    result = result_of(study, cells_of(study))
    assert curve(result) is not None
    assert curve({**result, "axes": {**result["axes"], "size": ["1", "2"]}}) is None


def test_a_fifth_arm_has_the_first_colour_again():
    result = {"arms": ["a", "b", "c", "d", "e"]}
    assert [colour_of(result, arm) for arm in result["arms"]] == [*COLOURS, COLOURS[0]]
