"""The section on regions: figures with intervals and baselines, pictures, types, and the same in the model card."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from distill.report import build_report
from distill.report.content import build_content
from distill.report.regions import region_results
from tests.helpers.markup import parsed
from tests.helpers.report_sample import STUDENT, regions, sample_inputs


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> str:
    page = build_report(sample_inputs(), tmp_path_factory.mktemp("report")).html.read_text("utf-8")
    match = re.search(r'<section id="regions">.*?</section>', page, re.S)
    assert match
    return match[0]


def rows_of(section: str, first: str) -> list[list[str]]:
    """Texts of the table whose first column has this heading."""
    for table in re.findall(r"<table.*?</table>", section, re.S):
        rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in re.findall(r"<tr>.*?</tr>", table, re.S)]
        texts = [[html.unescape(re.sub("<[^>]+>", " ", cell)).strip() for cell in row] for row in rows]
        if texts[0][0] == first:
            return texts
    raise AssertionError(f"no table of {first!r}")


def test_each_model_has_its_figures_with_interval_and_number(section: str):
    figures = regions().evaluation["sources"]["copies"]["quality"]
    header, student, before, crop, whole = rows_of(section, "quality by")
    assert header[1:] == ["SRCC", "PLCC", "SRCC within a picture", "pointing", "student's gain within a picture"]
    names = [student[0], before[0], crop[0], whole[0]]
    assert names[0] == STUDENT
    assert names[1:] == [
        "the student before it learned",
        "the student's score of the region's crop",
        "the student's score of the whole picture",
    ]
    for row, name in ((student, "student"), (before, "before"), (crop, "crop")):
        for cell, figure in zip(row[1:5], figures["models"][name].values(), strict=True):
            numbers = [float(word.replace("−", "-")) for word in re.findall(r"[−\d.]+", cell)]
            expected = [figure["value"], figure["low"], figure["high"], figure["n"]]
            assert numbers == pytest.approx(expected, abs=6e-4)
    # One score for all regions has no correlation at all: a dash with a reason.
    assert whole[1].startswith("–")
    assert student[5] == ""
    assert before[5].startswith("+")
    assert 'title="it does not exist for these labels"' in section


def test_importance_stands_beside_the_area(section: str):
    _, student, area = rows_of(section, "importance by")
    assert (student[0], area[0]) == (STUDENT, "the area of the region")


def test_examples_show_both_scores_beside_the_label(section: str):
    assert "The 2 with the lowest quality" in section
    assert "The 1 on which it is farthest from the label" in section
    assert section.count('class="pair whole"') == 4
    quality = rows_of(section, "")
    assert quality[1] == ["quality", "0.11", "0.20"]
    assert quality[2] == ["importance", "0.21", "–"]
    pictures = [attributes for name, attributes in parsed(section).tags if name == "img"]
    assert "quality 0.11, label 0.20" in str(pictures[0]["alt"])


def test_types_stand_in_one_order_in_rows_and_columns(section: str):
    header, noise, none, blurred = rows_of(section, "known")
    assert header[1:] == ["n", "noise", "none", "blur"]
    assert noise == ["noise", "7", "7", "0", "0"]
    assert none == ["none", "31", "0", "30", "1"]
    assert blurred == ["gaussian blur", "12", "3", "0", "9"]
    assert "--part:75%" in section


def test_the_model_card_has_the_student_s_figures_and_the_baselines(tmp_path: Path):
    content = build_content(sample_inputs())
    points = region_results(content)
    assert len(points) == 4
    assert points[0].startswith(f"Region quality on copies (test part, 48 regions of 12 pictures), {STUDENT}: SRCC 0.")
    assert points[1].startswith("Beside it, SRCC within a picture of region quality on copies: the student before it ")
    assert "the student's score of the whole picture 0.000 (0.000 to 0.000), n = 12" in points[1]
    card = build_report(sample_inputs(), tmp_path).model_card.read_text("utf-8")
    assert "- Region importance on copies" in card
    assert region_results(build_content(sample_inputs(regions=None))) == []


def test_parts_of_a_source_stand_below_it_for_a_closer_look(tmp_path: Path):
    usual = regions()
    source = usual.evaluation["sources"]["copies"]
    sources = {"copies": source, "copies, one distorted region": source, "copies of others": source}
    inputs = sample_inputs(regions=replace(usual, evaluation={"part": "test", "sources": sources}))
    page = build_report(inputs, tmp_path).html.read_text("utf-8")
    headings = re.findall(r"<h3>(On [^<]*)</h3>", page)
    assert headings == ["On copies", "On copies, one distorted region", "On copies of others"]
    assert "<details><summary>one distorted region</summary><h3>On copies, one distorted region</h3>" in page
    points = region_results(build_content(inputs))
    assert sum(point.startswith("Region quality") for point in points) == 3
    assert sum(point.startswith("Beside it, SRCC within a picture of region quality") for point in points) == 2


def test_files_have_their_names_by_the_alphabet_and_the_page_does_not(tmp_path: Path):
    usual = regions()
    stored = json.loads(json.dumps(usual.evaluation, sort_keys=True))
    files = [
        build_report(sample_inputs(regions=replace(usual, evaluation=one)), tmp_path / str(number))
        for number, one in enumerate((usual.evaluation, stored))
    ]
    assert files[0].html.read_bytes() == files[1].html.read_bytes()
    assert files[0].model_card.read_bytes() == files[1].model_card.read_bytes()


def test_figures_that_this_version_does_not_know_are_shown_by_their_names(tmp_path: Path):
    usual = regions()
    source = usual.evaluation["sources"]["copies"]
    student = {**source["quality"]["models"]["student"], "pointing_at_several": {"value": 0.5, "n": 3, "low": None,
               "high": None, "interval_reason": "3 groups"}}  # fmt: skip
    quality = {**source["quality"], "models": {**source["quality"]["models"], "student": student, "region_head": {}}}
    evaluation = {"part": "validation", "sources": {"copies": {**source, "quality": quality, "importance": {}}}}
    bare = replace(usual, evaluation=evaluation, worst=(), best=(), farthest=(), types={})
    page = build_report(sample_inputs(regions=bare), tmp_path).html.read_text("utf-8")
    assert "pointing at several" in page
    assert "region head" in page
    assert "the validation part" in page
    assert "importance by" not in page
