"""``frames``: rows, the best frames as files, and a folder that is whole or begun anew."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from distill.cli import app
from distill.scoring import frames as module
from distill.scoring.frames import score_frames, sharpness_of
from distill.scoring.video import Ending, frames_of, interval_of
from distill.terminal.console import run_cli
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.outputs import read_manifest
from students.runtime import Scorer
from tests.helpers.tiny_students import photographs
from tests.helpers.videos import write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "clip.mkv", frames=33)


@pytest.fixture(scope="module")
def made(video: Path) -> tuple[Path, dict[str, Any]]:
    folder = video.parent / "out"
    return folder, score_frames(video, "pocket-s", every="500ms", top=3, out=folder)


def rows_of(folder: Path) -> list[dict[str, str]]:
    return [dict(row) for row in csv.DictReader((folder / "frames.csv").read_text().splitlines())]


def test_each_frame_is_a_row_with_the_score_of_its_pixels(video: Path, made: tuple[Path, dict[str, Any]]):
    folder, summary = made
    rows, scorer = rows_of(folder), Scorer("pocket-s")
    frames = list(frames_of(video, interval_of("500ms"), Ending(), lambda *_: None))
    assert [int(row["frame"]) for row in rows] == [frame.number for frame in frames] == list(range(0, 33, 5))
    for row, frame in zip(rows, frames, strict=True):
        assert float(row["score"]) == pytest.approx(scorer.score(frame.rgb).score, abs=1e-6)
        assert float(row["sharpness"]) == pytest.approx(sharpness_of(frame.rgb), abs=1e-5)
        assert (row["status"], row["model"]) == ("ok", "pocket-s")
    assert (summary["frames"], summary["decoded"], summary["reason"]) == (7, 33, "")


def test_the_best_are_files_with_exactly_their_pixels(video: Path, made: tuple[Path, dict[str, Any]]):
    folder, summary = made
    best = sorted(rows_of(folder), key=lambda row: (-float(row["score"]), int(row["frame"])))[:3]
    assert [one["file"] for one in summary["best"]] == [row["file"] for row in best]
    assert [one["file"] for one in summary["best"]] == sorted(path.name for path in folder.glob("*.png"))
    pixels = {frame.number: frame.rgb for frame in frames_of(video, interval_of("1f"), Ending(), lambda *_: None)}
    for one in summary["best"]:
        np.testing.assert_array_equal(np.asarray(Image.open(folder / one["file"])), pixels[one["frame"]])
    assert sum(bool(row["file"]) for row in rows_of(folder)) == 3


def test_finished_work_is_not_repeated_and_other_settings_are_refused(
    video: Path, made: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
):
    folder, summary = made
    with pytest.raises(OutputConflictError, match="top: 3 -> 2"):
        score_frames(video, "pocket-s", every="500ms", top=2, out=folder)
    monkeypatch.setattr(module, "frames_of", None)  # which nothing may call
    assert score_frames(video, "pocket-s", every="500ms", top=3, out=folder) == summary


def test_a_run_that_was_killed_is_begun_anew(
    video: Path, made: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def killed(*_: Any, **_options: Any) -> Any:
        raise KeyboardInterrupt

    words: dict[str, Any] = {"every": "500ms", "top": 3, "out": tmp_path / "out"}
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_rows", killed)  # when the pictures are there, the table is not
        with pytest.raises(KeyboardInterrupt):
            score_frames(video, "pocket-s", **words)
    assert not read_manifest(tmp_path / "out").complete
    score_frames(video, "pocket-s", **words)
    for name in ("frames.csv", "frames.json", "manifest.json", "01-000020.png"):
        if (made[0] / name).exists():
            assert (tmp_path / "out" / name).read_bytes() == (made[0] / name).read_bytes()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in made[0].iterdir()}


def test_sharpness_falls_with_blur_and_little_with_size():
    image = Image.fromarray(photographs()[2])
    values = [sharpness_of(np.asarray(image.filter(ImageFilter.GaussianBlur(radius)))) for radius in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 3 * values[2]
    large = image.resize((2048, 2048 * image.height // image.width))
    same = image.resize((1024, 1024 * image.height // image.width))
    assert sharpness_of(np.asarray(large)) == pytest.approx(sharpness_of(np.asarray(same)), rel=0.3)


def test_the_sharpest_and_none_at_all(video: Path, tmp_path: Path):
    made = score_frames(video, "pocket-s", every="1s", top=1, by="sharpness", out=tmp_path / "a")
    sharpest = max(rows_of(tmp_path / "a"), key=lambda row: float(row["sharpness"]))
    assert made["best"][0]["frame"] == int(sharpest["frame"])
    assert score_frames(video, "pocket-s", every="2s", top=0, out=tmp_path / "b")["best"] == []
    assert not list((tmp_path / "b").glob("*.png"))


def test_the_command_names_what_went_wrong(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    words = ["--model", "pocket-s", "--every", "1s", "--top", "1"]
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    assert run_cli(app, ["frames", str(cut), *words]) == 1
    said = capsys.readouterr()
    assert "what was read is scored" in said.err
    assert "cut-frames/01-" in said.out
    assert run_cli(app, ["frames", "nothing.mp4", *words]) == 1
    assert "nothing.mp4 does not exist" in capsys.readouterr().err
    assert not (tmp_path / "nothing-frames").exists()


@pytest.mark.parametrize("top", [-1, 101])
def test_a_number_of_frames_that_is_none_is_refused(video: Path, tmp_path: Path, top: int):
    with pytest.raises(PocketiqaError, match="choose 0 to 100"):
        score_frames(video, "pocket-s", every="1s", top=top, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
