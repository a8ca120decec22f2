"""``export`` in 8 bits and ``formats``: what they write, and what they refuse."""

from pathlib import Path

import pytest
from PIL import Image

from distill.cli import app
from distill.terminal.console import run_cli
from students.runtime import Scorer
from tests.helpers.formats import require
from tests.helpers.tiny_students import export_tiny, photographs


def pocketiqa(*words: object) -> int:
    return run_cli(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    Image.fromarray(photographs()[0]).save(path)
    return path


def test_a_small_file_is_exported_by_name_and_scores(tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "small.onnx"
    assert pocketiqa("export", "pocket-s", "--format", "onnx-w8", "--images", photo, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "0.87 MB, 0.30 of the float" in printed
    assert "scores as the float student: SRCC " in printed
    assert pocketiqa("score", photo, "--model", out) == 0
    assert Scorer(out).contract.conversion is not None


def test_a_model_of_the_package_in_eight_bits_scores_by_its_name(photo: Path, capsys: pytest.CaptureFixture[str]):
    assert pocketiqa("score", photo, "--model", "pocket-s-int8", "--format", "csv") == 0
    assert "pocket-s-int8" in capsys.readouterr().out


def test_a_folder_of_another_runtime_is_exported_by_name(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
):
    require("openvino")
    words = ("export", "pocket-s", "--format", "openvino", "--images", photo, "--out", tmp_path / "out")
    assert pocketiqa(*words) == 0
    assert "scores as the ONNX file does to" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("contract.json", "manifest.json", "model.bin", "model.xml")
    ]
    assert pocketiqa(*words) == 0
    assert "there already, unchanged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "tflite"), "format 'tflite' is not known: choose one of onnx, onnx-int8, onnx-w8"),
        (("--format", "onnx-w8", "--half"), "not for onnx-w8: leave it out"),
        (("--rated", "csv:x"), "pocket-s is exported already: copy it, or choose another form"),
        (("--format", "onnx-int8", "--calibrate", "nowhere"), "no photographs at nowhere"),
    ],
)
def test_wrong_options_are_refused_before_the_work(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert pocketiqa("export", "pocket-s", *words, "--out", tmp_path / "x.onnx") == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_formats_of_a_student_are_shown_and_written_as_a_page(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
):
    """One that bears no 8 bits: the reason stands where its row would be."""
    student, page = export_tiny(tmp_path / "tiny.onnx").path, tmp_path / "formats.md"
    words = ("formats", student, "--images", photo, "--calibrate", photo, "--page", page)
    assert pocketiqa(*words) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "tiny" in printed
    assert "not measured: onnx-int8 by onnxruntime" in printed
    assert "1 of 1 photographs can be used, but 8 are needed" in printed
    text = page.read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| onnx | onnxruntime"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[3] == "1.0000"
    assert cells[7] == cells[9] == "1.00"
    assert pocketiqa(*words) == 1  # the page exists
    assert text == page.read_text(encoding="utf-8")
