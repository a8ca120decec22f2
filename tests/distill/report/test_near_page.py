"""What a page says of images that show what was learned from."""

import json
from pathlib import Path
from typing import Any

import pytest

from distill.report import build_report
from tests.helpers.markup import parsed
from tests.helpers.report_sample import sample_inputs

SRCC = {"value": 0.4375, "low": 0.36, "high": 0.5, "reason": "", "interval_reason": ""}


def near(copying: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "by": {"name": "pocket-m", "kind": "onnx", "feature": "backbone", "identity": {}},
        "above": 0.7,
        "near": 92,
        "trained": {"name": "koniq10k", "images": 4121, "compared": 4121},
        "tested": {"name": "biq2021", "images": 600, "compared": 599},
        "copying": copying,
        "copying_reason": "",
    }


@pytest.mark.parametrize("copying", [None, {"all images": {"n": 599, "srcc": SRCC}}])
def test_near_images_of_a_benchmark_stand_beside_the_equal_ones(tmp_path: Path, copying: dict[str, Any] | None) -> None:
    overlap = {"trained": 9, "tested": 600, "near_distance": 4, "same_file": 0, "near": 2, "ids": [], "examples": []}
    evaluation = {**sample_inputs().evaluation, "overlap": overlap, "near": near(copying)}
    files = build_report(sample_inputs(benchmarks=[evaluation]), tmp_path)
    text = parsed(files.html.read_text("utf-8")).text
    said = "92 of 599 show what was learned from, by feature 'backbone' of pocket-m (cosine above 0.7)"
    assert said + ("." if copying is None else "; copying the score of the nearest gives SRCC 0.438.") in text
    assert json.loads(files.json.read_text("utf-8"))["benchmarks"][0]["near"]["near"] == 92
