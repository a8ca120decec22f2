import json
from pathlib import Path

import pytest
from PIL import Image

from distill.cli import app
from distill.terminal import console
from tests.helpers.pools import photograph, write_photographs
from tests.helpers.predictors import write_knowing_student
from tests.helpers.tiny_students import export_tiny


def pocketiqa(*words: object) -> int:
    return console.run_cli(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph, a student that knows it, and one that was never trained."""
    folder = tmp_path_factory.mktemp("stress")
    rgb = photograph("astronaut", 512)
    (folder / "photographs").mkdir()
    Image.fromarray(rgb).save(folder / "photographs" / "astronaut.png")
    write_knowing_student(folder / "knowing.onnx", rgb)
    export_tiny(folder / "tiny.onnx")
    return folder


def test_a_model_that_keeps_the_limits_is_told_so(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert pocketiqa("stress", folder / "photographs", "--short", "--model", folder / "knowing.onnx") == 0
    printed = capsys.readouterr().out
    assert "knowing" in printed
    assert "at least 0.95" in printed
    assert printed.count("│ yes") == 10
    assert "│ no" not in printed
    assert "levels of all distortions" not in printed


def test_one_of_two_that_fails_is_exit_status_1(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_photographs(tmp_path / "five", images=5, max_side=96)
    models = ("--model", folder / "tiny.onnx", "--model", folder / "tiny.onnx")
    assert pocketiqa("stress", tmp_path / "five", *models) == 1
    printed = capsys.readouterr().out
    assert "95 % interval" in printed
    assert "│ no" in printed
    assert printed.count("levels of all distortions, 5 photographs") == 2
    assert "camera_colorfulness" in printed


def test_a_single_photograph_proves_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "stress.json"
    words = ("stress", folder / "photographs" / "astronaut.png", "--short", "--out", out)
    models = ("--model", folder / "knowing.onnx", "--model", folder / "tiny.onnx")
    assert pocketiqa(*words, *models) == 0
    written = json.loads(out.read_text())["models"]
    assert [(model["passed"], model["failed"]) for model in written] == [(True, False), (False, False)]
    printed = capsys.readouterr().out
    assert "pointed at" in printed
    assert "undecided: missed, but by no more than the choice of photographs" in printed
    assert pocketiqa(*words, *models) == 1
    assert "add --overwrite" in capsys.readouterr().err
    assert pocketiqa(*words, "--model", folder / "knowing.onnx", "--overwrite") == 0
    assert [model["model"] for model in json.loads(out.read_text())["models"]] == ["knowing"]


def test_a_folder_without_photographs_is_an_error_of_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert pocketiqa("stress", tmp_path, "--model", folder / "tiny.onnx") == 1
    assert "error: there are no photographs" in capsys.readouterr().err
