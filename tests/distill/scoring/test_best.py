"""``best`` as a user calls it: on a folder with a burst, a series by time, a lone photograph and a bad file."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from distill.cli import app
from distill.terminal.console import run_cli
from tests.helpers.paired import write_paired
from tests.helpers.pools import photograph
from tests.helpers.typed import write_typed


def pocketiqa(*words: object) -> int:
    return run_cli(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_paired(tmp_path_factory.mktemp("best") / "paired.onnx")


def write(path: Path, rgb: np.ndarray, *, blur: float = 0.0, time: str = "") -> None:
    exif = Image.Exif()
    if time:
        exif.get_ifd(0x8769)[0x9003] = f"2026:11:29 {time}"
    Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(blur)).save(path, quality=95, exif=exif)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    coffee, cat = photograph("coffee"), photograph("cat")
    # The sharp one is the second of the burst, and the first of the series.
    write(tmp_path / "in/a_BURST1.jpg", coffee, blur=2)
    write(tmp_path / "in/a_BURST2.jpg", coffee)
    write(tmp_path / "in/b1.jpg", cat, time="12:00:00")
    write(tmp_path / "in/b2.jpg", cat, blur=2, time="12:00:08")
    write(tmp_path / "in/b3.jpg", cat, time="13:00:00")
    write(tmp_path / "in/c.jpg", photograph("rocket"))
    (tmp_path / "in/d.jpg").write_bytes(b"no picture")
    return tmp_path / "in"


def test_rows_say_groups_ranks_and_confidence(folder: Path, model: Path, capsys: pytest.CaptureFixture[str]):
    words = ("best", "in", "--model", model, "--page", "page.html", "--out")
    assert pocketiqa(*words, "rows.csv") == 1  # for the bad file
    err = capsys.readouterr().err
    assert "6 photographs: 4 in 2 groups of similar ones, 2 alone; 4 kept, 2 not" in err
    assert "1 of 7 images have no score" in err
    with open("rows.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(Path(row["path"]).name, row["group"], row["rank"], row["kept"]) for row in rows] == [
        ("a_BURST2.jpg", "1", "1", "yes"),
        ("a_BURST1.jpg", "1", "2", "no"),
        ("b1.jpg", "2", "1", "yes"),
        ("b2.jpg", "2", "2", "no"),
        ("b3.jpg", "3", "1", "yes"),
        ("c.jpg", "4", "1", "yes"),
        ("d.jpg", "", "", ""),
    ]
    assert rows[0]["wins"] == rows[0]["confidence"]
    assert 0.5 < float(rows[0]["wins"]) < 1
    assert float(rows[0]["wins"]) + float(rows[1]["wins"]) == pytest.approx(1, abs=1e-5)
    assert rows[6]["status"] == "not_an_image"
    page = Path("page.html").read_text()
    assert page.count("<figure") == 4
    assert page.count('class="kept"') == 2
    assert "d.jpg" in page
    # Nothing is replaced unasked, and the same call with other words writes JSON.
    assert pocketiqa(*words, "rows.csv") == 1
    assert "add --overwrite" in capsys.readouterr().err
    assert pocketiqa("best", "in", "--model", model, "--seconds", 4000, "--keep", 2, "--out", "rows.json") == 1
    record = json.loads(Path("rows.json").read_text())
    assert record["groups"] == {"keep": 2, "seconds": 4000.0, "pairs": True}
    assert [row["photographs"] for row in record["rows"]] == [2, 2, 3, 3, 3, 1, None]
    assert [row["kept"] for row in record["rows"]] == ["yes", "yes", "yes", "yes", "no", "yes", None]


def test_the_rest_is_moved_away_and_back(folder: Path, model: Path, capfd: pytest.CaptureFixture[str]):
    os.remove("in/d.jpg")
    assert pocketiqa("best", "in", "--model", model, "--list") == 0
    kept = ["a_BURST2.jpg", "b1.jpg", "b3.jpg", "c.jpg"]
    assert [Path(line).name for line in capfd.readouterr().out.splitlines()] == kept
    words = ("best", "in", "--model", model, "--rest", "--move-to", "poor", "--out")
    assert pocketiqa(*words, "dry.csv", "--dry-run") == 0
    assert len(os.listdir("in")) == 6
    assert pocketiqa(*words, "rows.csv") == 0
    assert sorted(os.listdir("in")) == kept
    assert {"a_BURST1.jpg", "b2.jpg"} < set(os.listdir("poor"))
    assert pocketiqa("undo", "poor") == 0
    assert len(os.listdir("in")) == 6


def test_a_student_without_a_head_ranks_by_scores_and_says_so(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    plain = write_paired(tmp_path / "plain.onnx", with_head=False)
    assert pocketiqa("best", "in", "--model", plain, "--format", "jsonl") == 1
    out, err = capfd.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert Path(rows[0]["path"]).name == "a_BURST2.jpg"
    assert {(row["wins"], row["confidence"]) for row in rows} == {(None, None)}
    assert "has no head on pairs: photographs are ranked by their scores alone" in " ".join(err.split())


def test_what_is_wrong_is_said_unless_it_is_not_wanted(folder: Path, tmp_path: Path):
    words = ("best", "in/a_BURST1.jpg", "in/a_BURST2.jpg", "--model", write_typed(tmp_path / "typed.onnx"))
    assert pocketiqa(*words, "--out", "rows.jsonl", "--page", "page.html") == 0
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    assert list(rows[0])[-2:] == ["type", "strength"]
    assert [row["type"] for row in rows] == ["noise", "noise"]
    assert Path("page.html").read_text().count(", noise ") == 2
    assert pocketiqa(*words, "--no-type", "--out", "plain.csv", "--page", "plain.html") == 0
    assert "strength" not in Path("plain.csv").read_text()
    assert "noise" not in Path("plain.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["in", "--keep", "0"], "--keep is 0, but an integer from 1"),
        (["in", "--seconds", "-1"], "--seconds -1: a time from 0 to 86400 seconds"),
        (["in", "--rest"], "--rest says which photographs are listed"),
        (["in", "--copy-to", "a", "--move-to", "b"], "one of them at a time"),
        (["in", "--dry-run"], "--dry-run shows what --copy-to"),
        (["in", "--list", "--format", "csv"], "--list prints paths and no rows"),
        (["in", "--out", "rows.xyz"], "the ending of rows.xyz names no format"),
        (["in", "--page", "in"], "no regular file, so it is not replaced"),
        ([".", "--workers", "0"], "workers is 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    folder: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert pocketiqa("best", *words) != 0
    assert message in " ".join(capsys.readouterr().err.split())
    assert sorted(os.listdir()) == ["in"]


def test_no_images_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert pocketiqa("best", tmp_path) == 1
    assert "no images in" in capsys.readouterr().err
