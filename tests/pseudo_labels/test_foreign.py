"""Files that are no image for us are called by their names, with the next step."""

import gzip
import io
import sys
import tarfile
import zipfile
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from pseudo_labels.foreign import foreign_format
from pseudo_labels.images import DecodeLimits, ImageError, decode
from pseudo_labels.records import Status
from tests.helpers.encoders import encode, picture

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
FILES = {
    "Git LFS pointer.*git lfs pull": POINTER,
    "JPEG XL": b"\xff\x0a\xfa\x1f\x01\x91\x08\x06\x01\x00" + bytes(64),
    "JPEG XL,": b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl \0\0\0\0jxl " + bytes(64),
    "Canon CR2": b"II*\0\x10\0\0\0CR\x02\0" + bytes(64),
    "Canon CR3": b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom" + bytes(64),
    "Fujifilm RAF": b"FUJIFILMCCD-RAW 0201FF" + bytes(64),
    "Olympus ORF": b"IIRO\x08\0\0\0" + bytes(64),
    "Panasonic RW2": b"IIU\0\x18\0\0\0" + bytes(64),
    "Photoshop": b"8BPS\0\1" + bytes(64),
    "OpenEXR": b"v/1\x01\x02\0\0\0" + bytes(64),
    "Radiance": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n",
    "JPEG-LS": b"\xff\xd8\xff\xf7\0\x0b\x08" + bytes(64),
    "AppleDouble": b"\0\x05\x16\x07\0\x02\0\0Mac OS X        " + bytes(64),
    "video": b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2mp41" + bytes(64),
    "web page": b"\n<!DOCTYPE html><html><body>404</body></html>",
    "drawing": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>",
    "PDF": b"%PDF-1.7\n",
    "gzip": gzip.compress(b"x"),
    "Parquet": b"PAR1" + bytes(64),
    "a tar": tarfile.TarInfo("a.jpg").tobuf(),
}


@pytest.mark.parametrize("words", FILES)
def test_a_foreign_file_is_called_by_its_name(words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        decode(FILES[words])
    assert caught.value.status == Status.NOT_AN_IMAGE
    assert ":" in caught.value.reason  # and the next step


def test_an_archive_is_to_be_unpacked() -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("a.txt", "x")
    assert foreign_format(archive.getvalue()) == "an archive (zip, or an Office document): unpack it"


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "PPM", "AVIF"])
def test_no_accepted_format_is_foreign(name: str) -> None:
    file = io.BytesIO()
    Image.fromarray(picture(5)).save(file, name)
    assert foreign_format(file.getvalue()) == ""
    decode(file.getvalue())


@pytest.mark.parametrize("content", [b"", b"x", b"\xff", b"\0\0\0\x18ftyp", b"text\n" * 9])
def test_little_says_nothing(content: bytes) -> None:
    assert foreign_format(content) == ""
    assert foreign_format(encode(picture(6), "PNG")[:4]) == ""


# --- HEIC, with the extra package


def heic(pixels: np.ndarray, **options: Any) -> bytes:
    plugin = pytest.importorskip("pillow_heif", reason="reading HEIC needs pillow-heif, the extra heif")
    file = io.BytesIO()
    plugin.from_pillow(Image.fromarray(pixels)).save(file, quality=-1, chroma=444, **options)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_read_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = picture(77, 128, 96)
    with Image.open(io.BytesIO(encode(stored, "PNG", exif=exif))) as same:
        upright = np.asarray(ImageOps.exif_transpose(same))
    # The writer turns the tag into transformations of the container, which libheif applies.
    read = decode(heic(stored, exif=exif.tobytes()))
    assert read.shape == upright.shape
    assert np.abs(read.astype(int) - upright).mean() < 1


def test_half_a_heic_is_corrupt_and_limits_hold() -> None:
    whole = heic(picture(78, 128, 96))
    for end in (len(whole) // 2, len(whole) - 20):
        with pytest.raises(ImageError) as caught:
            decode(whole[:end])
        assert caught.value.status == Status.CORRUPT
    with pytest.raises(ImageError) as caught:
        decode(whole, DecodeLimits(max_pixels=1000))
    assert caught.value.status == Status.TOO_LARGE


def test_heic_without_the_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # so that its import fails
    with pytest.raises(ImageError, match="pip install pillow-heif") as caught:
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    assert caught.value.status == Status.NOT_AN_IMAGE
