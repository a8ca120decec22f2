import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from distill.commands.scoring import FORMATS, score_paths, write_rows
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import read_record
from pseudo_labels.records import Status
from students.runtime import Row
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
