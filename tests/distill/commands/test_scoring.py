import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pyarrow.parquet as pq
import pytest
from PIL import Image

from distill.commands.models import Format
from distill.commands.scoring import FORMATS, choose_format, score_paths, write_rows
from pseudo_labels import addresses
from pseudo_labels.errors import OutputConflictError, PocketiqaError, WriteError
from pseudo_labels.files import read_record
from pseudo_labels.records import Status
from students.runtime import Row, Scorer
from tests.helpers.tmpfs import small_disk
from tests.helpers.training import texture

ROWS = [
    Row("plain.jpg", 0.25, Status.OK, ""),
    Row('a "quoted",\nname.png', 1 / 3, Status.OK, ""),
    Row("猫.jpg", None, Status.CORRUPT, "cut short"),
    Row("not utf-8 \udcff.jpg", None, Status.MISSING, "no such file"),
]


def _read(path: Path, file_format: str) -> list[dict[str, object]]:
    if file_format == "csv":
        with open(path, newline="", encoding="utf-8") as file:
            return [dict(row) for row in csv.DictReader(file)]
    if file_format == "jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    if file_format == "json":
        return read_record(path, what="scores")["rows"]
    return pq.read_table(path).to_pylist()


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "json", "parquet"])
def test_files_hold_a_record_a_row(tmp_path: Path, file_format: str):
    tally = write_rows(iter(ROWS), file_format, tmp_path / "scores")
    assert (tally.rows, tally.scored) == (4, 2)
    records = _read(tmp_path / "scores", file_format)
    assert [set(record) for record in records] == [{"path", "score", "status", "reason"}] * 4
    assert [record["path"] for record in records[:3]] == [row.path for row in ROWS[:3]]
    assert [record["status"] for record in records] == ["ok", "ok", "corrupt", "missing"]
    assert [record["reason"] for record in records] == ["", "", "cut short", "no such file"]
    assert [record["score"] or None for record in records[2:]] == [None, None]
    assert float(str(records[1]["score"])) == pytest.approx(1 / 3, abs=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores"]


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "table"])
def test_standard_output_gets_the_same(capsys: pytest.CaptureFixture[str], file_format: str):
    write_rows(iter(ROWS), file_format, None)
    printed = capsys.readouterr().out
    assert "plain.jpg" in printed
    assert "0.25" in printed
    assert "cut short" in printed


def test_no_rows_give_a_valid_file(tmp_path: Path):
    for file_format in FORMATS:
        write_rows(iter(()), file_format, tmp_path / file_format)
    assert (tmp_path / "csv").read_text() == "path,score,status,reason\n"
    assert _read(tmp_path / "parquet", "parquet") == []


def test_an_interrupted_run_leaves_no_half_file_under_the_name(tmp_path: Path):
    def rows():
        yield ROWS[0]
        raise KeyboardInterrupt

    (tmp_path / "scores.csv").write_text("earlier")
    with pytest.raises(KeyboardInterrupt):
        write_rows(rows(), "csv", tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text() == "earlier"


@pytest.mark.parametrize(("file_format", "message"), [("xml", "'xml'.*table, csv, jsonl"), ("parquet", "--out")])
def test_a_format_that_cannot_be_written_is_refused_before_scoring(file_format: str, message: str):
    def rows():
        raise AssertionError("scored already")
        yield

    with pytest.raises(PocketiqaError, match=message):
        write_rows(rows(), file_format, None)


def test_without_a_model_the_one_that_comes_along_scores(tmp_path: Path):
    picture, out = tmp_path / "a.png", tmp_path / "scores.csv"
    Image.fromarray(texture(0, 5, (96, 112))).save(picture)
    written = {}
    for model in (None, "pocket-m", "pocket-s"):
        score_paths([picture], model, recursive=False, workers=1, file_format="csv", out=out, overwrite=True)
        written[model] = out.read_text()
    assert written[None] == written["pocket-m"] != written["pocket-s"]
    assert written[None].startswith("path,score,status,reason\n")


@pytest.mark.parametrize("to_file", [False, True])
def test_the_table_says_which_model_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str], to_file: bool):
    picture, out = tmp_path / "a.png", tmp_path / "scores.txt" if to_file else None
    Image.fromarray(texture(0, 5, (96, 112))).save(picture)
    score_paths([picture], None, recursive=False, workers=1, file_format="table", out=out)
    lines = (out.read_text() if out else capsys.readouterr().out).splitlines()
    assert lines[0].strip() == "scores of pocket-m, 0 worst, 1 best"
    assert lines[1].split() == ["image", "score", "status", "reason"]
    assert len(lines) == 3


ODD_NAMES = [
    "=1+1.png", "+a.png", "-a.png", "@a.png", "\ttab.png", "cr\rx.png", "new\nline.png", "\r", "both\r\n.png",
    'quote".png', "a,b.png", " space ", "'.png", "esc\x1b[31m.png", "c1\x9b.png", "a:x:b.png", "[red]b.png", "猫.png",
    os.fsdecode(b"not utf-8 \xff.png"), os.fsdecode(b"\xe9,\r.png"),
]  # fmt: skip


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "json", "parquet"])
def test_every_name_comes_back(tmp_path: Path, file_format: str):
    write_rows((Row(name, 0.5, Status.OK, "") for name in ODD_NAMES), file_format, tmp_path / "scores")
    read = [str(record["path"]) for record in _read(tmp_path / "scores", file_format)]
    by_address = [addresses.local_path(path) if path.startswith("file://") else path for path in read]
    # A name that is not UTF-8 is written as an address, which has the absolute path.
    expected = [name if name.isascii() or name.isprintable() else Path.cwd() / name for name in ODD_NAMES]
    assert [Path(str(path)).name for path in by_address] == [Path(str(path)).name for path in expected]
    (tmp_path / "scores").read_bytes().decode() if file_format != "parquet" else None


def test_a_spreadsheet_finds_no_formula(tmp_path: Path):
    write_rows((Row(name, 0.5, Status.OK, "") for name in ODD_NAMES), "csv", tmp_path / "plain.csv")
    write_rows((Row(name, 0.5, Status.OK, "") for name in ODD_NAMES), "csv", tmp_path / "safe.csv", excel_safe=True)
    plain, safe = ([str(row["path"]) for row in _read(tmp_path / name, "csv")] for name in ("plain.csv", "safe.csv"))
    assert [name for name in plain if name.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))] == [
        *ODD_NAMES[:5],
        "\r",
    ]
    assert [name.removeprefix("'") if was[:1] != "'" else name for was, name in zip(plain, safe, strict=True)] == plain
    assert not [name for name in safe if name.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]
    with pytest.raises(PocketiqaError, match="--excel-safe is for csv and not for jsonl"):
        write_rows(iter(()), "jsonl", None, excel_safe=True)


@pytest.mark.parametrize(
    ("file_format", "name", "chosen"),
    [
        (None, None, "table"),
        ("csv", None, "csv"),
        (None, "a.csv", "csv"),
        (None, "a.b.CSV", "csv"),
        (None, "a.jsonl", "jsonl"),
        (None, "a.json", "json"),
        (None, "a.Parquet", "parquet"),
        (None, "a.txt", "table"),
        ("csv", "a.dat", "csv"),
        ("csv", "a", "csv"),
        ("jsonl", "a.jsonl", "jsonl"),
        ("csv", "a.parquet", "contradicts the ending of a.parquet"),
        ("jsonl", "a.json", "contradicts the ending of a.json"),
        ("table", "a.csv", "contradicts"),
        (None, "a.dat", "the ending of a.dat names no format"),
        (None, "a", "names no format: use .txt, .csv"),
        ("xml", "a.csv", "unknown format 'xml'"),
    ],
)
def test_the_ending_names_the_format(file_format: str | None, name: str | None, chosen: str):
    out = None if name is None else Path(name)
    if chosen in FORMATS:
        assert choose_format(file_format, out) == chosen
    else:
        with pytest.raises(PocketiqaError, match=chosen):
            choose_format(file_format, out)


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

    def counted(self: Scorer, path: str | os.PathLike[str]) -> Row:
        scored_names.append(Path(path).name)
        return row(self, path)

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
    assert [Path(str(row["path"])).name for row in _read(out, "csv")] == ["1.png", "2.png", "3.png", "new.png"]


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
    assert {str(row["status"]) for row in _read(out, "csv")} == {"too_large"}
    # Under the same limits the record is continued.
    names.clear()
    score(pictures, out, resume=True, overwrite=True, max_pixels=20_000)
    score(pictures, out, resume=True, max_pixels=20_000)
    assert len(names) == 4


def test_the_command_line_offers_all_formats():
    assert get_args(Format) == FORMATS


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
    rows = _read(out, "csv")
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
