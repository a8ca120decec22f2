"""``score`` with what follows the rows, and ``undo``, as a user calls them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from distill.cli import app
from distill.scoring.answers import About
from distill.scoring.columns import IMAGE_COLUMNS, Column, Kind
from distill.scoring.sidecars import plain_stars
from distill.terminal.console import run_cli
from pseudo_labels.records import Status
from students.meaning.model_record import ModelName
from students.meaning.population import stars_of_model
from students.runtime import Row, Scorer
from tests.helpers.rows import read_rows
from tests.helpers.training import texture
from tests.test_architecture import ROOT


def pocketiqa(*words: object) -> int:
    return run_cli(app, [str(word) for word in words])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for number in range(5):
        Image.fromarray(texture(number, 5, (64 + 16 * number, 96))).save(tmp_path / "in" / f"{number}.png")
    return tmp_path / "in"


def best(folder: Path) -> list[str]:
    scorer = Scorer("pocket-s")
    return sorted((str(path) for path in Path("in").iterdir()), key=lambda path: -scorer.score(path).score)


def test_a_list_holds_paths_and_nothing_else(folder: Path, capfdbinary: pytest.CaptureFixture[bytes]):
    expected = best(folder)
    assert pocketiqa("score", "in", "--model", "pocket-s", "--top", 2, "--list") == 0
    out, err = capfdbinary.readouterr()
    assert out.decode().splitlines() == expected[:2]
    assert b"2 of 5 images were chosen" in err
    os.rename("in/0.png", os.fsdecode(b"in/new\n\xff.png"))
    assert pocketiqa("score", "in", "--model", "pocket-s", "--list") == 1
    assert b"holds a line end" in capfdbinary.readouterr().err
    assert pocketiqa("score", "in", "--model", "pocket-s", "--list", "-0", "--sort", "worst", "--out", "x.csv") == 0
    names = capfdbinary.readouterr().out.split(b"\0")
    assert sorted(names[:-1]) == sorted(os.fsencode(path) for path in Path("in").iterdir())
    assert len(read_rows(Path("x.csv"), "csv")) == 5


def test_rows_in_a_file_are_the_chosen_ones(folder: Path, capsys: pytest.CaptureFixture[str]):
    expected = best(folder)
    (folder / "bad.png").write_bytes(b"no picture")
    assert pocketiqa("score", "in", "--model", "pocket-s", "--bottom", 3, "--out", "x.jsonl") == 1
    rows = read_rows(Path("x.jsonl"), "jsonl")
    assert [row["path"] for row in rows] == expected[:-4:-1]
    err = capsys.readouterr().err
    assert "1 of 6 images have no score" in err
    assert "3 of 6 images were chosen" in err


def test_what_was_scored_before_is_chosen_again_without_strangers(folder: Path):
    expected = best(folder)
    assert pocketiqa("score", "in", "--model", "pocket-s", "--out", "x.jsonl", "--resume") == 0
    words = ["score", expected[1], expected[3], "--model", "pocket-s", "--out", "x.jsonl", "--resume"]
    assert pocketiqa(*words, "--top", 1) == 0
    assert [row["path"] for row in read_rows(Path("x.jsonl"), "jsonl")] == [expected[1]]
    # Nothing of the record was lost by the choice.
    assert pocketiqa(*words) == 0
    assert len(read_rows(Path("x.jsonl"), "jsonl")) == 5


def test_moved_by_score_and_back_by_undo(folder: Path, capsys: pytest.CaptureFixture[str]):
    expected = best(folder)
    before = sorted(os.listdir(folder))
    words = ["score", "in", "--model", "pocket-s", "--bottom", 2, "--move-to", "bad"]
    assert pocketiqa(*words, "--dry-run") == 0
    err = capsys.readouterr().err
    assert f"would move {expected[-1]} to bad/{Path(expected[-1]).name}" in err
    assert "dry run: nothing was moved" in err
    assert not Path("bad").exists()
    assert pocketiqa(*words) == 0
    assert "2 images were moved to bad; `pocketiqa undo bad` moves them back" in capsys.readouterr().err
    assert sorted(os.listdir("bad")) == sorted([*(Path(path).name for path in expected[-2:]), "pocketiqa-undo.jsonl"])
    assert pocketiqa("undo", "bad", "--dry-run") == 0
    assert "dry run: 2 files would be moved back" in capsys.readouterr().err
    assert pocketiqa("undo", "bad") == 0
    assert sorted(os.listdir(folder)) == before
    assert pocketiqa("undo", "bad") == 1
    assert "no undo file at bad/pocketiqa-undo.jsonl" in capsys.readouterr().err


def test_the_best_of_what_a_killed_run_left_are_not_the_best(folder: Path, capsys: pytest.CaptureFixture[str]):
    words = ["score", "in", "--model", "pocket-s", "--move-to", "out"]
    assert pocketiqa(*words, "--top", 2) == 0
    journal = Path("out/pocketiqa-undo.jsonl")
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    assert pocketiqa(*words, "--top", 2) == 1
    assert "an earlier run was stopped while it moved images to out" in capsys.readouterr().err
    assert len(os.listdir(folder)) == 3
    assert pocketiqa(*words, "--min-score", 0) == 0
    assert os.listdir(folder) == []


def test_stars_of_sidecars_are_those_of_the_model_or_of_the_rows():
    digest = Scorer("pocket-s").digest
    rows = [Row("a", score / 100, Status.OK, "") for score in range(101)]
    of_model = stars_of_model(ModelName("pocket-s", digest))
    assert of_model is not None
    own = About("pocket-s", digest, IMAGE_COLUMNS).stars
    assert [own(row) for row in rows] == [of_model(row.score or 0.0) for row in rows]
    unknown = About("mine", "ab" * 32, IMAGE_COLUMNS).stars
    assert [unknown(row) for row in rows] == [plain_stars(row.score or 0.0) for row in rows]
    column = Column("stars", Kind.WHOLE, lambda row: 3 if (row.score or 0) > 0.5 else None)
    given = About("mine", "ab" * 32, [*IMAGE_COLUMNS, column]).stars
    assert (given(rows[90]), given(rows[10])) == (3, 1)


def test_without_a_score_nothing_is_moved(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "bad.png").write_bytes(b"no picture")
    assert pocketiqa("score", "in", "--model", "pocket-s", "--move-to", "out") == 1
    assert os.listdir(folder) == ["bad.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dry-run"], "--dry-run shows what --copy-to, --move-to"),
        (["--copy-to", "x", "--move-to", "y"], "one of them at a time"),
        (["--copy-to", "in/0.png"], "is a file, but a folder is needed"),
        (["--move-to", "/proc/none"], "/proc/none cannot be written"),
        (["--max-download", "5"], "add --allow-remote"),
        (["--list", "--format", "csv"], "--list prints paths and no csv"),
        (["--top", "0"], "--top 0: a number of images"),
        (["--sort", "size"], "'size' is not one of 'best', 'worst', 'name'"),
    ],
)
def test_words_that_make_no_sense_are_refused_before_scoring(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
):
    assert pocketiqa("score", "in", "--model", "pocket-s", *words) in (1, 2)
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_a_pipe_of_paths_through_two_commands(folder: Path):
    expected = best(folder)
    line = [sys.executable, "-m", "distill.cli", "score", "-", "-0", "--model", "pocket-s", "--top", "1", "--list"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    given = b"".join(os.fsencode(path) + b"\0" for path in Path("in").iterdir())
    done = subprocess.run(line, input=given, env=environment, capture_output=True)
    assert done.stdout == expected[0].encode() + b"\0"
