"""Whole JPEGs and cut ones: against files cut at known bytes, and against Pillow's own decoding of whole files."""

import io
import itertools
import struct
import time
from collections.abc import Iterator
from typing import ClassVar

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, JpegImagePlugin

from pseudo_labels import jpeg, limits
from pseudo_labels.images import ImageError, decode, decode_pil
from pseudo_labels.jpeg import IncompleteError, layout_of, load
from pseudo_labels.photos import bundled_photographs
from pseudo_labels.records import Status
from tests.helpers.encoders import encode, picture, save
from tests.helpers.shared import shared_data

END = b"\xff\xd9"
RGB = np.asarray(Image.open(bundled_photographs()["coffee"]).convert("RGB").resize((192, 128)))
KINDS = {
    "baseline": {},
    "optimised": {"optimize": True},
    "full colour": {"subsampling": 0, "quality": 95},
    "coarse": {"quality": 15},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "many restarts": {"restart_marker_blocks": 2},
    "progressive with restarts": {"progressive": True, "restart_marker_rows": 1},
}
MODES = {"gray": "L", "CMYK": "CMYK"}
FILES = {name: encode(RGB, "JPEG", **options) for name, options in KINDS.items()}
FILES |= {name: save(Image.fromarray(RGB).convert(mode), "JPEG") for name, mode in MODES.items()}


def pixels(data: bytes) -> np.ndarray:
    """By Pillow alone."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def scan_bytes(data: bytes) -> tuple[int, int]:
    """Where the first scan's data begin, and where those of the last one end."""
    layout = layout_of(data)
    return data.index(b"\xff\xda") + 14, layout.scans[-1].end


def cuts(data: bytes, count: int = 24) -> Iterator[int]:
    """Lengths from the first scan on, to 60 bytes before the end of the last."""
    first, end = scan_bytes(data)
    yield from np.linspace(first, end - 60, count).astype(int).tolist()


@pytest.mark.parametrize("name", FILES)
def test_whole_files_have_the_pixels_that_pillow_gives(name: str) -> None:
    np.testing.assert_array_equal(decode(FILES[name]), pixels(FILES[name]))


@pytest.mark.parametrize("name", FILES)
def test_lost_data_are_noticed_behind_an_end_marker(name: str) -> None:
    for length in cuts(FILES[name]):
        with pytest.raises(ImageError) as caught:
            decode(FILES[name][:length] + END)
        assert caught.value.status == Status.CORRUPT


@pytest.mark.parametrize("name", FILES)
def test_pillow_alone_does_not_notice(name: str) -> None:
    """Else this module would not be needed."""
    first, end = scan_bytes(FILES[name])
    assert pixels(FILES[name][: (first + end) // 2] + END).shape == RGB.shape


@pytest.mark.parametrize("name", FILES)
def test_only_the_end_marker_may_be_missing(name: str) -> None:
    data = FILES[name]
    for length in (len(data) - 1, len(data) - 2):
        np.testing.assert_array_equal(decode(data[:length]), pixels(data))
    lost = 0
    for length in range(len(data) - 3, len(data) - 23, -1):
        try:
            np.testing.assert_array_equal(decode(data[:length]), pixels(data))
        except ImageError as error:
            lost += error.status == Status.CORRUPT
    assert lost >= 18


@pytest.mark.parametrize("name", FILES)
def test_a_rest_of_zeros_is_no_picture(name: str) -> None:
    """What an interrupted copy leaves."""
    data = FILES[name]
    first, end = scan_bytes(data)
    for length in np.linspace(first + 50, end - 300, 6).astype(int).tolist():
        with pytest.raises(ImageError) as caught:
            decode(data[:length] + bytes(len(data) - length + 1000))
        assert caught.value.status == Status.CORRUPT


def test_the_reason_says_what_happened() -> None:
    first, end = scan_bytes(FILES["baseline"])
    with pytest.raises(ImageError, match="JPEG of 192x128 pixels: the image data end early"):
        decode(FILES["baseline"][: (first + end) // 2] + END)
    with pytest.raises(ImageError, match="scans are missing behind the first 4"):
        decode(FILES["progressive"][: layout_of(FILES["progressive"]).scans[3].end] + END)
    data = FILES["many restarts"]
    at = data.index(b"\xff\xd2")
    with pytest.raises(ImageError, match="gaps, 1 restart markers are missing"):
        decode(data[:at] + data[data.index(b"\xff\xd3") :])


def test_gray_corners_are_no_loss() -> None:
    """The colour that libjpeg fills in for lost data, as the true one."""
    gray = RGB.copy()
    gray[-70:] = 128
    for options in ({}, {"progressive": True}, {"restart_marker_rows": 1}):
        data = encode(gray, "JPEG", **options)
        np.testing.assert_array_equal(decode(data), pixels(data))
        np.testing.assert_array_equal(decode(data[:-2]), pixels(data))
    uniform = np.full((96, 96, 3), 128, np.uint8)
    np.testing.assert_array_equal(decode(encode(uniform, "JPEG")), uniform)


def test_what_lies_around_the_image_data_does_not_matter() -> None:
    data = FILES["baseline"]
    end = layout_of(data).scans[-1].end
    for between in (b"\0" * 500, b"\xff" * 64, b"\xff\x00rubbish", bytes(range(255))):
        np.testing.assert_array_equal(decode(data[:end] + between + data[end:]), pixels(data))
    np.testing.assert_array_equal(decode(data + b"behind" * 999), pixels(data))
    comment = b"\xff\xfe" + struct.pack(">H", 7) + b"\xff\xd9\xff\xda\xff"
    np.testing.assert_array_equal(decode(data[:2] + comment + data[2:]), pixels(data))
    thumbnail = encode(picture(1), "JPEG")[:-200]  # cut, in a segment of its own: nobody's business
    segment = b"\xff\xe5" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    np.testing.assert_array_equal(decode(data[:2] + segment + data[2:]), pixels(data))


def test_the_main_photograph_of_an_mpo_is_looked_at_alone() -> None:
    frames = [Image.fromarray(picture(seed)) for seed in (1, 2)]
    data = save(frames[0], "MPO", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(data[:-500]), decode(encode(picture(1), "JPEG")))


def test_scans_of_single_colours() -> None:
    """Sequential, one scan a component: what libjpeg calls a file of several scans."""
    whole = FILES["progressive"]
    layout = layout_of(whole)
    assert len(layout.scans) == 10
    assert (layout.frame, layout.has_end, layout.size) == (0xC2, True, (192, 128))
    assert layout.components == {1: (2, 2), 2: (1, 1), 3: (1, 1)}
    assert [scan.low_bit for scan in layout.scans[-3:]] == [0, 0, 0]


def test_restart_markers_are_counted() -> None:
    layout = layout_of(FILES["restarts"])
    assert [scan.restarts_missing for scan in layout.scans] == [0]
    assert len(layout_of(FILES["progressive with restarts"]).scans) == 10


def test_load_leaves_an_image_as_pillow_would() -> None:
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(FILES["baseline"]))
    load(image, FILES["baseline"])
    assert not image.tile
    np.testing.assert_array_equal(np.asarray(image), pixels(FILES["baseline"]))
    small = JpegImagePlugin.JpegImageFile(io.BytesIO(FILES["baseline"]))
    small.draft("RGB", (48, 32))
    load(small, FILES["baseline"])
    assert small.size == (48, 32)
    cut = FILES["baseline"][:3000] + END
    with pytest.raises(IncompleteError):
        load(JpegImagePlugin.JpegImageFile(io.BytesIO(cut)), cut)


class _ToAnEighth:
    """A resizer, see ``limits.Resizer``."""

    eager: ClassVar[bool] = False

    def size(self, height: int, width: int) -> tuple[int, int]:
        return height // 8, width // 8

    def filtered(
        self, image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
    ) -> Image.Image:
        return image.resize((size[1], size[0]), box=box)


@pytest.mark.parametrize("name", FILES)
def test_lost_data_are_noticed_where_the_decoder_reduces(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resizer = _ToAnEighth()
    monkeypatch.setattr(limits, "REDUCE_ABOVE", 1)
    drafts: list[tuple[int, int]] = []

    def noted(image: JpegImagePlugin.JpegImageFile, data: bytes) -> None:
        drafts.append(image.size)
        load(image, data)

    monkeypatch.setattr(jpeg, "load", noted)
    data = FILES[name]
    reduced = decode(data, resizer=resizer)
    assert reduced.shape == (16, 24, 3)
    for length in (len(data) - 1, len(data) - 2):
        np.testing.assert_array_equal(decode(data[:length], resizer=resizer), reduced)
    for length in cuts(data, 12):
        for end in (END, b"", bytes(500)):
            with pytest.raises(ImageError) as caught:
                decode(data[:length] + end, resizer=resizer)
            assert caught.value.status == Status.CORRUPT
    # The decoder itself gave a fourth of the sides.
    assert set(drafts) == {(48, 32)}


def test_a_file_is_read_in_pieces_with_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    for piece in (1, 64, 1000):
        monkeypatch.setattr(jpeg, "_PIECE_BYTES", piece)
        for data in (FILES["baseline"], FILES["progressive with restarts"]):
            np.testing.assert_array_equal(decode(data), pixels(data))
            with pytest.raises(ImageError):
                decode(data[: scan_bytes(data)[1] - 200] + END)


def test_opened_images_are_looked_at_too() -> None:
    with Image.open(io.BytesIO(FILES["progressive"][:3000] + END)) as image, pytest.raises(ImageError):
        decode_pil(image)


def test_files_of_opencv_are_whole() -> None:
    factors = [
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    ]
    for progressive, interval, factor, quality in itertools.product((0, 1), (0, 1, 7), factors, (5, 60, 100)):
        options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_RST_INTERVAL, interval]
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor, cv2.IMWRITE_JPEG_QUALITY, quality]
        done, buffer = cv2.imencode(".jpg", RGB[:101, :83, ::-1], options)
        assert done
        data = buffer.tobytes()
        np.testing.assert_array_equal(decode(data), pixels(data))
        np.testing.assert_array_equal(decode(data[:-2]), pixels(data))
        with pytest.raises(ImageError):
            decode(data[: scan_bytes(data)[1] - 200] + END)


def test_long_padding_costs_no_time() -> None:
    data = FILES["baseline"]
    for padding in (b"\xff" * (8 << 20), b"\xff\xd0" * (4 << 20), b"\xff\0" * (4 << 20)):
        before = time.process_time()
        assert layout_of(data[:2] + padding + data[2:]).has_end
        assert time.process_time() - before < 3


def test_photographs_of_other_encoders_are_whole() -> None:
    for path in sorted(shared_data("biq2021", "images").glob("*"))[::120]:
        data = path.read_bytes()
        np.testing.assert_array_equal(decode(data), pixels(data))


def test_the_reported_files() -> None:
    folder = shared_data("..", "cases", "images")
    with pytest.raises(ImageError, match="the image data end early"):
        decode((folder / "half-then-eoi.jpg").read_bytes())
    data = (folder / "no-eoi.jpg").read_bytes()
    np.testing.assert_array_equal(decode(data), pixels(data + END))
