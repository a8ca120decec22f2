"""The model card: people first, then the teacher; shipped cards are those that the code writes."""

import re
from pathlib import Path

import pytest

from distill.report.content import build_content
from distill.report.model_card import card, to_markdown
from students.shipped import FOLDER, NAMES
from tests.helpers.report_sample import sample_inputs


def test_results_begin_with_ratings_of_people():
    content = build_content(sample_inputs())
    results = next(part for part in card(content) if part.title == "Results").points
    rated = [number for number, point in enumerate(results) if " on biq2021" in point]
    assert rated
    assert rated == list(range(len(rated)))


def test_text_is_escaped_and_commands_are_literal():
    content = build_content(sample_inputs()) | {"model": "a_b*c", "command": "pocketiqa run *"}
    text = to_markdown(content, card(content))
    assert text.startswith("# a\\_b\\*c\n")
    assert "    pocketiqa run *" in text


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_card_leads_with_people(name: str):
    text = (Path(FOLDER) / f"{name}.md").read_text(encoding="utf-8")
    lead = text.split("\n")[2]
    first = re.search(r"^On (\d+) held-out images of biq2021, .* agrees with people: SRCC (0\.\d\d) ", lead)
    assert first is not None
    results = text.split("## Results")[1].split("##")[0].strip().split("\n")
    stated = re.search(rf"on biq2021, clean images, n = {first[1]}: SRCC (0\.\d+)", results[0])
    assert stated is not None
    assert f"{float(stated[1]):.2f}" == first[2]
    # Agreement with a teacher, where it was measured, comes after that with people.
    assert [line for line in results[:-1] if "on labels of" in line] == []
