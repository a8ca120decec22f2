"""The report's first sentence: true at every value of the SRCC."""

import re
from typing import Any

import pytest

from distill.report.content import build_content, card_headline, headline
from tests.helpers.report_sample import sample_inputs


def content_of(
    value: float | None, low: float | None = None, high: float | None = None, *, source: str = "teacher",
    kind: str = "student", benchmarks: tuple[dict[str, Any], ...] = (),
) -> dict[str, Any]:  # fmt: skip
    srcc = {"value": value, "low": low, "high": high, "reason": "all predictions are equal"}
    model = {"name": "m", "selections": {"all": {"metrics": {"srcc": srcc}}}}
    target = {"name": "biq2021" if source == "opinions" else "labels of t", "source": source}
    evaluation = {"headline": "all", "selections": {"all": {"n": 50}}, "models": [model], "target": target}
    costs = {"m": {"parameters": 2_490_000, "latency_ms_median": 6.42}}
    return {
        "evaluation": evaluation, "model": "m", "kind": kind, "teacher": "t", "costs": costs,
        "benchmarks": list(benchmarks),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1.0, "orders quality almost exactly as its teacher (t) does"),
        (0.95, "orders quality almost exactly as its teacher (t) does"),
        (0.9499, "orders quality much as its teacher (t) does"),
        (0.85, "orders quality much as its teacher (t) does"),
        (0.8499, "orders quality largely as its teacher (t) does"),
        (0.7, "orders quality largely as its teacher (t) does"),
        (0.6999, "orders quality roughly as its teacher (t) does"),
        (0.5, "orders quality roughly as its teacher (t) does"),
        (0.4999, "orders quality only faintly as its teacher (t) does"),
        (0.0001, "orders quality only faintly as its teacher (t) does"),
        (0.0, "does not measurably order quality as its teacher (t) does"),
        (-0.0001, "orders quality against its teacher (t)"),
        (-0.27, "orders quality against its teacher (t)"),
        (-1.0, "orders quality against its teacher (t)"),
    ],
)
def test_every_value_has_its_sentence(value: float, words: str):
    sentence = headline(content_of(value))
    assert sentence.startswith(f"On 50 held-out images, m {words}: SRCC ")
    assert sentence.endswith(" It needs 2.49 M parameters and 6.42 ms an image.")


@pytest.mark.parametrize("value", [0.3, -0.3, 0.9])
def test_an_interval_around_zero_is_chance_whatever_the_value(value: float):
    words = "does not measurably order quality as its teacher (t) does: SRCC"
    assert words in headline(content_of(value, -0.5, 0.95))


def test_an_interval_beside_zero_is_no_chance():
    assert "orders quality only faintly as" in headline(content_of(0.3, 0.1, 0.5))
    assert "orders quality against its teacher" in headline(content_of(-0.3, -0.5, -0.1))


@pytest.mark.parametrize(
    ("value", "low", "high", "words"),
    [
        (0.6, 0.5, 0.7, "agrees with people: SRCC 0.60 (95 % interval 0.50 to 0.70)"),
        (0.1, -0.1, 0.3, "does not measurably agree with people: SRCC 0.10"),
        (-0.6, -0.7, -0.5, "orders quality against people: SRCC \u22120.60"),
    ],
)
def test_ratings_of_people(value: float, low: float, high: float, words: str):
    sentence = headline(content_of(value, low, high, source="opinions"))
    assert f"On 50 held-out images of biq2021, m {words}" in sentence


def test_a_fitted_teacher_is_compared_with_the_labels_by_name():
    sentence = headline(content_of(0.9, kind="teacher"))
    assert "m orders quality much as labels of t does" in sentence


def test_without_a_result_the_reason_is_said():
    sentence = headline(content_of(None))
    assert sentence.startswith(
        "m was tested on 50 images, but its agreement cannot be stated: all predictions are equal."
    )


def test_the_card_leads_with_people_where_there_are_ratings():
    people = content_of(0.76, 0.72, 0.8, source="opinions")["evaluation"]
    content = content_of(0.92, 0.84, 0.93, benchmarks=(people,))
    lead = card_headline(content)
    assert lead.startswith("On 50 held-out images of biq2021, m agrees with people: SRCC 0.76")
    assert lead.index("people") < lead.index("its teacher (t) does")
    assert card_headline(content_of(0.92)) == headline(content_of(0.92))


def test_a_benchmark_names_both_models():
    text = build_content(sample_inputs())["headline"]
    assert re.fullmatch(
        r"On \d+ held-out images of biq2021, pocket-m agrees with people: SRCC 0\.\d\d "
        r"\(95 % interval 0\.\d\d to 0\.\d\d\); its teacher \(fused teacher\) reaches 0\.\d\d\. "
        r"It needs 2\.49 M parameters and 6\.42 ms an image\.",
        text,
    )
