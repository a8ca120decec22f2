import csv
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from distill.scoring.row_files import FORMATS
from distill.scoring.score_paths import score_paths
from pseudo_labels.errors import OutputConflictError, PocketiqaError, WriteError
from students.runtime import Reader, Row, Scorer
from students.shipped import model_path
from tests.helpers.rows import read_rows
from tests.helpers.tmpfs import small_disk
from tests.helpers.training import texture
from tests.helpers.typed import write_typed


def _read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return [dict(row) for row in csv.DictReader(file)]


def test_without_a_model_the_one_that_comes_along_scores(tmp_path: Path):
    picture, out = tmp_path / "a.png", tmp_path / "scores.csv"
    Image.fromarray(texture(0, 5, (96, 112))).save(picture)
    written = {}
    for model in (None, "pocket-m", "pocket-s"):
        score_paths([picture], model, recursive=False, workers=1, file_format="csv", out=out, overwrite=True)
        written[model] = out.read_text()
    assert written[None] == written["pocket-m"] != written["pocket-s"]
    types = ",type,strength" if Scorer().contract.types else ""
    assert written[None].startswith(f"path,score,status,reason,model,model_sha256{types}\n")


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json", "parquet"])
def test_each_row_names_the_model_and_its_digest(pictures: Path, tmp_path: Path, ending: str):
    out = tmp_path / f"x.{ending}"
    (pictures / "bad.png").write_bytes(b"no picture")
    score(pictures, out, model="pocket-s")
    rows = read_rows(out, ending)
    ((name, digest),) = {(row["model"], row["model_sha256"]) for row in rows}
    assert (name, digest) == ("pocket-s", Scorer("pocket-s").digest)
    assert model_path("pocket-s").read_bytes().endswith(digest.encode())  # the checksum that the file itself carries
    assert len(rows) == 5


def test_rows_say_what_is_wrong_where_the_model_tells_it(pictures: Path, tmp_path: Path):
    model, out = str(write_typed(tmp_path / "typed.onnx")), tmp_path / "typed.csv"
    (pictures / "bad.png").write_bytes(b"no picture")
    score_paths([pictures], model, out=out, resume=True)
    rows = _read(out)
    assert list(rows[0])[-2:] == ["type", "strength"]
    assert {row["type"] for row in rows} == {"noise", ""}
    assert all((row["strength"] == "") == (row["score"] == "") for row in rows)
    # What was scored is remembered with its damage.
    score_paths([pictures], model, out=out, resume=True)
    assert _read(out) == rows
    plain = tmp_path / "plain.csv"
    score_paths([pictures], model, out=plain, types=False)
    assert list(_read(plain)[0])[-1] == "model_sha256"
    assert [row["score"] for row in _read(plain)] == [row["score"] for row in rows]


@pytest.mark.parametrize("to_file", [False, True])
def test_the_table_says_which_model_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str], to_file: bool):
    picture, out = tmp_path / "a.png", tmp_path / "scores.txt" if to_file else None
    Image.fromarray(texture(0, 5, (96, 112))).save(picture)
    score_paths([picture], None, recursive=False, workers=1, file_format="table", out=out)
    lines = (out.read_text() if out else capsys.readouterr().out).splitlines()
    assert lines[0].strip() == f"scores of pocket-m ({Scorer().digest[:12]}), 0 worst, 1 best"
    types = ["type", "strength"] if Scorer().contract.types else []
    assert lines[1].split() == ["image", "score", *types, "status", "reason"]
    assert len(lines) == 3


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(texture(number, 5, (96, 112))).save(folder / f"{number}.png")
    return folder


def score(folder: Path, out: Path, **options: bool | int | str):
    return score_paths([folder], str(options.pop("model", "pocket-s")), recursive=False, workers=1, out=out, **options)  # type: ignore[arg-type]


def test_the_output_is_tried_before_any_work(tmp_path: Path):
    (tmp_path / "file").touch()
    for out, message in (
        (tmp_path / "file" / "x.csv", "a part of the path is a file"),
        (tmp_path, "is a folder and no regular file"),
        (Path("/proc/none/x.csv"), "cannot be written"),
    ):
        with pytest.raises(WriteError, match=message):
            # The model does not exist either, which would be said first by a command that looks later.
            score(tmp_path, out, model="no such model", file_format="csv")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that are scored from now on."""
    scored_names: list[str] = []
    row = Scorer.row

    def counted(self: Scorer, path: str | os.PathLike[str], read: Reader | None = None) -> Row:
        scored_names.append(Path(path).name)
        return row(self, path, read)

    monkeypatch.setattr(Scorer, "row", counted)
    return scored_names


def test_resume_scores_only_what_is_new_or_changed(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out, whole = tmp_path / "x.csv", tmp_path / "whole.csv"
    (pictures / "bad.png").write_bytes(b"no picture")
    score(pictures, out, resume=True)
    assert [path.name for path in tmp_path.glob(".*")] == [".x.csv.rows"]
    Image.fromarray(texture(9, 5, (96, 112))).save(pictures / "new.png")
    Image.fromarray(texture(8, 5, (90, 112))).save(pictures / "2.png")
    names = scored(monkeypatch)
    score(pictures, out, resume=True)
    assert sorted(names) == ["2.png", "bad.png", "new.png"]  # what had no score is tried again
    score(pictures, whole)
    assert out.read_text() == whole.read_text()
    assert not (tmp_path / ".whole.csv.rows").exists()
    # Rows of files that are not named this time stay, as long as the files are as they were.
    (pictures / "0.png").unlink()
    names.clear()
    score_paths([pictures / "1.png"], "pocket-s", recursive=False, workers=1, out=out, resume=True)
    assert names == []
    assert [Path(str(row["path"])).name for row in _read(out)] == ["1.png", "2.png", "3.png", "new.png"]


def test_resume_refuses_what_it_cannot_know(pictures: Path, tmp_path: Path):
    out = tmp_path / "x.csv"
    score(pictures, out)
    with pytest.raises(OutputConflictError, match=r"cannot be resumed: it was written without --resume.*--overwrite"):
        score(pictures, out, resume=True)
    score(pictures, out, resume=True, overwrite=True)
    with pytest.raises(OutputConflictError, match="its rows are of another model"):
        score(pictures, out, resume=True, model="pocket-m")
    earlier = out.read_text()
    out.write_text(earlier + "a note of mine,,,\n")
    with pytest.raises(OutputConflictError, match="it was changed since"):
        score(pictures, out, resume=True)
    assert out.read_text() == earlier + "a note of mine,,,\n"
    with pytest.raises(PocketiqaError, match="--resume continues a file"):
        score_paths([pictures], None, recursive=False, workers=1, out=None, resume=True)


def test_rows_made_under_other_limits_are_not_used_again(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "x.csv"
    score(pictures, out, resume=True)
    earlier = out.read_text()
    # Each picture has 96 x 112 pixels: all would be refused now.
    with pytest.raises(
        OutputConflictError, match=r"its rows were made with other limits \(--max-pixels\).*--overwrite"
    ):
        score(pictures, out, resume=True, max_pixels=10_000)
    assert out.read_text() == earlier
    # A record without its output, as a killed run leaves it: nothing is refused, and everything is scored again.
    out.unlink()
    names = scored(monkeypatch)
    tally = score(pictures, out, resume=True, max_pixels=10_000)
    assert (tally.rows, tally.scored, len(names)) == (4, 0, 4)
    assert {str(row["status"]) for row in _read(out)} == {"too_large"}
    # Under the same limits the record is continued.
    names.clear()
    score(pictures, out, resume=True, overwrite=True, max_pixels=20_000)
    score(pictures, out, resume=True, max_pixels=20_000)
    assert len(names) == 4


def command(*words: object, limit: Callable[[], None] | None = None, **options: object) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "distill.cli", *map(str, words)]
    return subprocess.Popen(line, stdout=-1, stderr=-1, preexec_fn=limit, **options)  # type: ignore[call-overload]


def test_a_killed_run_is_resumed_and_its_leftovers_are_removed(pictures: Path, tmp_path: Path):
    out, count = tmp_path / "x.csv", 120
    for number in range(4, count):
        os.link(pictures / f"{number % 4}.png", pictures / f"{number}.png")
    with command("score", pictures, "--out", out, "--model", "pocket-s") as first:
        record = tmp_path / ".x.csv.rows"
        while not (record.exists() and record.read_bytes().count(b"\n") > 5):
            assert first.poll() is None
            time.sleep(0.005)
        first.send_signal(signal.SIGKILL)
    lines = record.read_bytes().splitlines()
    assert 5 < len(lines) < count
    record.write_bytes(record.read_bytes() + b'{"cut')
    assert not out.exists()
    assert list(tmp_path.glob(".x.csv.*.tmp"))
    made = score(pictures, out, resume=True)
    assert (made.rows, made.scored) == (count, count)
    assert [path.name for path in tmp_path.glob(".*")] == [".x.csv.rows"]
    score(pictures, tmp_path / "whole.csv")
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_two_at_once_do_not_mix(pictures: Path, tmp_path: Path):
    out = tmp_path / "x.csv"
    sets = [tmp_path / "one", tmp_path / "two"]
    for folder in sets:
        folder.mkdir()
        for number in range(60):
            os.link(pictures / f"{number % 4}.png", folder / f"{folder.name}{number}.png")
    both = [command("score", folder, "--out", out, "--model", "pocket-s") for folder in sets]
    ends = [process.communicate()[1].decode() for process in both]
    (first,) = [number for number, process in enumerate(both) if process.returncode == 0]
    assert both[1 - first].returncode == 1
    assert "another process is writing" in ends[1 - first] or "exists already" in ends[1 - first]
    rows = _read(out)
    assert len(rows) == 60
    assert all(str(row["path"]).startswith(str(sets[first])) for row in rows)
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        (resource.RLIMIT_FSIZE, 100, "x.csv cannot be written: the file is larger than allowed; raise the limit"),
        (resource.RLIMIT_NOFILE, 5, r"too many open files): raise the limit (ulimit -n), or use fewer workers"),
    ],
)
def test_a_limit_of_the_system_is_one_plain_line(pictures: Path, tmp_path: Path, limit: int, value: int, message: str):
    process = command(
        "score", pictures, "--out", tmp_path / "x.csv", limit=lambda: resource.setrlimit(limit, (value, value))
    )
    lines = [line for line in process.communicate()[1].decode().splitlines() if "score (" not in line]
    assert process.returncode == 1
    assert len(lines) == 1
    assert message in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_full_or_read_only_disk_leaves_nothing(pictures: Path, tmp_path: Path, file_format: str):
    with small_disk(tmp_path / "disk", kib=64) as disk:
        (disk / "filler").write_bytes(bytes(60 * 1024))
        many = [pictures / "0.png"] + [pictures / f"{'long' * 50}{number}" for number in range(200)]
        with pytest.raises(WriteError, match="no space left while writing"):
            score_paths(many, None, recursive=False, workers=1, out=disk / "x", file_format=file_format)
        assert [path.name for path in disk.iterdir()] == ["filler"]
        if file_format == "csv":
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            with pytest.raises(WriteError, match="the disk is read-only; choose a folder on another disk"):
                score(pictures, disk / "y.csv")
