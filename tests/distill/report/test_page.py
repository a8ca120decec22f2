"""The page as a whole: it needs nothing else, shows only what the twin holds, and cannot be injected into."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.evaluation.evaluate import evaluate
from distill.report import Cost, Regions, ReportFiles, build_report
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import ImageError
from pseudo_labels.records import Status
from tests.helpers.markup import parsed
from tests.helpers.report_sample import STUDENT, TEACHER, predictions, ratings, regions, sample_inputs

HOSTILE = "\"><script>alert('x')</script> & \u202egnp|`*.jpg\n# heading"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    return build_report(sample_inputs(), tmp_path_factory.mktemp("report"))


def page_of(files: ReportFiles) -> str:
    return files.html.read_text(encoding="utf-8")


def numbers_in(value: Any) -> set[float]:
    if isinstance(value, dict):
        return set().union(*(numbers_in(one) for one in value.values()))
    if isinstance(value, list):
        return set().union(*(numbers_in(one) for one in value)) if value else set()
    return {float(value)} if isinstance(value, int | float) and not isinstance(value, bool) else set()


def titles(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def test_all_sections_are_there_and_linked(files: ReportFiles) -> None:
    page = page_of(files)
    assert titles(page) == [
        "Agreement",
        "By subset",
        "On benchmarks",
        "Cost",
        "Every image",
        "Training",
        "Fitting of the teacher",
        "Where they disagree most",
        "Quality maps",
        "Regions",
        "Before and after distortion",
        "Overlap of training and test",
        "Where the data comes from",
        "Model card",
        "Repeat it",
    ]
    value = parsed(page).tags
    ids = {attributes["id"] for _, attributes in value if "id" in attributes}
    links = [attributes["href"] for name, attributes in value if name == "a"]
    assert len(links) == 15
    assert all(link and link[0] == "#" and link[1:] in ids for link in links)


def test_page_needs_nothing_but_itself(files: ReportFiles) -> None:
    page = page_of(files)
    assert "http" not in page
    assert "//" not in re.sub(r'"data:image/jpeg;base64,[^"]+"', "", page)
    for name, attributes in parsed(page).tags:
        assert name not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        assert not any(key.startswith("on") for key in attributes)
        source = attributes.get("src")
        assert source is None or source.startswith("data:image/jpeg;base64,")
    assert "@import" not in page
    assert "url(" not in page


def test_every_number_shown_is_in_the_twin(files: ReportFiles) -> None:
    shown = [float(a["value"] or "nan") for name, a in parsed(page_of(files)).tags if name == "data"]
    known = numbers_in(json.loads(files.json.read_text(encoding="utf-8")))
    assert len(shown) > 200
    assert [value for value in shown if value not in known] == []


def test_numbers_read_as_their_values(files: ReportFiles) -> None:
    for value, text in re.findall(r'<data value="([^"]+)">([\d.,+−]+)</data>', page_of(files)):
        digits = len(text.split(".")[1]) if "." in text else 0
        assert float(text.replace("−", "-").replace(",", "")) == pytest.approx(float(value), abs=0.5001 * 10**-digits)


def test_headline_table_shows_the_evaluation(files: ReportFiles) -> None:
    twin = json.loads(files.json.read_text(encoding="utf-8"))
    page = page_of(files)
    for model in twin["evaluation"]["models"]:
        for metric in model["selections"]["clean"]["metrics"].values():
            assert f'value="{metric["value"]!r}"' in page
            assert f'value="{metric["low"]!r}"' in page
    assert twin["headline"] in page


def test_every_picture_and_chart_has_words(files: ReportFiles) -> None:
    value = parsed(page_of(files)).tags
    pictures = [attributes for name, attributes in value if name == "img"]
    charts = [attributes for name, attributes in value if name == "svg"]
    assert len(pictures) == 8 + 4 + 2 * 2 + 3 * 2 + 4 * 2
    assert len(charts) == 1 + 2 + 6 + 4 + 2
    assert all(attributes.get("alt") for attributes in pictures)
    assert all(attributes.get("aria-label") and attributes.get("role") == "img" for attributes in charts)


def test_equal_inputs_give_equal_bytes(files: ReportFiles, tmp_path: Path) -> None:
    again = build_report(sample_inputs(), tmp_path / "deep" / "folder")
    assert again.html.read_bytes() == files.html.read_bytes()
    assert again.json.read_bytes() == files.json.read_bytes()
    assert again.model_card.read_bytes() == files.model_card.read_bytes()


def test_missing_inputs_leave_their_sections_out(tmp_path: Path) -> None:
    targets = replace(ratings(40), subsets=("",) * 40, near_training=(False,) * 40, about={})
    predicted = [predictions(STUDENT, "onnx", targets, 0.1, 1)]
    bare = replace(
        sample_inputs(40),
        targets=targets,
        predictions=predicted,
        evaluation=evaluate(predicted, targets, resamples=20),
        teacher=None,
        benchmarks=(),
        costs={},
        machine="",
        history=(),
        fitting=[],
        load_image=None,
        quality_maps=(),
        distorted=(),
        regions=None,
        pools=(),
        split={},
        teachers=(),
        overlap=None,
        contract=None,
        command="",
        notes=(),
        licence="",
    )
    page = page_of(build_report(bare, tmp_path))
    assert titles(page) == ["Agreement", "Every image", "Where they disagree most", "Model card"]
    assert "None" not in page
    assert "nan" not in page.lower().replace("nanum", "")


def hostile_regions() -> Regions:
    usual = regions()
    example = replace(usual.worst[0], name=HOSTILE, source=HOSTILE, distortion=HOSTILE)
    sources = {HOSTILE: usual.evaluation["sources"]["copies"]}
    return replace(
        usual,
        evaluation={"part": HOSTILE, "sources": sources},
        worst=[example],
        best=[example],
        types={HOSTILE: {HOSTILE: {HOSTILE: 2}}},
    )


def test_hostile_names_stay_text_everywhere(tmp_path: Path) -> None:
    targets = replace(
        ratings(30), ids=(HOSTILE, *ratings(30).ids[1:]), subsets=(HOSTILE, "ss01", "ss02") * 10, name=HOSTILE
    )
    model = f"student {HOSTILE}"
    predicted = [
        predictions(model, HOSTILE, targets, 0.2, 1),
        predictions(HOSTILE, "labels", targets, 0.1, 2, missing=1),
    ]
    predicted[0].scores[0] = 1 - round(float(targets.scores[0]))  # makes the hostile name one that is shown
    inputs = sample_inputs(30)
    attacked = replace(
        inputs,
        title=HOSTILE,
        targets=targets,
        predictions=predicted,
        evaluation=evaluate(predicted, targets, resamples=20),
        model=model,
        teacher=HOSTILE,
        costs={model: Cost(parameters=3), HOSTILE: Cost(parameters=4)},
        machine=HOSTILE,
        distorted=[replace(one, name=HOSTILE, distortion=HOSTILE) for one in inputs.distorted],
        quality_maps=[replace(one, name=HOSTILE) for one in inputs.quality_maps],
        regions=hostile_regions(),
        pools=[
            {"name": HOSTILE, "images": 1, "statuses": {HOSTILE: 1}, "licence": HOSTILE, "distortions": {HOSTILE: 2}}
        ],
        teachers=[dict(inputs.teachers[0]) | {"name": HOSTILE, "scale": HOSTILE, "options": {HOSTILE: HOSTILE}}],
        overlap={
            **(inputs.overlap or {}),
            "examples": [{"tested": HOSTILE, "trained": "a", "trained_name": HOSTILE, "kind": HOSTILE, "bits": 1}],
        },
        command=HOSTILE,
        notes=(HOSTILE,),
        licence=HOSTILE,
        history=[{"step": 1, "loss": 0.5, HOSTILE: 1.0}, {"step": 2, "loss": 0.4, HOSTILE: 0.5}],
    )
    files = build_report(attacked, tmp_path)
    page = parsed(page_of(files))
    assert "script" not in {name for name, _ in page.tags}
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert page.text.count("<script>alert('x')</script>") > 20
    assert "\u202e" not in page_of(files)
    card = files.model_card.read_text(encoding="utf-8")
    literal = [line for line in card.splitlines() if line.startswith("    ")]
    assert len(literal) == 1  # the command: an indented line is code, whatever is in it
    assert "<script>" not in card.replace(literal[0], "").replace("\\<script\\>", "")
    assert "\n# heading" not in card
    json.loads(files.json.read_text(encoding="utf-8"))


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    targets = replace(ratings(30), ids=("bad\udcff.jpg", *ratings(30).ids[1:]))
    predicted = [predictions(STUDENT, "onnx", targets, 0.1, 1)]
    predicted[0].scores[0] = 1 - round(float(targets.scores[0]))
    inputs = replace(
        sample_inputs(30), targets=targets, predictions=predicted, evaluation=evaluate(predicted, targets, resamples=20)
    )
    assert "bad?.jpg" in page_of(build_report(inputs, tmp_path))


def test_a_picture_that_is_gone_leaves_its_scores(tmp_path: Path) -> None:
    def gone(_: str) -> np.ndarray:
        raise ImageError(Status.MISSING, "no such file")

    page = page_of(build_report(sample_inputs(load_image=gone, quality_maps=(), distorted=(), regions=None), tmp_path))
    assert "<img" not in page
    assert "Where they disagree most" in titles(page)


def test_disagreement_is_sorted_by_distance(files: ReportFiles) -> None:
    rows = json.loads(files.json.read_text(encoding="utf-8"))["disagreement"]
    sizes = [abs(row["difference"]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert all(row["difference"] == row["score"] - row["target"] for row in rows)


def test_model_must_have_been_evaluated(tmp_path: Path) -> None:
    with pytest.raises(PocketiqaError, match="student 'other' was not evaluated: the evaluation holds fused teacher"):
        build_report(sample_inputs(model="other"), tmp_path)


def test_model_card_states_results_limits_and_overlap(files: ReportFiles) -> None:
    card = files.model_card.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert headings == [
        "What it is",
        "Intended use",
        "Results",
        "Cost",
        "Training data and teachers",
        "Limits",
        "How to repeat",
    ]
    assert "Night scenes are rare in the training data." in card
    assert "3 of 120 test images were found in the training data." in card
    assert f"{TEACHER} on biq2021" in card
    assert "Licence: Apache-2.0." in card
    page = parsed(page_of(files)).text
    assert "Night scenes are rare in the training data." in page


def test_model_card_admits_what_was_not_examined(tmp_path: Path) -> None:
    card = build_report(sample_inputs(overlap=None), tmp_path).model_card.read_text(encoding="utf-8")
    assert "Overlap of training and test images was not examined." in card
