"""Recipes that fit a teacher to real ratings, as a user runs them: with a student after it, and without one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distill.cli import app
from distill.terminal import console
from distill.training.history import read_history
from teachers.registry import build_teacher
from tests.helpers.pools import write_photographs
from tests.helpers.shared import shared_data

RATED = 'fit.sources=[{ratings: "biq2021:$POCKETIQA_SHARED_DATA/biq2021", images: 16}]'
SMALL = (RATED, "fit.steps=2", "fit.batch_size=4", "fit.validate_every_steps=1", "distill.steps=2")
NO_STUDENT = (RATED, *SMALL[1:4], "distill=null", "score=null", "pool=null", "label=null")
STAGES = {
    "sam_iqa_tiny": ("fit", "pool", "labels", "training", "export", "evaluation", "report"),
    "dp_iqa_tiny": ("fit", "pool", "labels", "training", "export", "evaluation", "demonstration", "report"),
}


def pocketiqa(*words: object, settings: tuple[str, ...] = ()) -> int:
    set_words = [word for setting in settings for word in ("--set", setting)]
    return console.run_cli(app, [*map(str, words), *set_words])


def twin_of_page(out: Path) -> dict[str, Any]:
    return json.loads((out / "report" / "report.json").read_text("utf-8"))


def page_of(out: Path) -> str:
    return (out / "report" / "report.html").read_text("utf-8")


@pytest.fixture(scope="module", autouse=True)
def shared() -> Iterator[None]:
    """The variable that the recipes name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCKETIQA_SHARED_DATA", str(shared_data("biq2021").parent))
        yield


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder, images=7, max_side=96)
    return folder


@pytest.fixture(scope="module")
def benchmark(photographs: Path) -> str:
    """Ratings on the photographs."""
    rows = [f"{path},{number / 10}\n" for number, path in enumerate(sorted(photographs.glob("*.png")), start=1)]
    (photographs / "ratings.csv").write_text("image,mos\n" + "".join(rows))
    return f"csv:{photographs / 'ratings.csv'}"


def with_student(photographs: Path, benchmark: str) -> tuple[str, ...]:
    return (*SMALL, f'pool.sources=["{photographs}"]', f'evaluate=[{{ratings: "{benchmark}"}}]')


@pytest.fixture(scope="module", params=list(STAGES))
def finished(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, photographs: Path, benchmark: str
) -> tuple[str, Path]:
    """A recipe with teacher and student, and where it was run."""
    out = tmp_path_factory.mktemp("runs") / request.param
    assert pocketiqa("run", request.param, "--out", out, settings=with_student(photographs, benchmark)) == 0
    return request.param, out


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which only the teacher was fitted."""
    out = tmp_path_factory.mktemp("fitted") / "sam"
    assert pocketiqa("fit-teacher", "sam_iqa_tiny", "--out", out, settings=NO_STUDENT) == 0
    return out


def test_every_stage_runs_and_the_page_tells_of_teacher_and_student(finished: tuple[str, Path]):
    recipe, out = finished
    for folder in STAGES[recipe]:
        assert json.loads((out / folder / "manifest.json").read_text())["complete"], folder
    name, twin, page = recipe.replace("_tiny", ""), twin_of_page(out), page_of(out)
    stamp = build_teacher(str(out / "fit" / "teacher")).stamp
    assert (twin["kind"], twin["teacher"], stamp.name) == ("student", name, name)
    (labelled,) = twin["teachers"]
    assert (labelled["weights"], labelled["scale"]) == (stamp.weights, stamp.scale)
    assert "biq2021" in stamp.scale
    (fitting,) = twin["fitting"]
    assert fitting["history"] == read_history(out / "fit" / "history.jsonl")
    assert fitting["opinions"][0]["images"] == 16
    (predicted,) = twin["benchmarks"]
    assert [model["name"] for model in predicted["models"]] == [twin["model"], name]
    assert all(title in page for title in ("Fitting of the teacher", "On benchmarks", "BIQ2021, Journal of Electronic"))
    assert "http" not in page
    assert all(twin["costs"][name][key] for key in ("parameters", "trained", "latency_ms_median"))
    held_out, of_benchmark = twin["neighbours"]
    assert (held_out["name"], of_benchmark["name"]) == ("Held-out part", "csv")
    assert held_out["reason"] or held_out["tested"]["compared"] >= 2
    assert of_benchmark["tested"]["compared"] == 7
    assert (out / "report" / of_benchmark["folder"] / "groups.csv").is_file()


def test_run_again_skips_everything_and_changes_no_byte(
    finished: tuple[str, Path], photographs: Path, benchmark: str, capsys: pytest.CaptureFixture[str]
):
    recipe, out = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert pocketiqa("run", recipe, "--out", out, settings=with_student(photographs, benchmark)) == 0
    printed = capsys.readouterr().out
    assert printed.count("unchanged, skipped") == len(STAGES[recipe])
    assert str(out / "report" / "report.html") in printed.replace("\n", "")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def test_a_recipe_without_student_ends_with_the_page_of_its_teacher(
    fitted: Path, benchmark: str, capsys: pytest.CaptureFixture[str]
):
    assert sorted(path.name for path in fitted.iterdir()) == ["fit", "fit-opinions"]
    before = (fitted / "fit" / "manifest.json").stat().st_mtime_ns
    settings = (*NO_STUDENT, f'evaluate=[{{ratings: "{benchmark}"}}]')
    assert pocketiqa("run", "sam_iqa_tiny", "--out", fitted, settings=settings) == 0
    printed = capsys.readouterr().out
    assert printed.count("unchanged, skipped") == 1  # the fit
    assert (fitted / "fit" / "manifest.json").stat().st_mtime_ns == before
    assert "report.html" in printed
    assert "model:" not in printed
    twin, page = twin_of_page(fitted), page_of(fitted)
    assert twin["title"] == "sam-iqa-tiny: sam_iqa fitted to ratings of biq2021"
    assert (twin["kind"], twin["teacher"], twin["contract"], twin["fitting"]) == ("teacher", None, None, [])
    split = json.loads((fitted / "fit" / "split.json").read_text())
    assert sorted(twin["points"]["ids"]) == split["ids"]["validation"]
    assert {name: part["images"] for name, part in twin["split"].items()} == {
        name: count for name, count in split["counts"].items() if count
    }
    assert any("No test part was set aside" in note for note in twin["notes"])
    assert "Quality maps" not in page
    neighbours = sum(len(one["pairs"]) for one in twin["neighbours"])
    assert neighbours > 0
    assert twin["neighbours"][1]["copying"]["all images"]["n"] == 7
    assert page.count("<img") == min(12, len(twin["points"]["ids"])) + 2 * neighbours
    assert "# sam-iqa-tiny" in (fitted / "report" / "model_card.md").read_text("utf-8")


def test_what_the_page_says_of_the_teacher_is_what_was_fitted(fitted: Path, benchmark: str):
    settings = (*NO_STUDENT, f'evaluate=[{{ratings: "{benchmark}"}}]')
    assert pocketiqa("run", "sam_iqa_tiny", "--out", fitted, settings=settings) == 0
    twin, teacher = twin_of_page(fitted), build_teacher(str(fitted / "fit" / "teacher"))
    manifest = json.loads((fitted / "fit" / "manifest.json").read_text())
    (stamp,), cost = twin["teachers"], twin["costs"]["sam-iqa-tiny"]
    assert stamp == {**teacher.stamp.as_dict(), "digest": teacher.stamp.digest, "base": vars(teacher)["base"]}
    sizes = {name: value.numel() for name, value in vars(teacher)["model"].named_parameters()}
    assert cost["parameters"] == sum(sizes.values())
    assert 0 < cost["trained"] < cost["parameters"]
    assert cost["trained"] == sum(size for name, size in sizes.items() if not name.startswith("encoder."))
    assert cost["file_bytes"] == (fitted / "fit" / "teacher" / "fitted.safetensors").stat().st_size
    assert twin["kept_step"] == manifest["content"]["step"]
    assert (
        twin["evaluation"]["models"][0]["selections"]["all"]["n"]
        == manifest["content"]["validation"]["sources"]["0-biq2021"]["n"]
    )


def test_a_fitted_teacher_is_evaluated_like_any_model(
    fitted: Path, benchmark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    teacher, out = fitted / "fit" / "teacher", tmp_path / "result.json"
    words = ("evaluate", teacher, "--on", benchmark, "--trained-on", fitted / "fit-opinions" / "0-biq2021")
    assert pocketiqa(*words, "--device", "cpu", "--out", out) == 0
    assert "SRCC" in capsys.readouterr().out
    result = json.loads(out.read_text())
    (model,) = result["models"]
    assert (model["name"], model["kind"], model["coverage"]["scored"]) == ("sam_iqa", "teacher", 7)
    assert result["overlap"]["same_file"] == 0


def test_a_recipe_that_fits_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert pocketiqa("fit-teacher", "quickstart", "--out", tmp_path / "run") == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: recipe 'quickstart' has no section 'fit': choose one that fits a teacher")
    assert not (tmp_path / "run").exists()
