"""The result of a comparison on the terminal."""

from copy import deepcopy
from typing import Any

import pytest

from distill.leakage.summary import left_out_lines, overlap_lines, overlap_tables
from distill.terminal.console import as_text
from tests.helpers.near_duplicate_scenes import compass_record


@pytest.fixture
def record() -> dict[str, Any]:
    return compass_record({"a": 5.0, "b": 225.0, "c": 95.0})


def printed(record: dict[str, Any]) -> str:
    return "".join(map(as_text, overlap_tables(record)))


def test_the_closest_pairs_come_first_with_cosine_and_scores(record: dict[str, Any]) -> None:
    lines = [line for line in printed(record).splitlines() if ".png" in line]
    assert [line.split("│")[1].strip() for line in lines] == ["a.png", "c.png", "b.png"]
    assert [cell.strip() for cell in lines[0].split("│")[1:5]] == ["a.png", "east.png", "0.996", "0.90 and 0.90"]


def test_copied_scores_have_an_interval_or_a_reason(record: dict[str, Any]) -> None:
    assert "all images" in printed(record)
    srcc = record["copying"]["models"][0]["selections"]["all"]["metrics"]["srcc"]
    srcc.update(value=0.5, low=0.25, high=0.75)
    assert "0.500 [0.250, 0.750]" in printed(record)
    srcc.update(low=None)
    assert "0.500 " in printed(record)
    srcc.update(value=None, reason="too few [images]")
    assert "none (too few [images])" in printed(record)
    assert "copying" not in printed({**record, "copying": None})


def test_sentences_name_near_duplicates_scenes_and_the_split(record: dict[str, Any]) -> None:
    assert overlap_lines(record) == [
        "2 of 3 images are near duplicates of one of 4 trained ones (trained) by feature 'edges' of layout "
        "(cosine above 0.95)",
        "5 scenes, 2 of them in both sets, the largest of 2 images",
        "no split was made: the trained images are no files with scores",
    ]
    other = deepcopy(record)
    other.update(marked={"marked": 4, "found": 2, "both": 1}, copying=None, copying_reason="no scores")
    other["split"] = {"images": {"train": 2, "test": 3}, "reason": ""}
    assert overlap_lines(other)[1:] == [
        "1 of the 4 that the benchmark marks itself are among them",
        "5 scenes, 2 of them in both sets, the largest of 2 images",
        "copying scores was not measured: no scores",
        "split by scene: 2 train, 3 test",
    ]


def test_images_that_were_not_compared_are_named_with_a_reason(record: dict[str, Any]) -> None:
    assert left_out_lines(record) == []
    record["tested"].update(images=5, compared=3, examples=[{"id": "x", "status": "missing", "reason": "no such file"}])
    assert left_out_lines(record) == ["2 of 5 tested images were not compared, such as x: no such file"]
