from pathlib import Path

import pytest
import torch
from PIL import Image

from distill.cli import app
from distill.evaluation.predictions import kind_of, open_predictor
from distill.stages.export import export_checkpoint
from distill.terminal.console import run_cli
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.files import sha256_file
from students.base import score_images
from students.runtime import Scorer
from students.storage import save_student
from tests.helpers.little_b7 import settled_student, take_b0, write_checkpoint
from tests.helpers.tiny_students import photographs, tiny_student


def test_a_published_student_is_judged_exported_and_scores_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Around B0; B7 itself takes a minute on one core, 4 GB of memory, and differs by 1e-7 (81 M parameters)."""
    take_b0(monkeypatch)
    published = settled_student(512)
    images = photographs()
    expected = [float(output.score) for output in score_images(published, images)]
    assert max(expected) - min(expected) > 1e-3
    checkpoint = write_checkpoint(published, tmp_path / "published.pth")

    assert kind_of(checkpoint) == "student"
    predictor = open_predictor(checkpoint)
    assert predictor.name == "dp-iqa-b7"
    assert predictor.about["digest"] == sha256_file(checkpoint)
    assert [predictor.score(image, None) for image in images] == pytest.approx(expected, abs=1e-6)

    Image.fromarray(images[0]).save(tmp_path / "photo.png")
    report = export_checkpoint(checkpoint, tmp_path / "b7.onnx", images=[tmp_path / "photo.png"])
    contract = report.contract
    assert (contract.name, contract.backbone, contract.teachers) == ("dp-iqa-b7", "dp-iqa-b7", ())
    assert contract.scale.startswith("MOS / 100 of the set")
    assert contract.meaning == "perceived quality, 0 worst, 1 best"
    (weights,) = contract.data
    assert "DP-IQA's authors" in weights["name"]
    assert weights["licence"].startswith("CC BY-NC-SA 4.0")
    assert weights["digest"] == sha256_file(checkpoint)
    scorer = Scorer(tmp_path / "b7.onnx")
    assert scorer.contract.data == (weights,)
    assert [scorer.score(image).score for image in images] == pytest.approx(expected, abs=1e-4)


def test_a_student_of_ours_keeps_its_teachers_and_data(tmp_path: Path):
    stamp = {"name": "judge", "version": 1, "scale": "0 worst, 1 best"}
    about = {
        "teachers": [stamp],
        "data": [{"name": "0-judge", "labels": "ab12", "pool": "cd34"}],
        "validation": {"n": 3},
    }
    save_student(tiny_student(), tmp_path / "run" / "student", about=about)
    contract = export_checkpoint(tmp_path / "run", tmp_path / "mine.onnx").contract
    assert contract.name == "mine"
    assert contract.scale == "judge: 0 worst, 1 best"
    assert contract.teachers == (stamp,)
    assert contract.data == ({"name": "0-judge", "digest": "ab12", "licence": "as the photographs of its pool"},)
    assert contract.metrics == {"validation": {"n": 3}}
    with pytest.raises(OutputConflictError):
        export_checkpoint(tmp_path / "run", tmp_path / "mine.onnx")


def test_what_holds_no_student_is_not_exported(tmp_path: Path):
    (tmp_path / "broken.pth").write_bytes(b"no archive")
    for path, said in (
        (tmp_path, "holds no finished student"),
        (tmp_path / "broken.pth", "broken.pth is no torch checkpoint"),
    ):
        with pytest.raises(PocketiqaError, match=said) as caught:
            export_checkpoint(path, tmp_path / "out.onnx")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.onnx").exists()


def test_the_command_exports_in_half_and_says_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    student = tiny_student()
    with torch.no_grad():
        student.heads.weight *= 0.05  # random layers magnify rounding as trained ones do not
    save_student(student, tmp_path / "student", about={"name": "mine"})
    whole, half = tmp_path / "whole.onnx", tmp_path / "half.onnx"
    assert run_cli(app, ["export", str(tmp_path), "--out", str(whole)]) == 0
    assert "(limit 1e-04)" in capsys.readouterr().out
    assert run_cli(app, ["export", str(tmp_path), "--half", "--out", str(half)]) == 0
    assert "(limit 1e-02)" in capsys.readouterr().out
    assert half.stat().st_size < 0.7 * whole.stat().st_size
    scores = [[Scorer(path).score(image).score for image in photographs()] for path in (whole, half)]
    assert scores[0] != scores[1]
    assert scores[0] == pytest.approx(scores[1], abs=1e-2)
