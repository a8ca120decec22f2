"""Training curves: families, the kept step, and what is left out of a chart."""

from typing import Any

import pytest

from distill.report.content import build_content
from distill.report.training import fitting, flat, training
from tests.helpers.markup import parsed
from tests.helpers.report_sample import history, sample_inputs, teacher_inputs


def text_of(section: Any) -> str:
    return parsed("".join(map(str, section.body))).text


def test_nested_numbers_have_dotted_names():
    record = {"step": 3, "kind": "validation", "best": True, "sources": {"a": {"srcc": 0.5, "plcc": float("nan")}}}
    assert flat(record) == {"step": 3.0, "sources.a.srcc": 0.5}


def test_the_kept_step_is_that_of_the_validation():
    section = training(build_content(sample_inputs()))
    assert section is not None
    text = text_of(section)
    kept = next(one for one in history() if one["kind"] == "validation" and one["step"] == 400)
    srcc = kept["sources"]["synthetic"]["srcc"]
    assert f"Kept: the weights of step 400; on validation images of synthetic SRCC {srcc:.3f}, n = 200." in text


@pytest.mark.parametrize("title", ["Agreement on validation images", "Loss", "Terms of the loss", "Learning rate"])
def test_each_family_of_curves_has_its_chart(title: str):
    section = training(build_content(sample_inputs()))
    assert section is not None
    assert title in text_of(section)


def test_one_record_makes_no_curve():
    assert training(build_content(sample_inputs(history=history(1), kept_step=None))) is None
    assert training(build_content(sample_inputs(history=[], kept_step=None))) is None


def test_fittings_name_their_ratings():
    section = fitting(build_content(sample_inputs()))
    assert section is not None
    assert section.title == "Fitting of the teacher"
    assert "0-koniq10k, 7,058 images; Hosu et al." in text_of(section)
    assert fitting(build_content(teacher_inputs())) is None
