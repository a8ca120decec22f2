"""Sections on agreement: the numbers of the evaluation, each beside what it says, and reasons where there is none."""

from dataclasses import replace
from typing import Any

import pytest

from distill.evaluation.evaluate import evaluate
from distill.html.tables import decimals
from distill.report.agreement import METRIC_LABELS, agreement, benchmarks, costs, plots, subsets
from distill.report.content import build_content
from distill.report.inputs import ReportInputs
from tests.helpers.markup import parsed
from tests.helpers.report_sample import STUDENT, TEACHER, predictions, ratings, sample_inputs


def content_of(inputs: ReportInputs | None = None) -> dict[str, Any]:
    return build_content(inputs or sample_inputs())


def text_of(section: Any) -> str:
    return parsed("".join(map(str, section.body))).text


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return content_of()


def test_every_metric_of_every_model_is_shown(content: dict[str, Any]):
    text = text_of(agreement(content))
    for model in content["evaluation"]["models"]:
        for selection in model["selections"].values():
            for metric in METRIC_LABELS:
                assert decimals(selection["metrics"][metric]["value"]) in text
    assert f"Differences to {content['evaluation']['versus']}" in text


def test_images_without_a_score_are_named_with_their_reason(content: dict[str, Any]):
    text = text_of(agreement(content))
    assert "Images without a score" in text
    assert "truncated after 120 of 4096 bytes" in text


def test_a_model_alone_is_compared_with_nothing():
    targets = ratings(60)
    alone = [predictions(STUDENT, "onnx", targets, 0.1, 1)]
    inputs = sample_inputs(
        targets=targets,
        predictions=alone,
        evaluation=evaluate(alone, targets, resamples=50),
        benchmarks=[],
        teacher=None,
    )
    text = text_of(agreement(content_of(inputs)))
    assert "Differences to" not in text
    assert "Images without a score" not in text


def test_subsets_and_their_mean(content: dict[str, Any]):
    section = subsets(content)
    assert section is not None
    text = text_of(section)
    own = content["evaluation"]["models"][1]["selections"][content["evaluation"]["headline"]]
    assert decimals(own["subset_mean"]["metrics"]["srcc"]["value"]) in text
    for name, subset in own["subsets"].items():
        assert name in text
        assert decimals(subset["metrics"]["srcc"]["value"]) in text


def test_a_benchmark_says_what_was_learned_from(content: dict[str, Any]):
    section = benchmarks(content)
    assert section is not None
    text = text_of(section)
    assert "koniq10k" in text
    assert "2 of its images are among those learned from as the same file, 3 as nearly the same picture." in text
    assert benchmarks(content_of(sample_inputs(benchmarks=[]))) is None


def test_only_costs_that_were_measured_have_a_column(content: dict[str, Any]):
    section = costs(content)
    assert section is not None
    assert "peak memory" in text_of(section)
    unmeasured = {name: replace(cost, peak_memory_mb=None) for name, cost in sample_inputs().costs.items()}
    section = costs(content_of(sample_inputs(costs=unmeasured)))
    assert section is not None
    assert "peak memory" not in text_of(section)
    assert costs(content_of(sample_inputs(costs={}))) is None


def test_plots_show_model_and_teacher_and_leave_out_what_has_no_score(content: dict[str, Any]):
    figures = {"n": 118, "mean": 0.0123, "std": 0.1}
    section = plots({**content, "residuals": {STUDENT: figures, TEACHER: {**figures, "n": 120}}})
    assert section is not None
    text = text_of(section)
    assert f"{STUDENT}, n\u00a0=\u00a0118" in text
    assert f"{TEACHER}, n\u00a0=\u00a0120" in text
    assert "n = 118. Mean error 0.012, standard deviation 0.100." in text
