import os
from pathlib import Path
from typing import get_args

import pytest

from distill.commands.options import Format
from distill.scoring.columns import Layout
from distill.scoring.row_files import FORMATS, choose_format, write_rows
from pseudo_labels import addresses
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.records import Status
from students.runtime import Row
from tests.helpers.rows import read_rows

ROWS = [
    Row("plain.jpg", 0.25, Status.OK, ""),
    Row('a "quoted",\nname.png', 1 / 3, Status.OK, ""),
    Row("猫.jpg", None, Status.CORRUPT, "cut short"),
    Row("not utf-8 \udcff.jpg", None, Status.MISSING, "no such file"),
]


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "json", "parquet"])
def test_files_hold_a_record_a_row(tmp_path: Path, file_format: str):
    tally = write_rows(iter(ROWS), file_format, tmp_path / "scores")
    assert (tally.rows, tally.scored) == (4, 2)
    records = read_rows(tmp_path / "scores", file_format)
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
    assert read_rows(tmp_path / "parquet", "parquet") == []


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


ODD_NAMES = [
    "=1+1.png", "+a.png", "-a.png", "@a.png", "\ttab.png", "cr\rx.png", "new\nline.png", "\r", "both\r\n.png",
    'quote".png', "a,b.png", " space ", "'.png", "esc\x1b[31m.png", "c1\x9b.png", "a:x:b.png", "[red]b.png", "猫.png",
    os.fsdecode(b"not utf-8 \xff.png"), os.fsdecode(b"\xe9,\r.png"),
]  # fmt: skip


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "json", "parquet"])
def test_every_name_comes_back(tmp_path: Path, file_format: str):
    write_rows((Row(name, 0.5, Status.OK, "") for name in ODD_NAMES), file_format, tmp_path / "scores")
    read = [str(record["path"]) for record in read_rows(tmp_path / "scores", file_format)]
    by_address = [addresses.local_path(path) if path.startswith("file://") else path for path in read]
    # A name that is not UTF-8 is written as an address, which has the absolute path.
    expected = [name if name.isascii() or name.isprintable() else Path.cwd() / name for name in ODD_NAMES]
    assert [Path(str(path)).name for path in by_address] == [Path(str(path)).name for path in expected]
    (tmp_path / "scores").read_bytes().decode() if file_format != "parquet" else None


def test_a_spreadsheet_finds_no_formula(tmp_path: Path):
    write_rows((Row(name, 0.5, Status.OK, "") for name in ODD_NAMES), "csv", tmp_path / "plain.csv")
    write_rows(
        (Row(name, 0.5, Status.OK, "") for name in ODD_NAMES),
        "csv",
        tmp_path / "safe.csv",
        layout=Layout(excel_safe=True),
    )
    plain, safe = (
        [str(row["path"]) for row in read_rows(tmp_path / name, "csv")] for name in ("plain.csv", "safe.csv")
    )
    assert [name for name in plain if name.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))] == [
        *ODD_NAMES[:5],
        "\r",
    ]
    assert [name.removeprefix("'") if was[:1] != "'" else name for was, name in zip(plain, safe, strict=True)] == plain
    assert not [name for name in safe if name.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]
    with pytest.raises(PocketiqaError, match="--excel-safe is for csv and not for jsonl"):
        write_rows(iter(()), "jsonl", None, layout=Layout(excel_safe=True))


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


def test_the_command_line_offers_all_formats():
    assert get_args(Format) == FORMATS
