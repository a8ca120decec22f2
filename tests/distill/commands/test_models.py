"""``score``, ``evaluate``, ``export`` and the commands of recipes: refusals and exit status."""

import json
from pathlib import Path

import pytest

from distill.cli import app
from distill.terminal.console import run_cli
from tests.helpers.pools import write_photographs


def pocketiqa(*words: object) -> int:
    return run_cli(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder, images=3)
    return folder


def test_version_and_help_end_with_0(capsys: pytest.CaptureFixture[str]):
    assert pocketiqa("--version") == 0
    assert capsys.readouterr().out.startswith("pocketiqa ")
    assert pocketiqa() == 0
    printed = capsys.readouterr().out
    assert printed.index("score") < printed.index("distort") < printed.index("doctor")


def test_score_says_how_many_have_no_score(photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    good = next(photographs.iterdir())
    assert pocketiqa("score", good, bad, "--model", "pocket-s", "--format", "jsonl") == 1
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert [row["status"] for row in rows] == ["ok", "not_an_image"]
    assert "1 of 2 images have no score" in printed.err


def test_evaluate_writes_the_numbers_that_it_shows(photographs: Path, tmp_path: Path):
    lines = [f"{path},{number / 3}" for number, path in enumerate(sorted(photographs.iterdir()))]
    (tmp_path / "rated.csv").write_text("\n".join(["image,mos", *lines]))
    out = tmp_path / "numbers.json"
    words = ("evaluate", "pocket-s", "pocket-m", "--on", f"csv:{tmp_path / 'rated.csv'}", "--out", out)
    assert pocketiqa(*words) == 0
    assert [model["name"] for model in json.loads(out.read_text())["models"]] == ["pocket-s", "pocket-m"]
    assert pocketiqa(*words) == 1  # the file is there already
    assert pocketiqa(*words, "--overwrite") == 0


@pytest.mark.parametrize("command", ["run", "distill", "fit-teacher"])
def test_an_unknown_recipe_lists_the_known(command: str, capsys: pytest.CaptureFixture[str]):
    assert pocketiqa(command, "quickstrat") == 1
    assert "did you mean 'quickstart'" in " ".join(capsys.readouterr().err.split())


def test_what_holds_no_student_is_not_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert pocketiqa("export", tmp_path, "--out", tmp_path / "x.onnx") == 1
    assert "holds no finished student" in " ".join(capsys.readouterr().err.split())


def test_a_folder_without_images_is_an_error_that_says_where_some_are(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no picture")
    assert pocketiqa("score", tmp_path / "empty", "--model", "pocket-s") == 1
    printed = capsys.readouterr()
    assert f"no images in {tmp_path / 'empty'} or below it" in " ".join(printed.err.split())
    assert printed.out == ""
    above, out = tmp_path / "above", tmp_path / "scores.csv"
    write_photographs(above / "below", images=3)
    assert pocketiqa("score", above, "--model", "pocket-s", "--format", "csv", "--out", out) == 1
    assert f"no images in {above} but 3 in its subfolders: add --recursive" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()
    assert pocketiqa("score", above, "--recursive", "--model", "pocket-s", "--format", "csv", "--out", out) == 0


def test_an_empty_folder_among_others_is_named_and_the_others_are_scored(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "empty").mkdir()
    words = ("score", photographs, tmp_path / "empty", photographs, "--model", "pocket-s", "--format", "jsonl")
    assert pocketiqa(*words) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 3
    assert printed.err.count("no images in") == 1
    assert pocketiqa("score", photographs, photographs, "--model", "pocket-s", "--format", "jsonl") == 0
