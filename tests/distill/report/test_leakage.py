"""The section on overlap: pictures by hash, scenes by features, and what was not compared."""

from typing import Any

from distill.report.content import build_content
from distill.report.inputs import Neighbours
from distill.report.leakage import overlap
from tests.helpers.markup import parsed
from tests.helpers.report_sample import sample_inputs


def text_of(section: Any) -> str:
    return parsed("".join(map(str, section.body))).text


def test_same_files_and_near_pictures_are_counted_and_shown():
    inputs = sample_inputs()
    section = overlap(build_content(inputs), inputs)
    assert section is not None
    text = text_of(section)
    assert "120 test images were looked for among 4,121 training images: 1 found as the same file" in text
    assert "2 as nearly the same picture (difference hash, at most 4 of 64 bits apart)" in text
    assert inputs.targets.ids[3] in text


def test_no_section_where_nobody_looked():
    inputs = sample_inputs(overlap=None)
    assert overlap(build_content(inputs), inputs) is None


def test_a_reason_stands_in_place_of_features():
    names = ("held-out", "koniq10k", "csiq")
    inputs = sample_inputs(
        overlap=None, neighbours=[Neighbours(name, reason="the model was not given") for name in names]
    )
    section = overlap(build_content(inputs), inputs)
    assert section is not None
    text = text_of(section)
    assert text.count("Not compared by features: the model was not given.") == 3
