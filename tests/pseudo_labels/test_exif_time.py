import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from pseudo_labels.exif_time import taken_at

NOON = datetime(2026, 11, 29, 12, 0, 5, tzinfo=UTC).timestamp()


def photograph(times: dict[int, object], file_format: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769).update(times)
    exif[0x0132] = "2001:01:01 00:00:00"  # when a program changed it
    stored = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stored, file_format, exif=exif.tobytes())
    return stored.getvalue()


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_time_of_the_camera_with_its_fraction(file_format: str) -> None:
    assert taken_at(photograph({0x9003: "2026:11:29 12:00:05"}, file_format)) == NOON
    assert taken_at(photograph({0x9003: "2026:11:29 12:00:05", 0x9291: "250 "}, file_format)) == NOON + 0.25


def test_the_time_of_digitising_stands_in(tmp_path: Path) -> None:
    content = photograph({0x9004: "2026-11-29 12:00:05", 0x9292: "5"})
    assert taken_at(content) == NOON + 0.5
    (tmp_path / "a.jpg").write_bytes(content)
    assert taken_at(tmp_path / "a.jpg") == NOON + 0.5
    # Of a camera whose clock was not set.
    assert taken_at(photograph({0x9003: "0000:00:00 00:00:00", 0x9004: "2026:11:29 12:00:05"})) == NOON


@pytest.mark.parametrize("time", ["0000:00:00 00:00:00", "2026:13:45 99:00:00", "yesterday", "", b"\xff\xfe", 7])
def test_what_is_no_time_is_none(time: object) -> None:
    assert taken_at(photograph({0x9003: time})) is None


def test_files_without_one_and_files_that_are_no_image(tmp_path: Path) -> None:
    assert taken_at(photograph({})) is None
    assert taken_at(b"no image") is None
    assert taken_at(tmp_path / "gone.jpg") is None


def test_heic_too() -> None:
    heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2026:11:29 12:00:05"
    stored = io.BytesIO()
    heif.from_pillow(Image.new("RGB", (64, 64))).save(stored, exif=exif.tobytes())
    assert taken_at(stored.getvalue()) == NOON
