"""Files that cost without bound are refused from their structure; what encoders write is not."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from pseudo_labels import structure
from pseudo_labels.errors import WorkExceededError
from pseudo_labels.images import DecodeLimits, ImageError, decode
from pseudo_labels.records import Status
from pseudo_labels.structure import Structure, inspect
from tests.helpers.encoders import encode, picture, png_chunk, save

RGB = picture(1)
JPEG, PNG, GIF = encode(RGB, "JPEG"), encode(RGB, "PNG"), save(Image.fromarray(RGB).quantize(64), "GIF")
PROFILE = png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 20)))
GIF_HEADER = 13 + 3 * 64
FLOOD = 1 << 22


def with_scans(side: int, repeated: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: libjpeg accepts it, and each costs a pass over all pixels."""
    data = encode(np.full((side, side), 128, np.uint8), "JPEG", progressive=True)
    last = data[max(data.rindex(b"\xff\xda"), 0) : -2]
    return data[:-2] + last * repeated + b"\xff\xd9"


def rle_bmp(width: int, height: int, runs: bytes) -> bytes:
    sizes = struct.pack("<IHHI", 54 + 1024 + len(runs), 0, 0, 54 + 1024)
    return (
        b"BM"
        + sizes
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
        + bytes(1024)
        + runs
    )


def tiff(tags: list[tuple[int, int, int, int]], rest: bytes = b"") -> bytes:
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + rest


def strips(count: int) -> bytes:
    tags = [(256, 4, 1, 64), (257, 4, 1, count), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    return tiff([*tags, (273, 4, count, 200), (278, 4, 1, 1), (279, 4, count, 200)], bytes(4 * count))


def jpeg2000(**options: object) -> bytes:
    return encode(RGB, "JPEG2000", **options)


def with_code_blocks_of_4(data: bytes) -> bytes:
    """The header of 100 megapixels, in code-blocks of 4x4."""
    at = data.index(b"\xff\x52")
    blocks = data[: at + 10] + bytes([0, 0]) + data[at + 12 :]
    at = data.index(b"\xff\x51") + 6
    size = struct.pack(">II", 10_000, 10_000)
    return blocks[:at] + size + blocks[at + 8 : at + 16] + size + blocks[at + 24 :]


def avif_with_items(count: int) -> bytes:
    """An AVIF that names further items, which need no data."""
    data = encode(RGB, "AVIF")
    meta, names = data.index(b"meta") - 4, data.index(b"iinf") - 4
    sizes = [int.from_bytes(data[at : at + 4], "big") for at in (meta, names)]
    item = struct.Struct(">I4sIHHIB")
    items = b"".join(item.pack(21, b"infe", 2 << 24, 100 + number, 0, 0x61763031, 0) for number in range(count))
    head = data[:meta] + struct.pack(">I", sizes[0] + len(items)) + data[meta + 4 : names]
    boxes = struct.pack(">I4sIH", sizes[1] + len(items), b"iinf", 0, 1 + count) + data[names + 14 : names + sizes[1]]
    return head + boxes + items + data[names + sizes[1] :]


HOSTILE = {
    "scans of a JPEG": lambda: with_scans(400, 2000),
    "fill bytes before a segment": lambda: JPEG[:2] + b"\xff" * FLOOD + JPEG[2:],
    "fill bytes in a scan": lambda: JPEG[:-2] + b"\xff" * FLOOD + JPEG[-2:],
    "zeros before a segment": lambda: JPEG[:20] + bytes(FLOOD) + JPEG[20:],
    "segments of a JPEG": lambda: JPEG[:2] + b"\xff\xfe\0\2" * 100_000 + JPEG[2:],
    "EXIF segments": lambda: JPEG[:2] + (b"\xff\xe1\xff\xffExif\0\0" + bytes(65527)) * 600 + JPEG[2:],
    "chunks of a PNG": lambda: PNG[:33] + png_chunk(b"teXt", b"") * 300_000 + PNG[33:],
    "empty pixel chunks": lambda: PNG[:33] + png_chunk(b"IDAT", b"") * 300_000 + PNG[33:],
    "profiles that unfold": lambda: PNG[:33] + PROFILE * 200 + PNG[33:],
    "zeros in a GIF": lambda: GIF[:GIF_HEADER] + bytes(FLOOD) + GIF[GIF_HEADER:],
    "blocks of a GIF": lambda: GIF[:GIF_HEADER] + b"!\xf0" + b"\1x" * FLOOD + b"\0" + GIF[GIF_HEADER:],
    "blanks in a PNM header": lambda: b"P6" + b" " * FLOOD + b"96 80 255\n" + bytes(96 * 80 * 3),
    "a comment in a PNM header": lambda: b"P6 #" + b"x" * FLOOD + b"\n96 80 255\n" + bytes(96 * 80 * 3),
    "comments in plain PNM": lambda: b"P2 96 80 255\n" + b"#\n" * 1_000_001 + b"7 " * 96 * 80,
    "plain PNM of 243 million samples": lambda: b"P3 9000 9000 255\n" + b"7 " * 100,
    "runs of a BMP": lambda: rle_bmp(3000, 3000, b"\1\7" * FLOOD),
    "a large BMP of runs": lambda: rle_bmp(499_000, 100, b"\0\0" * 100),
    "tags of a TIFF": lambda: tiff([(tag, 4, 1, 0) for tag in range(1, 5000)]),
    "strips of a TIFF": lambda: strips(500_000),
    "items of an AVIF": lambda: avif_with_items(60_000),
    "code-blocks of a JPEG 2000": lambda: with_code_blocks_of_4(jpeg2000(no_jp2=True)),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_refused_with_the_reason_in_seconds(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if what != "zeros in a GIF":  # the one that tries the real number of pieces
        monkeypatch.setattr("pseudo_labels.limits._Metered.reads_left", 100_000)
    data = HOSTILE[what]()
    started = time.process_time()
    with pytest.raises(ImageError, match=r"more than \d+ |above the (limit|bound) of \d+") as caught:
        decode(data)
    assert caught.value.status == Status.TOO_LARGE
    assert len(caught.value.reason) < 200
    assert time.process_time() - started < 10  # measured: 1 at most


def test_scans_of_a_large_jpeg_are_bounded_by_their_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_scans(400, 30)
    assert inspect("JPEG", io.BytesIO(data)).scanned == data.count(b"\xff\xda") * 400 * 400
    decode(data)
    monkeypatch.setattr("pseudo_labels.limits.MAX_PIXELS", 1)
    with pytest.raises(ImageError, match=r"its scans pass over .* pixels in all"):
        decode(data, DecodeLimits(max_pixels=170_000))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("JPEG", JPEG),
        ("JPEG", encode(RGB, "JPEG", progressive=True, subsampling=0)),
        ("JPEG", JPEG[:2] + b"\xff" * 60_000 + JPEG[2:]),
        ("PNG", PNG),
        ("BMP", encode(RGB, "BMP")),
        ("TIFF", encode(RGB, "TIFF", compression="jpeg")),
        ("TIFF", encode(RGB, "TIFF", compression="tiff_lzw")),
        ("JPEG 2000", jpeg2000(tile_size=(32, 32), codeblock_size=(16, 16), num_resolutions=3)),
        ("WebP", encode(RGB, "WEBP")),
        ("AVIF", encode(RGB, "AVIF")),
        ("GIF", GIF),
    ],
)
def test_what_encoders_write_is_accepted(name: str, data: bytes) -> None:
    assert isinstance(inspect(name, io.BytesIO(data)), Structure)
    assert decode(data).shape == RGB.shape


def test_every_prefix_of_a_file_is_inspected_without_an_error() -> None:
    for name, data in (("JPEG", JPEG), ("TIFF", strips(3)), ("JPEG 2000", jpeg2000()), ("AVIF", encode(RGB, "AVIF"))):
        for cut in range(4, len(data), max(1, len(data) // 300)):
            inspect(name, io.BytesIO(data[:cut]))


def test_buffers_follow_the_coefficients_and_the_tiles() -> None:
    pixels = RGB.shape[0] * RGB.shape[1]
    assert inspect("JPEG", io.BytesIO(JPEG)).buffers == 0
    progressive = encode(RGB, "JPEG", progressive=True, subsampling=2)
    assert inspect("JPEG", io.BytesIO(progressive)).buffers == 2 * (pixels + pixels // 2)
    for sampling, planes in (("4:2:0", 1.5), ("4:4:4", 3), ("4:0:0", 1)):
        avif = encode(RGB, "AVIF", subsampling=sampling)
        assert inspect("AVIF", io.BytesIO(avif)).buffers == int((planes + 4) * pixels) + len(avif)
    webp = encode(RGB, "WEBP", lossless=True)
    assert inspect("WebP", io.BytesIO(webp)).buffers == 12 * pixels + len(webp)
    whole, tiled = (inspect("JPEG 2000", io.BytesIO(jpeg2000(**options))) for options in ({}, {"tile_size": (32, 32)}))
    assert whole.buffers == 15 * pixels
    assert tiled.buffers == 15 * 32 * 32
    assert inspect("JPEG 2000", io.BytesIO(jpeg2000(num_resolutions=4))).halvings == 3


def test_strips_that_share_their_bytes_are_refused() -> None:
    count = 1000
    tags = [(256, 4, 1, 64), (257, 4, 1, count), (258, 3, 1, 8), (259, 3, 1, 5), (262, 3, 1, 1), (277, 3, 1, 1)]
    tags += [(273, 4, count, 200), (278, 4, 1, 1), (279, 4, count, 200 + 4 * count)]
    rest = bytes(4000) + struct.pack("<I", 100_000) * count + bytes(200_000)
    with pytest.raises(WorkExceededError, match="bytes in the strips of a TIFF"):
        inspect("TIFF", io.BytesIO(tiff(tags, rest)))


def test_bounds_are_far_above_what_encoders_write() -> None:
    assert structure.MAX_SCANS >= 3 * 30
    assert structure.MAX_CHUNKS * 8192 > 800_000_000
    assert structure.MAX_CODE_BLOCKS > 10 * 3 * 100_000_000 / 32**2
