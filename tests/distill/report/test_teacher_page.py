"""The page of a fitted teacher, and what a page says of benchmarks and of the fitting of a student's teacher."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill.report import Fitting, ReportFiles, build_report
from distill.report.content import build_content
from tests.helpers.markup import parsed
from tests.helpers.report_sample import RATED, TEACHER, benchmark, history, sample_inputs, teacher_inputs

HOSTILE = "\"><script>alert('x')</script>|`*"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    return build_report(teacher_inputs(), tmp_path_factory.mktemp("report"))


def page_of(files: ReportFiles) -> str:
    return files.html.read_text(encoding="utf-8")


def section(page: str, id: str) -> str:
    match = re.search(rf'<section id="{id}">(.*?)</section>', page, re.DOTALL)
    assert match, id
    return match[1]


def test_a_teacher_has_every_section_that_is_not_a_students_own(files: ReportFiles) -> None:
    page = page_of(files)
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        "Agreement",
        "By subset",
        "Cost",
        "Every image",
        "Training",
        "Where they disagree most",
        "Where the data comes from",
        "Model card",
        "Repeat it",
    ]
    assert "student" not in parsed(re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)).text.replace(
        "small students", ""
    )
    assert f"{TEACHER} agrees with people: SRCC" in page


def test_it_is_drawn_in_the_colour_of_teachers(files: ReportFiles) -> None:
    plots = section(page_of(files), "plots") + section(page_of(files), "training")
    assert 'class="dot teacher"' in plots
    assert not re.search(r'class="(dot|curve|outline|end) student"', plots)


def test_every_number_shown_is_in_the_twin(files: ReportFiles) -> None:
    twin = files.json.read_text(encoding="utf-8")
    known = {float(measured) for measured in re.findall(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", twin)}
    shown = [float(a["value"] or "nan") for name, a in parsed(page_of(files)).tags if name == "data"]
    assert len(shown) > 80
    assert [value for value in shown if value not in known] == []


def test_the_kept_step_is_told_and_marked_on_the_chart_of_validation(files: ReportFiles) -> None:
    training = section(page_of(files), "training")
    kept = next(one for one in history() if one["kind"] == "validation" and one["step"] == 250)
    srcc = kept["sources"]["synthetic"]["srcc"]
    assert (
        f'step <data value="250">250</data>; on validation images of <b>synthetic</b> SRCC <data value="{srcc!r}"'
        in (training)
    )
    charts = re.findall(r"<svg.*?</svg>", training, re.DOTALL)
    assert [">kept</text>" in chart for chart in charts] == [True, False, False, False]
    (line,) = re.findall(r'<line x1="([\d.]+)" x2="([\d.]+)" y1="[\d.]+" y2="[\d.]+" class="even">', charts[0])
    ticks = dict(re.findall(r'<text x="([\d.]+)" y="[\d.]+" class="tick middle">(\d+)</text>', charts[0]))
    (first, low), (last, high) = [(float(x), int(step)) for x, step in ticks.items()][:: len(ticks) - 1]
    assert line[0] == line[1]
    assert float(line[0]) == pytest.approx(first + (250 - low) / (high - low) * (last - first), abs=0.2)


def test_stamp_costs_and_terms_of_a_fitted_teacher(files: ReportFiles) -> None:
    text, card = page_of(files), files.model_card.read_text(encoding="utf-8")
    (stamp,) = json.loads(files.json.read_text(encoding="utf-8"))["teachers"]
    for key in ("weights", "base", "digest"):
        assert f'title="{stamp[key]}"' in text
        assert stamp[key][:16] in card
    assert "frozen base" in section(text, "data")
    assert 'value="4100000">4.1 M</data>' in section(text, "cost")
    assert "4.1 M of them fitted to ratings" in card
    assert "Scale: MOS of KonIQ-10k, 0 worst, 1 best." in card
    assert "Licence: research." in card
    assert "7,058 images; licence: Hosu et al.: KonIQ-10k, 2020; research." in card
    assert "No test part was set aside." in card
    assert "Distilled from" not in card


def test_the_closest_images_stand_beside_the_farthest() -> None:
    content = build_content(teacher_inputs())
    far, close = ([abs(row["difference"]) for row in content[name]] for name in ("disagreement", "closest"))
    assert (len(far), len(close)) == (8, 4)
    assert close == sorted(close)
    scores, targets = content["points"]["scores"][TEACHER], content["points"]["targets"]
    errors = sorted(abs(score - target) for score, target in zip(scores, targets, strict=True))
    assert close == errors[:4]
    assert far == errors[:-9:-1]


def test_no_image_is_shown_twice_where_there_are_few() -> None:
    few = teacher_inputs()
    few = replace(few, predictions=[replace(few.predictions[0], ids=few.targets.ids[:10])])
    content = build_content(few)
    assert len(content["disagreement"]) == 8
    assert len(content["closest"]) == 2
    assert not {row["at"] for row in content["closest"]} & {row["at"] for row in content["disagreement"]}


def test_both_models_stand_in_the_table_of_each_benchmark(tmp_path: Path) -> None:
    files = build_report(sample_inputs(), tmp_path)
    page, card = page_of(files), files.model_card.read_text(encoding="utf-8")
    shown = section(page, "benchmarks")
    assert re.findall(r"<h3>(koniq10k|csiq)</h3>", shown) == ["koniq10k", "csiq"]
    twin = json.loads(files.json.read_text(encoding="utf-8"))
    for evaluation in twin["benchmarks"]:
        for model, css in zip(evaluation["models"], ("student", "teacher"), strict=True):
            srcc = model["selections"][evaluation["headline"]]["metrics"]["srcc"]["value"]
            assert f'<i class="key {css}"></i>{model["name"]}' in shown
            assert f'value="{srcc!r}"' in shown
            clean = ", clean images" if len(model["selections"]) > 1 else ""
            assert f"{model['name']} on {evaluation['target']['name']}{clean}, n = " in card
    assert "3</data> as nearly the same picture" in shown
    assert shown.index("Clean images") < shown.index("All images")
    cited = section(page, "data")
    assert all(f"Ahmed, Asif: {name}, 2022" in cited for name in ("BIQ2021", "KONIQ10K", "CSIQ"))
    tiles = [tile for tile in twin["tiles"] if tile["label"] == "Benchmark"]
    assert [tile["value"] for tile in tiles] == [
        value["models"][0]["selections"][value["headline"]]["metrics"]["srcc"]["value"] for value in twin["benchmarks"]
    ]


def test_a_fitted_teacher_keeps_its_colour_under_another_name(tmp_path: Path) -> None:
    benchmark_data = benchmark()
    benchmark_data["models"] = [{**benchmark_data["models"][1], "name": "sam_iqa"}]
    benchmark_data["versus"] = "sam_iqa"
    files = build_report(teacher_inputs(benchmarks=[benchmark_data]), tmp_path)
    assert '<i class="key teacher"></i>sam_iqa' in section(page_of(files), "benchmarks")
    tile = json.loads(files.json.read_text(encoding="utf-8"))["tiles"][1]
    assert tile["value"] == benchmark_data["models"][0]["selections"]["clean"]["metrics"]["srcc"]["value"]


def test_the_page_of_a_student_tells_how_its_teacher_was_fitted(tmp_path: Path) -> None:
    page = page_of(build_report(sample_inputs(), tmp_path))
    fitting = section(page, "fitting")
    kept = next(one for one in history(20) if one["kind"] == "validation" and one["step"] == 150)
    assert f'SRCC <data value="{kept["sources"]["synthetic"]["srcc"]!r}"' in fitting
    assert 'n = <data value="200">200</data>' in fitting
    assert f'<data value="{RATED["images"]}">7,058</data> images; Hosu et al.: KonIQ-10k, 2020; research' in fitting
    assert fitting.count("<svg") == 2
    assert ">kept</text>" in fitting


def test_hostile_names_stay_text_in_the_fitting_and_the_benchmarks(tmp_path: Path) -> None:
    benchmark_data = benchmark()
    benchmark_data["target"] = {**benchmark_data["target"], "name": HOSTILE}
    benchmark_data["models"] = [{**benchmark_data["models"][0], "name": HOSTILE, "kind": HOSTILE}]
    benchmark_data["versus"] = HOSTILE
    records: list[dict[str, Any]] = [
        {**one, "sources": {HOSTILE: one["sources"]["synthetic"]}} if one["kind"] == "validation" else one
        for one in history(20)
    ]
    fitted = Fitting(HOSTILE, records, 150, [{**RATED, "name": HOSTILE, "licence": HOSTILE}])
    page = page_of(build_report(sample_inputs(benchmarks=[benchmark_data], fitting=[fitted]), tmp_path))
    assert "script" not in {name for name, _ in parsed(page).tags}
    for id in ("benchmarks", "fitting"):
        assert parsed(section(page, id)).text.count("<script>alert('x')</script>") > 2


@pytest.mark.parametrize(("device", "described"), [(None, True), ("NVIDIA H200", False)])
def test_speeds_on_different_devices_are_not_compared(device: str | None, described: bool) -> None:
    inputs = sample_inputs()
    costs = {**inputs.costs, TEACHER: replace(inputs.costs[TEACHER], device=device)}
    tiles = build_content(replace(inputs, costs=costs))["tiles"]
    assert ("Speed" in [tile["label"] for tile in tiles]) is described
