"""Strips of a picture become the pixels that they are in the whole, whatever the samples mean."""

import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from pseudo_labels import images
from pseudo_labels.images import DecodeLimits, decode
from tests.helpers import profiles
from tests.helpers.encoders import encode, exif_turn, picture, save, tiff_file, tiff_gray, tiff_tags

RGB = picture(2)
DEEP = RGB.astype(np.int64) * 251
P3 = profiles.matrix_profile(profiles.DISPLAY_P3, profiles.parametric_curve(*profiles.SRGB_CURVE))


def in_strips(data: bytes, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    monkeypatch.setattr(images, "_WHOLE_PIXELS", 1)
    monkeypatch.setattr(images, "_STRIP_PIXELS", 96 * 7)
    return decode(data, DecodeLimits(background=(1, 2, 3)))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("form", ["rgb", "rgba", "palette", "gray16", "tiff"])
def test_strips_give_the_pixels_of_the_whole(form: str, turn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    alpha = np.linspace(0, 255, 96).astype(np.uint8)[None, :].repeat(80, axis=0)
    image = Image.fromarray(RGB)
    data = {
        "rgb": lambda: encode(RGB, "PNG", exif=exif_turn(turn)),
        "rgba": lambda: encode(np.dstack([RGB, alpha]), "PNG", exif=exif_turn(turn)),
        "palette": lambda: save(image.quantize(16), "PNG", transparency=bytes(range(0, 256, 16)), exif=exif_turn(turn)),
        "gray16": lambda: save(Image.fromarray(DEEP[..., 0].astype(np.uint16)), "PNG", exif=exif_turn(turn)),
        "tiff": lambda: tiff_gray(96, 80, 16, DEEP[..., 0].astype("<u2").tobytes(), photometric=0),
    }[form]()
    whole = decode(data, DecodeLimits(background=(1, 2, 3)))
    strips = in_strips(data, monkeypatch)
    np.testing.assert_array_equal(strips, whole)
    assert strips.flags.c_contiguous
    assert strips.flags.writeable


def alpha_from_row(row: int) -> bytes:
    """Alpha of 0 in the first rows: whether it is believed depends on the rest."""
    alpha = np.zeros(RGB.shape[:2], np.uint8)
    alpha[row:] = 255
    return encode(np.dstack([RGB, alpha]), "PNG")


def small_frame() -> bytes:
    data = bytearray(save(Image.fromarray(RGB).quantize(16), "GIF"))
    data[6:10] = struct.pack("<HH", 130, 120)
    at = data.index(b"," + struct.pack("<HHHH", 0, 0, 96, 80))
    data[at + 1 : at + 5] = struct.pack("<HH", 20, 25)
    return bytes(data)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: encode(RGB, "JPEG", icc_profile=P3), id="profile of a matrix"),
        pytest.param(
            lambda: save(Image.fromarray(RGB).convert("CMYK"), "JPEG", icc_profile=profiles.cmyk_profile()),
            id="profile of tables",
        ),
        pytest.param(lambda: save(Image.fromarray(RGB).convert("CMYK"), "TIFF"), id="CMYK"),
        pytest.param(lambda: save(Image.fromarray(RGB).convert("L"), "PNG", icc_profile=P3), id="gray with a profile"),
        pytest.param(lambda: tiff_file([(tiff_tags(96, 80, 8, 8, 3), [RGB.tobytes()])]), id="Lab"),
        pytest.param(lambda: alpha_from_row(40), id="alpha that begins late"),
        pytest.param(lambda: alpha_from_row(80), id="alpha that hides everything"),
        pytest.param(small_frame, id="GIF frame smaller than its canvas"),
        pytest.param(lambda: encode(RGB, "AVIF"), id="AVIF"),
    ],
)
def test_strips_follow_what_the_whole_file_declares(make: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    data = make()
    whole = decode(data, DecodeLimits(background=(1, 2, 3)))
    np.testing.assert_array_equal(in_strips(data, monkeypatch), whole)
