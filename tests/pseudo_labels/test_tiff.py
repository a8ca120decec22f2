"""Which picture of a TIFF is read, and what lost or hostile strips of it come to."""

import io
import struct
import time
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from pseudo_labels.images import ImageError, decode
from pseudo_labels.photos import bundled_photographs
from pseudo_labels.records import Status
from pseudo_labels.structure import Directory
from tests.helpers.encoders import picture, save, tiff_file, tiff_tags

END = b"\xff\xd9"
RGB = picture(1, 97, 75)
GRAY = RGB[..., 0].copy()
HEIGHT, WIDTH = GRAY.shape
COFFEE = np.asarray(Image.open(bundled_photographs()["coffee"]).convert("RGB").resize((192, 128)))


# --- the first picture of full size


def thumbnail_first(kind: int, photometric: int, *, inside: bool, order: str = "<") -> bytes:
    """A directory with a thumbnail; in it, or behind it, one of the given kind with the photograph."""
    small = picture(9, 80, 64)
    first = tiff_tags(80, 64, 8, 2, 3) | {254: (4, [1])} | ({330: (4, [0])} if inside else {})
    samples = 1 if photometric == 32803 else 3
    second = tiff_tags(WIDTH, HEIGHT, 8, photometric, samples) | {254: (4, [kind])}
    return tiff_file([(first, [small.tobytes()]), (second, [(RGB if samples == 3 else GRAY).tobytes()])], order)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_thumbnail_before_the_photograph_is_passed_over(inside: bool, order: str) -> None:
    np.testing.assert_array_equal(decode(thumbnail_first(0, 2, inside=inside, order=order)), RGB)


def test_the_largest_is_taken_where_all_are_called_reduced() -> None:
    np.testing.assert_array_equal(decode(thumbnail_first(1, 2, inside=True)), RGB)
    alone = tiff_file([(tiff_tags(WIDTH, HEIGHT, 8, 2, 3) | {254: (4, [1])}, [RGB.tobytes()])])
    np.testing.assert_array_equal(decode(alone), RGB)


def test_a_mask_is_no_photograph() -> None:
    mask = tiff_tags(WIDTH, HEIGHT, 8, 1, 1) | {254: (4, [4])}
    picture_tags = tiff_tags(WIDTH, HEIGHT, 8, 2, 3)
    np.testing.assert_array_equal(decode(tiff_file([(mask, [GRAY.tobytes()]), (picture_tags, [RGB.tobytes()])])), RGB)


def test_pages_and_pyramids_give_the_first_picture() -> None:
    first, second = tiff_tags(WIDTH, HEIGHT, 8, 2, 3), tiff_tags(80, 64, 8, 2, 3)
    small = picture(9, 80, 64)
    pages = [(first, [RGB.tobytes()]), (second, [small.tobytes()])]
    np.testing.assert_array_equal(decode(tiff_file(pages)), RGB)
    np.testing.assert_array_equal(decode(tiff_file(pages[::-1])), small)
    pyramid = [(first | {330: (4, [0])}, [RGB.tobytes()]), (second | {254: (4, [1])}, [small.tobytes()])]
    np.testing.assert_array_equal(decode(tiff_file(pyramid)), RGB)


@pytest.mark.parametrize(
    "data",
    [
        thumbnail_first(0, 32803, inside=True),
        thumbnail_first(0, 32803, inside=False),
        tiff_file([(tiff_tags(WIDTH, HEIGHT, 8, 32803, 1), [GRAY.tobytes()])]),
        tiff_file([(tiff_tags(WIDTH, HEIGHT, 8, 2, 3) | {50706: (1, [1, 4, 0, 0])}, [RGB.tobytes()])]),
        b"II*\0\x10\0\0\0CR\2\0" + bytes(200),
        b"IIRO\x08\0\0\0" + bytes(200),
        b"IIU\0\x08\0\0\0" + bytes(200),
        b"FUJIFILMCCD-RAW " + bytes(200),
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(200),
    ],
)
def test_camera_raw_is_refused_as_such(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"camera raw .*develop it and save it") as caught:
        decode(data)
    assert caught.value.status == Status.NOT_AN_IMAGE


def test_directories_without_end_are_no_trap() -> None:
    first = tiff_tags(WIDTH, HEIGHT, 8, 2, 3) | {254: (4, [1]), 330: (4, [0])}
    data = bytearray(
        tiff_file([(first, [RGB.tobytes()]), (tiff_tags(80, 64, 8, 2, 3), [picture(9, 80, 64).tobytes()])])
    )
    start = struct.unpack_from("<I", data, 4)[0]
    at = data.index(struct.pack("<HHI", 330, 4, 1), start)
    data[at + 8 : at + 12] = struct.pack("<I", start)  # a directory inside itself
    np.testing.assert_array_equal(decode(bytes(data)), RGB)


# --- strips of JPEG


@pytest.mark.parametrize("rows", [None, 8])
def test_lost_data_are_noticed_inside_a_tiff(rows: int | None) -> None:
    options = {} if rows is None else {"tiffinfo": {278: rows}}
    data = save(Image.fromarray(COFFEE), "TIFF", compression="jpeg", **options)
    decode(data)
    with Image.open(io.BytesIO(data)) as image:
        assert isinstance(image, TiffImagePlugin.TiffImageFile)
        offsets, sizes = image.tag_v2[273], image.tag_v2[279]
    start = offsets[-1] + sizes[-1] // 2
    with pytest.raises(ImageError, match="TIFF of 192x128 pixels: the image data end early"):
        decode(data[:start] + END + bytes(offsets[-1] + sizes[-1] - start - 2) + data[offsets[-1] + sizes[-1] :])


def test_a_strip_of_a_tiff_is_no_bomb() -> None:
    data = bytearray(save(Image.fromarray(COFFEE), "TIFF", compression="jpeg"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65_500, 65_500)
    with pytest.raises(ImageError, match="65500x65500 = 4290250000 pixels are above the limit") as caught:
        decode(bytes(data))
    assert caught.value.status == Status.TOO_LARGE


def jpeg_strips(count: int, side: int) -> bytes:
    """Strips that all point at one JPEG, which is much larger than a strip may be."""
    stream = save(Image.new("L", (side, side), 90), "JPEG")
    tags = tiff_tags(64, 64 * count, 8, 1, 1) | {259: (3, [7]), 278: (4, [64])}
    return tiff_file([(tags, [stream] * count)])


def test_strips_larger_than_they_may_be_are_not_decoded_one_by_one() -> None:
    data = jpeg_strips(100, 3000)
    started = time.process_time()
    with pytest.raises(ImageError):
        decode(data)
    assert time.process_time() - started < 1  # 100 times 9 megapixels take about 3 s


def test_tables_are_bounded() -> None:
    tags = tiff_tags(64, 64, 8, 1, 1) | {259: (3, [7]), 347: (1, [0] * 70_000)}
    with pytest.raises(ImageError, match="tables of JPEG in a TIFF of 70000 bytes") as caught:
        decode(tiff_file([(tags, [save(Image.new("L", (64, 64), 90), "JPEG")])]))
    assert caught.value.status == Status.TOO_LARGE


# --- directories


def with_tags(count: int, size: int) -> bytes:
    """A directory whose tags all have the same bytes as their values."""
    entries = b"".join(struct.pack("<HHII", tag, 7, size, 60_000) for tag in range(40_000, 40_000 + count))
    head = b"II*\0" + struct.pack("<IH", 8, count) + entries + bytes(4)
    return head.ljust(60_000, b"\0") + bytes(size)


def test_tags_that_share_their_bytes_are_refused() -> None:
    data = with_tags(4000, 1 << 20)
    started = time.process_time()
    with pytest.raises(ImageError, match="bytes in the tags of a TIFF") as caught:
        decode(data)
    assert caught.value.status == Status.TOO_LARGE
    assert time.process_time() - started < 2


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_directory_reads_values_when_asked(order: str) -> None:
    tags = tiff_tags(WIDTH, HEIGHT, 8, 2, 3) | {254: (4, [1])}
    data = tiff_file([(tags, [RGB.tobytes()]), (tiff_tags(80, 64, 8, 2, 3), [bytes(80 * 64 * 3)])], order)
    directory = Directory(io.BytesIO(data))
    assert (directory.first(256, 0), directory.first(257, 0), directory.first(9, 7)) == (WIDTH, HEIGHT, 7)
    assert directory.values(258).tolist() == [8, 8, 8]
    assert 254 in directory
    assert 330 not in directory
    assert Directory(io.BytesIO(data), directory.next).first(256, 0) == 80


def test_any_cut_and_any_altered_byte_is_read_or_refused_in_words() -> None:
    first = tiff_tags(80, 64, 8, 2, 3) | {254: (4, [1]), 330: (4, [0])}
    data = tiff_file([(first, [bytes(80 * 64 * 3)]), (tiff_tags(WIDTH, HEIGHT, 8, 2, 3), [RGB.tobytes()])])
    rng = np.random.default_rng(1)
    start = struct.unpack_from("<I", data, 4)[0]
    for _ in range(300):
        altered = bytearray(data)
        at = start + int(rng.integers(0, min(400, len(data) - start)))
        altered[at] = int(rng.integers(256))
        with suppress(ImageError):  # any other error fails
            assert decode(bytes(altered)).ndim == 3
