"""The decoder against numpy arithmetic, the corpus and noise."""

import io
import os
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudo_labels import images
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import DecodeLimits, ImageError, decode, decode_pil, load, read_bytes
from pseudo_labels.records import Status
from tests.helpers.corpus import UPRIGHT, CorpusItem, build_corpus
from tests.helpers.encoders import encode, exif_turn, pack_12_bits, picture, png, png_chunk, save, stored_for, tiff_gray

RGB = picture(1)
RAMP = np.linspace(0, 65535, 96 * 80).astype(np.uint16).reshape(80, 96)
SHADE = np.linspace(0, 255, 96).astype(np.uint8)[None, :].repeat(80, axis=0)


def gray_of(rgb: np.ndarray) -> np.ndarray:
    """One channel of a picture whose three must agree."""
    assert (rgb == rgb[..., :1]).all()
    return rgb[..., 0].astype(np.int64)


def outcome(path: Path) -> tuple[Status, str]:
    try:
        rgb = load(path)
    except ImageError as error:
        return error.status, str(error)
    return (Status.OK, "") if rgb.dtype == np.uint8 and rgb.ndim == 3 else (Status.FAILED, str(rgb.shape))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[CorpusItem]:
    return build_corpus(tmp_path_factory.mktemp("corpus"))


# --- pixels


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("PPM", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("JPEG2000", {}),
    ],
)
def test_lossless_formats_give_the_stored_pixels(kind: str, options: dict) -> None:
    pixels = decode(encode(RGB, kind, **options))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    np.testing.assert_array_equal(pixels, RGB)


@pytest.mark.parametrize(("kind", "worst"), [("JPEG", 4), ("WEBP", 4), ("AVIF", 4), ("GIF", 10)])
def test_lossy_formats_come_close(kind: str, worst: float) -> None:
    off = np.abs(decode(encode(RGB, kind)).astype(int) - RGB)
    assert off.mean() < worst


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_turns_are_undone(turn: int, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(stored_for(UPRIGHT, turn), kind, exif=exif_turn(turn), **options)
    np.testing.assert_array_equal(decode(data), UPRIGHT)


def test_exif_turn_of_jpeg_equals_turning_what_is_stored() -> None:
    stored = decode(encode(RGB, "JPEG"))
    np.testing.assert_array_equal(decode(encode(RGB, "JPEG", exif=exif_turn(6))), np.rot90(stored, -1))
    np.testing.assert_array_equal(decode(encode(RGB, "JPEG", exif=exif_turn(8))), np.rot90(stored, 1))
    np.testing.assert_array_equal(decode(encode(RGB, "JPEG", exif=exif_turn(3))), stored[::-1, ::-1])


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_gray_is_scaled_not_clipped(suffix: str) -> None:
    data = {
        "png": png(RAMP),
        "tif": tiff_gray(96, 80, 16, RAMP.astype("<u2").tobytes()),
        "pgm": b"P5 96 80 65535\n" + RAMP.astype(">u2").tobytes(),
    }[suffix]
    np.testing.assert_array_equal(gray_of(decode(data)), np.rint(RAMP / 257))


def test_12_bit_tiff_spans_black_to_white() -> None:
    samples = RAMP >> 4
    gray = gray_of(decode(tiff_gray(96, 80, 12, pack_12_bits(samples))))
    np.testing.assert_array_equal(gray, np.rint(samples * (255 / 4095)))


def test_white_is_zero_is_inverted_at_every_depth() -> None:
    deep = decode(tiff_gray(96, 80, 16, (65535 - RAMP).astype("<u2").tobytes(), photometric=0))
    assert np.abs(gray_of(deep) - RAMP / 257).max() <= 0.5
    shallow = decode(tiff_gray(96, 80, 8, (255 - SHADE).tobytes(), photometric=0))
    np.testing.assert_array_equal(gray_of(shallow), SHADE)


def test_float_in_unit_range_is_scaled() -> None:
    unit = (RAMP / np.float32(65535)).astype("<f4")
    pixels = decode(tiff_gray(96, 80, 32, unit.tobytes(), form=3))
    np.testing.assert_array_equal(gray_of(pixels), np.rint(unit.astype(np.float64) * 255))


def test_16_bit_colour_is_within_one_level_of_rounding() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (80, 96, 3)).astype(np.uint16)
    assert np.abs(decode(png(deep)) - deep / 257).max() <= 1


@pytest.mark.parametrize("background", [(255, 255, 255), (10, 200, 60)])
@pytest.mark.parametrize("form", ["rgba.png", "rgba.tif", "la.png", "rgba16.png", "palette.png"])
def test_alpha_is_composited_on_the_background(form: str, background: tuple[int, int, int]) -> None:
    colour, alpha = RGB, SHADE
    if form == "la.png":
        colour = RGB[..., :1].repeat(3, axis=2)
        data = png(np.dstack([RGB[..., 0], SHADE]), bits=8)
    elif form == "rgba16.png":
        data = png(np.dstack([RGB, SHADE]).astype(np.uint16) * 257)
    elif form == "palette.png":
        palette = Image.fromarray(RGB).quantize(16)
        colour = np.asarray(palette.convert("RGB"))
        alpha = np.asarray(palette) * 16
        data = save(palette, "PNG", transparency=bytes(range(0, 256, 16)))
    else:
        data = encode(np.dstack([RGB, SHADE]), "PNG" if form == "rgba.png" else "TIFF")
    fraction = alpha[..., None] / 255
    expected = colour * fraction + np.array(background) * (1 - fraction)
    pixels = decode(data, DecodeLimits(background=background))
    assert np.abs(pixels - expected).max() <= 1


def test_colour_keys_become_background() -> None:
    rgb = RGB.copy()
    rgb[:40] = (0, 9, 200)
    data = png(rgb, bits=8, extra=png_chunk(b"tRNS", bytes([0, 0, 0, 9, 0, 200])))
    pixels = decode(data, DecodeLimits(background=(1, 2, 3)))
    assert (pixels[:40] == (1, 2, 3)).all()
    np.testing.assert_array_equal(pixels[40:], rgb[40:])
    gray = RAMP.copy()
    gray[:40] = 4660
    pixels = decode(png(gray, extra=png_chunk(b"tRNS", (4660).to_bytes(2, "big"))), DecodeLimits(background=(1, 2, 3)))
    assert (pixels[:40] == (1, 2, 3)).all()
    np.testing.assert_array_equal(gray_of(pixels[40:]), np.rint(gray[40:] / 257))


def test_cmyk_follows_the_ink_formula() -> None:
    ink = np.random.default_rng(3).integers(0, 256, (80, 96, 4), dtype=np.uint8)
    pixels = decode(save(Image.fromarray(ink, "CMYK"), "TIFF"))
    expected = (255.0 - ink[..., :3]) * (255.0 - ink[..., 3:]) / 255
    assert np.abs(pixels - expected).max() <= 1


def test_cmyk_jpeg_of_adobe_is_not_a_negative() -> None:
    data = save(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data
    assert np.abs(decode(data).astype(int) - RGB).mean() < 4  # measured 0.7; a negative is off by about 85


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF"])
def test_the_first_frame_is_taken(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    frames = [Image.fromarray(picture(seed)) for seed in (1, 2, 3)]
    measured = decode(save(frames[0], kind, save_all=True, append_images=frames[1:], **options)).astype(int)
    off = [np.abs(measured - np.asarray(frame)).mean() for frame in frames]
    assert off[0] < 16 < min(off[1:])  # GIF has few colours: measured 8.5


def test_a_profile_does_not_change_pixels(corpus: list[CorpusItem]) -> None:
    path = next(item.path for item in corpus if item.name == "icc.jpg")
    with Image.open(path) as image:
        assert image.info["icc_profile"]
        bare = save(Image.frombytes("RGB", image.size, image.tobytes()), "PNG")
    np.testing.assert_array_equal(load(path), decode(bare))


# --- limits


def test_pixel_limit_holds_from_the_header_on() -> None:
    data = encode(RGB, "PNG")
    decode(data, DecodeLimits(max_pixels=96 * 80))
    with pytest.raises(ImageError, match="96x80 = 7680 pixels are above the limit of 7679") as caught:
        decode(data, DecodeLimits(max_pixels=96 * 80 - 1))
    assert caught.value.status == Status.TOO_LARGE


def test_side_limit_names_the_size() -> None:
    with pytest.raises(ImageError, match="96x80 pixels: a side is below the limit of 81") as caught:
        decode(encode(RGB, "PNG"), DecodeLimits(min_side=81))
    assert caught.value.status == Status.TOO_SMALL


def test_the_limit_is_ours_and_pillow_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    np.testing.assert_array_equal(decode(encode(RGB, "PNG")), RGB)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "bmp", "ppm", "tif", "webp"])
def test_bombs_are_refused_with_their_size(corpus: list[CorpusItem], kind: str) -> None:
    status, reason = outcome(next(item.path for item in corpus if item.name == f"bomb.{kind}"))
    assert status == Status.TOO_LARGE
    assert re.fullmatch(r"(\d+)x(\d+) = (\d+) pixels are above the limit of 100000000", reason)


def test_bombs_take_no_memory(corpus: list[CorpusItem]) -> None:
    paths = [str(item.path) for item in corpus if item.name.startswith("bomb")]
    code = (
        "import resource, sys\n"
        "from pseudo_labels.images import ImageError, load\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    try: load(path)\n"
        "    except ImageError: pass\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    grown = int(subprocess.run([sys.executable, "-c", code, *paths], check=True, capture_output=True, text=True).stdout)
    assert grown < 60  # MB; measured 6


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_pixels": 0}, "max_pixels is 0, but must be at least 1"),
        ({"min_side": -3}, "min_side is -3, but must be at least 1"),
        ({"background": (0, 0, 256)}, r"background is \(0, 0, 256\)"),
        ({"background": (0, 0)}, r"background is \(0, 0\)"),
    ],
)
def test_limits_that_make_no_sense_are_named(limits: dict, message: str) -> None:
    with pytest.raises(PocketiqaError, match=message):
        DecodeLimits(**limits)


# --- files


def test_every_item_of_the_corpus(corpus: list[CorpusItem]) -> None:
    values_of = {item.name: outcome(item.path) for item in corpus}
    assert {name: status for name, (status, _) in values_of.items()} == {
        item.name: item.expected_status for item in corpus
    }
    assert len(values_of) == len(corpus) > 150
    reasons = [reason for status, reason in values_of.values() if status != Status.OK]
    assert all(0 < len(reason) < 250 and reason.isprintable() for reason in reasons)


def test_corpus_turns_show_one_picture(corpus: list[CorpusItem]) -> None:
    turns = [item for item in corpus if item.name.startswith("turn-")]
    assert len(turns) == 9
    for item in turns:
        np.testing.assert_array_equal(load(item.path), UPRIGHT)


def test_too_many_bytes_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.jpg"
    with open(path, "wb") as file:
        file.truncate(images.MAX_BYTES + 1)
    with pytest.raises(
        ImageError, match=f"{images.MAX_BYTES + 1} bytes, above the limit of {images.MAX_BYTES}"
    ) as caught:
        read_bytes(path)
    assert caught.value.status == Status.TOO_LARGE


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("a/b.jpg", Status.MISSING),
        ("file/b.jpg", Status.MISSING),
        ("nul\0.jpg", Status.MISSING),
        ("x" * 300, Status.UNREADABLE),
    ],
)
def test_impossible_names(tmp_path: Path, name: str, status: Status) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(ImageError) as caught:
        read_bytes(f"{tmp_path}/{name}")
    assert caught.value.status == status


def test_unreadable_file_names_the_cause(tmp_path: Path) -> None:
    path = tmp_path / "locked.jpg"
    path.write_bytes(encode(RGB, "JPEG"))
    path.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)  # nothing is locked for root
        with pytest.raises(ImageError, match="Permission denied") as caught:
            read_bytes(path)
    finally:
        os.seteuid(user)
    assert caught.value.status == Status.UNREADABLE


def test_an_input_output_error_is_unreadable() -> None:
    with pytest.raises(ImageError, match="cannot be read") as caught:
        read_bytes("/proc/self/mem")  # a regular file whose first page cannot be read
    assert caught.value.status == Status.UNREADABLE


def test_errors_are_ours_and_can_be_rebuilt() -> None:
    error = ImageError(Status.CORRUPT, "why")
    assert isinstance(error, PocketiqaError)
    again = type(error)(*error.args)
    assert (again.status, again.reason, str(again)) == (Status.CORRUPT, "why", "why")


# --- manners


def test_complaints_of_pillow_are_not_heard(corpus: list[CorpusItem]) -> None:
    path = next(item.path for item in corpus if item.name == "bad-exif.jpg")
    with warnings.catch_warnings(record=True) as heard, Image.open(path) as image:
        warnings.simplefilter("always")
        image.getexif()
    assert heard, "the file is meant to make Pillow complain"
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        load(path)
    assert not heard
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(path)


def test_threads_agree_with_one(corpus: list[CorpusItem]) -> None:
    paths = [item.path for item in corpus if item.expected_status == Status.OK] * 3
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(load, paths))
    for path, rgb in zip(paths, together, strict=True):
        np.testing.assert_array_equal(rgb, load(path))


def test_needs_the_base_install_only() -> None:
    code = (
        "import sys; import pseudo_labels.images; "
        "print(sorted({'torch', 'pyarrow', 'scipy', 'fsspec', 'datasets', 'imagehash'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


# --- images that Pillow has opened


def test_opened_images_have_the_pixels_of_their_files(corpus: list[CorpusItem]) -> None:
    compared = 0
    for item in corpus:
        if item.expected_status != Status.OK:
            continue
        try:
            image = Image.open(item.path)
        except (OSError, ValueError):  # Pillow's own limits, or a file that only ``decode`` recognises
            continue
        with image:
            np.testing.assert_array_equal(decode_pil(image), load(item.path), err_msg=item.name)
        compared += 1
    assert compared >= 20


@pytest.mark.parametrize("turn", [3, 6])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_opened_images_are_turned_once_and_stay_as_they_were(kind: str, turn: int) -> None:
    data = encode(stored_for(UPRIGHT, turn), kind, exif=exif_turn(turn))
    image = Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(decode_pil(image), decode(data))
    mode, pixels = image.mode, np.array(image)
    # The same again: nothing was turned, converted or closed for the caller.
    np.testing.assert_array_equal(decode_pil(image), decode(data))
    assert image.mode == mode
    np.testing.assert_array_equal(np.array(image), pixels)


def test_images_in_memory_follow_the_rules_of_files() -> None:
    np.testing.assert_array_equal(decode_pil(Image.fromarray(RGB)), RGB)
    np.testing.assert_array_equal(gray_of(decode_pil(Image.fromarray(RAMP))), np.rint(RAMP / 257))
    clear = Image.fromarray(np.dstack([RGB, np.zeros(RGB.shape[:2], np.uint8)]))
    assert (decode_pil(clear, DecodeLimits(background=(1, 2, 3))) == (1, 2, 3)).all()


def test_images_in_memory_without_a_white_are_refused() -> None:
    with pytest.raises(ImageError, match="32-bit integer samples have no declared white") as caught:
        decode_pil(Image.fromarray(RAMP.astype(np.int32)))
    assert caught.value.status == Status.NOT_AN_IMAGE
    with pytest.raises(ImageError, match=r"float samples outside \[0, 1\]"):
        decode_pil(Image.fromarray(RAMP.astype(np.float32)))


def test_closed_images_give_an_image_error() -> None:
    image = Image.open(io.BytesIO(encode(RGB, "PNG")))
    image.close()
    with pytest.raises(ImageError, match=r"Pillow image \(mode RGB\) of 96x80 pixels") as caught:
        decode_pil(image)
    assert caught.value.status == Status.CORRUPT
