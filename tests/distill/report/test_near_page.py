"""What a page says of images that show what was learned from."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from distill.leakage.extractors import open_extractor
from distill.leakage.find import find_near_duplicates
from distill.leakage.image_sets import evaluation_image_set, training_image_set
from distill.report import Neighbours, build_report
from tests.helpers.markup import parsed
from tests.helpers.near_duplicate_scenes import rated_scenes
from tests.helpers.report_sample import sample_inputs, teacher_inputs

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


def test_the_section_shows_what_was_found_and_says_why_nothing_was(tmp_path: Path) -> None:
    trained, tested = rated_scenes(tmp_path)
    sides = training_image_set(trained), evaluation_image_set(tested)
    record = find_near_duplicates(*sides, open_extractor(), tmp_path / "near", above=0.5)
    section_data = Neighbours("Held-out part", record, sides[0].images, sides[1].images, "../evaluation/near-held-out")
    neighbours = [
        section_data,
        Neighbours("koniq10k", reason="the recipe says near: null"),
        Neighbours("csiq", reason="none"),
    ]
    files = build_report(sample_inputs(neighbours=neighbours), tmp_path / "report")
    page = files.html.read_text("utf-8")
    (section,) = re.findall(r'<section id="overlap">.*?</section>', page, re.DOTALL)
    seen, twin = parsed(section), files.json.read_text("utf-8")
    assert "3 of 4 images are near duplicates of one of 6 trained ones (trained)" in seen.text
    assert "Not compared by features: the recipe says near: null." in seen.text
    copying, predicted = (json.loads(twin)[key] for key in ("neighbours", "evaluation"))
    metrics = [copying[0]["copying"]["all images"]["srcc"]]
    selections = [model["selections"][name] for model in predicted["models"] for name in ("all", "clean")]
    metrics += [selection["metrics"]["srcc"] for selection in selections]
    assert all(f'value="{metric["value"]!r}"' in section for metric in metrics)
    assert all(value in twin for value in re.findall(r'<data value="([^"]+)"', section))
    # Four scenes are tested, and each has a pair of pictures.
    assert [name for name, _ in seen.tags].count("img") == 2 * 4
    links = [attributes["href"] for name, attributes in seen.tags if name == "a"]
    files_of = ["groups.csv", "split.csv", "overlap.html"]
    assert links == [f"../evaluation/near-held-out/{file}" for file in files_of]
    assert all((tmp_path / "near" / file).is_file() for file in files_of)
    assert "Held-out part: 3 of 4 images are near" in files.model_card.read_text("utf-8")
    assert "http" not in page


def test_without_images_left_out_no_table_repeats_itself(tmp_path: Path) -> None:
    trained, tested = rated_scenes(tmp_path)
    sides = training_image_set(trained), evaluation_image_set(tested)
    record = find_near_duplicates(*sides, open_extractor(), tmp_path / "near", above=1.0)
    section_data = Neighbours("Held-out part", record, sides[0].images, sides[1].images, "near")
    files = build_report(teacher_inputs(neighbours=[section_data]), tmp_path / "report")
    text = parsed(files.html.read_text("utf-8")).text
    assert "0 of 4 images are near" in text
    assert "each figure of this page is of all images" in text
