"""The record of rows beside an output: what is known again, what is refused, and what a kill leaves."""

import dataclasses
import os
from pathlib import Path

import pytest

from distill.scoring.inputs import ImageSource
from distill.scoring.resuming import RowRecord, state_of
from pseudo_labels.errors import OutputConflictError
from pseudo_labels.files import sha256_file
from pseudo_labels.images import DecodeLimits
from pseudo_labels.records import Status
from students.regions import RegionResult, refused
from students.runtime import Row

LIMITS = DecodeLimits()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(b"some picture")
    return path


def source(path: str | Path) -> ImageSource:
    return ImageSource(str(path), Path(path))


def row_of(photo: Path, score: float = 0.5) -> Row:
    return Row(str(photo), score, Status.OK, "")


def recorded(out: Path, *rows: Row, model: str = "m1", limits: DecodeLimits = LIMITS) -> RowRecord:
    record = RowRecord(out, model, limits)
    record.start()
    for row in rows:
        record.add(row, source(row.path), state_of(row.path))
    return record


def resumed(out: Path, model: str = "m1", limits: DecodeLimits = LIMITS) -> RowRecord:
    record = RowRecord(out, model, limits)
    record.resume()
    return record


def test_a_row_is_known_while_its_file_is_as_it_was(photo: Path, tmp_path: Path):
    recorded(tmp_path / "x.csv", row_of(photo)).close(keep=True)
    record = resumed(tmp_path / "x.csv")
    assert record.known(source(photo), state_of(photo)) == row_of(photo)
    assert record.others([]) == [row_of(photo)]
    assert record.others([source(photo)]) == []
    os.utime(photo, ns=(1, 1))
    assert record.known(source(photo), state_of(photo)) is None
    assert record.others([]) == []
    record.close(keep=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_what_has_no_score_or_no_file_is_not_recorded(photo: Path, tmp_path: Path):
    bad = Row(str(photo), None, Status.CORRUPT, "cut")
    gone = row_of(tmp_path / "gone.png")
    recorded(tmp_path / "x.csv", bad, gone).close(keep=True)
    record = resumed(tmp_path / "x.csv")
    assert record.known(source(photo), state_of(photo)) is None
    assert record.others([]) == []


def test_regions_come_back_with_what_has_no_number(photo: Path, tmp_path: Path):
    regions = (RegionResult(0.25, 0.5, (1, 2, 3, 4), 0.125), refused(Status.EMPTY, "the mask has no pixel"))
    recorded(tmp_path / "x.csv", dataclasses.replace(row_of(photo), regions=regions)).close(keep=True)
    again = resumed(tmp_path / "x.csv").known(source(photo), state_of(photo))
    assert again is not None
    # NaN is unequal to itself, so the texts are compared.
    assert str(again.regions) == str(regions)


@pytest.mark.parametrize(
    ("model", "limits", "words"),
    [
        ("m2", LIMITS, "its rows are of another model"),
        ("m1", dataclasses.replace(LIMITS, max_pixels=10), "other limits"),
    ],
)
def test_an_output_of_other_settings_is_refused(
    model: str, limits: DecodeLimits, words: str, photo: Path, tmp_path: Path
):
    out = tmp_path / "x.csv"
    record = recorded(out, row_of(photo))
    out.write_text("rows")
    record.written(sha256_file(out))
    record.close(keep=True)
    with pytest.raises(OutputConflictError, match=words):
        resumed(out, model, limits)
    assert resumed(out).known(source(photo), state_of(photo)) is not None
    out.write_text("rows, and a note of mine")
    with pytest.raises(OutputConflictError, match="it was changed since"):
        resumed(out)
    # Without the output nothing can be lost: other settings begin anew.
    out.unlink()
    assert resumed(out, model, limits).others([]) == []


def test_a_cut_line_is_dropped(photo: Path, tmp_path: Path):
    recorded(tmp_path / "x.csv", row_of(photo)).close(keep=True)
    path = tmp_path / ".x.csv.rows"
    path.write_bytes(path.read_bytes() + b'{"row": {"pa')
    assert resumed(tmp_path / "x.csv").known(source(photo), state_of(photo)) == row_of(photo)
    assert b'"pa\n' not in path.read_bytes()


def test_what_a_process_killed_while_it_began_left_is_removed(photo: Path, tmp_path: Path):
    recorded(tmp_path / "x.csv", row_of(photo)).close(keep=True)
    left = tmp_path / "..x.csv.rows.123-0badcafe.tmp"
    left.write_bytes(b"half")
    record = resumed(tmp_path / "x.csv")
    assert not left.exists()
    assert record.known(source(photo), state_of(photo)) == row_of(photo)


def test_a_member_of_an_archive_is_known_by_the_archive(photo: Path, tmp_path: Path):
    member = ImageSource(f"tar://b.png?offset=512&size=2::{photo}", photo, bytes)
    record = RowRecord(tmp_path / "x.csv", "m1", LIMITS)
    record.start()
    row = Row(member.name, 0.5, Status.OK, "")
    record.add(row, member, state_of(photo))
    record.add(Row("https://host/c.png", 0.5, Status.OK, ""), ImageSource("https://host/c.png", None, bytes), None)
    record.close(keep=True)
    record = resumed(tmp_path / "x.csv")
    assert record.known(member, state_of(photo)) == row
    assert record.others([]) == [row]
    photo.write_bytes(b"another archive")
    assert record.known(member, state_of(photo)) is None
    assert record.others([]) == []
