"""Layouts of samples: a generated grid of TIFF, PNG, BMP, JPEG 2000 and PNM, each read rightly or refused.

What is right is known, for the files are made here. That the files are what they are meant to be is confirmed by
tifffile and OpenCV, which read them too.
"""

import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Literal

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from pseudo_labels.images import DecodeLimits, ImageError, decode
from pseudo_labels.records import Status
from tests.helpers.encoders import (
    encode,
    pack_bits,
    picture,
    png,
    png_chunk,
    png_of,
    save,
    stored_for,
    tiff_file,
    tiff_tags,
)
from tests.helpers.shared import shared_data

RGB = picture(1, 97, 75)  # odd sides: rows do not end with a byte, tiles and strips not with the image
GRAY = RGB[..., 0].copy()
HEIGHT, WIDTH = GRAY.shape
OPAQUE = np.full_like(GRAY, 255)
FULL = 65535


def three(gray: np.ndarray) -> np.ndarray:
    return np.asarray(gray)[..., None].repeat(3, axis=2)


def differs(data: bytes, expected: np.ndarray) -> float | None:
    """Largest difference from what is right; None where the file is refused with a reason."""
    try:
        rgb = decode(data)
    except ImageError:
        return None
    assert rgb.shape == (*expected.shape[:2], 3)
    return float(np.abs(rgb.astype(int) - (expected if expected.ndim == 3 else three(expected))).max())


def as_type(levels: np.ndarray, dtype: str) -> np.ndarray:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (levels / 255).astype(kind)
    white = np.iinfo(kind).max
    return np.rint(levels * (white / 255)).astype(kind)


# --- TIFF, by tifffile: sample type, byte order, planes, compression, predictor, tiles, strips, extra samples

ARRANGEMENTS: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "gray": (GRAY, {"photometric": "minisblack"}),
    "white is zero": (255 - GRAY, {"photometric": "miniswhite"}),
    "gray in strips": (GRAY, {"photometric": "minisblack", "rowsperstrip": 7}),
    "RGB": (RGB, {"photometric": "rgb"}),
    "RGBA": (np.dstack([RGB, OPAQUE]), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "RGB and more": (np.dstack([RGB, GRAY]), {"photometric": "rgb", "extrasamples": ["unspecified"]}),
    "gray and alpha": (np.dstack([GRAY, OPAQUE]), {"photometric": "minisblack", "extrasamples": ["unassalpha"]}),
    "CMYK": (np.dstack([255 - RGB, 0 * GRAY]), {"photometric": "separated"}),
    "RGB in tiles": (RGB, {"photometric": "rgb", "tile": (32, 48)}),
    "RGB in strips": (RGB, {"photometric": "rgb", "rowsperstrip": 7}),
    "BigTIFF": (RGB, {"photometric": "rgb", "bigtiff": True}),
}
GRAYS = ("gray", "white is zero", "gray in strips", "gray and alpha")


def tifffile_grid() -> Iterator[tuple[tuple[str, ...], bytes, np.ndarray, np.ndarray]]:
    """Name, file, samples as stored (planes last) and the picture."""
    types = ("u1", "u2", "u4", "i1", "f2", "f4")
    for dtype, order, packed in itertools.product(types, "<>", ("", "zlib", "zlib, predictor")):
        if packed.endswith("predictor") and dtype[0] in "fi":
            continue  # tifffile writes it for unsigned integers without further packages
        for (name, (levels, options)), planes in itertools.product(ARRANGEMENTS.items(), ("contig", "separate")):
            if levels.ndim == 2 and planes == "separate":
                continue
            samples = as_type(levels, dtype)
            stored = np.moveaxis(samples, 2, 0).copy() if planes == "separate" else samples
            written: dict[str, Any] = options | {"byteorder": order}
            if levels.ndim == 3:
                written["planarconfig"] = planes
            if packed:
                written |= {"compression": "zlib", "predictor": "," in packed or None}
            sink = io.BytesIO()
            tifffile.imwrite(sink, stored, **written)
            yield (name, dtype, order, packed, planes), sink.getvalue(), stored, GRAY if name in GRAYS else RGB


def test_tiffs_of_tifffile_are_read_rightly_or_refused() -> None:
    wrong, read = [], set()
    for number, (name, data, stored, expected) in enumerate(tifffile_grid()):
        if number % 13 == 0:
            np.testing.assert_array_equal(tifffile.imread(io.BytesIO(data)), stored)
        off = differs(data, expected)
        if off is not None:
            read.add(name)
            wrong += [(name, off)] if off > 1 else []
    assert not wrong
    # All of 8 and 16 bits that Pillow has a mode for, in each byte order; float in [0, 1] for gray.
    for kind, order, packed in itertools.product(("u1", "u2"), "<>", ("", "zlib", "zlib, predictor")):
        for name in ("RGB", "RGBA", "CMYK", "RGB in tiles", "RGB in strips"):
            for planes in ("contig", "separate"):
                assert (name, kind, order, packed, planes) in read
        assert ("gray", kind, order, packed, "contig") in read
    for order, packed in itertools.product("<>", ("", "zlib")):
        assert ("gray", "f4", order, packed, "contig") in read
    assert {name[1] for name in read} == {"u1", "u2", "f4"}
    assert len(read) > 190


def test_16_bit_planes_without_compression() -> None:
    """The reported layout: mean error 58 levels, and no error."""
    deep = RGB.astype(np.uint16) * 257
    orders: tuple[Literal["<"], Literal[">"]] = ("<", ">")
    for order in orders:
        sink = io.BytesIO()
        tifffile.imwrite(sink, np.moveaxis(deep, 2, 0).copy(), photometric="rgb", byteorder=order)
        np.testing.assert_array_equal(decode(sink.getvalue()), RGB)


def test_the_reported_planes_equal_their_compressed_copy() -> None:
    folder = shared_data("..", "cases", "images")
    plain, packed = (decode((folder / f"planar16-{kind}-le.tif").read_bytes()) for kind in ("None", "zlib"))
    np.testing.assert_array_equal(plain, packed)


# --- TIFF, written here: bits, fill order, palettes, orientation, colour spaces


def test_tiffs_of_any_number_of_bits_are_read_rightly_or_refused() -> None:
    reversed_bits = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]
    read = set()
    for bits, order, packed, fill, white in itertools.product(
        (1, 2, 4, 6, 8, 10, 12, 14, 16), "<>", (False, True), (1, 2), (0, 1)
    ):
        top = (1 << bits) - 1
        levels = (GRAY.astype(int) * top + 127) // 255
        samples = top - levels if white == 0 else levels
        strip = samples.astype(f"{order}u2").tobytes() if bits == 16 else pack_bits(samples, bits)
        strip = reversed_bits[np.frombuffer(strip, np.uint8)].tobytes() if fill == 2 else strip
        tags = tiff_tags(WIDTH, HEIGHT, bits, white, 1) | {266: (3, [fill]), 259: (3, [8 if packed else 1])}
        data = tiff_file([(tags, [zlib.compress(strip) if packed else strip])], order)
        off = differs(data, np.rint(levels * (255 / top)))
        if off is not None:
            assert off <= 1, (bits, order, packed, fill, white)
            read.add(bits)
    assert read == {1, 2, 4, 8, 12, 16}
    for bits, planes, packed in itertools.product((1, 2, 4, 5, 10, 12, 14), (1, 2), (False, True)):
        top = (1 << bits) - 1
        levels = (RGB.astype(int) * top + 127) // 255
        parts = [levels] if planes == 1 else [levels[..., channel] for channel in range(3)]
        strips = [zlib.compress(pack_bits(part, bits)) if packed else pack_bits(part, bits) for part in parts]
        tags = tiff_tags(WIDTH, HEIGHT, bits, 2, 3) | {284: (3, [planes]), 259: (3, [8 if packed else 1])}
        off = differs(tiff_file([(tags, strips)]), np.rint(levels * (255 / top)))
        assert off is None or off <= 1, (bits, planes, packed)


@pytest.mark.parametrize("scale", [257, 1])  # 16 bits as the standard has it, and 8 as old programs wrote
def test_palettes_of_tiffs(scale: int) -> None:
    for bits, order, packed in itertools.product((1, 2, 4, 8), "<>", (False, True)):
        colours = np.random.default_rng(bits).integers(0, 256, (1 << bits, 3))
        indices = (GRAY.astype(int) * ((1 << bits) - 1) + 127) // 255
        strip = pack_bits(indices, bits)
        tags = tiff_tags(WIDTH, HEIGHT, bits, 3, 1) | {259: (3, [8 if packed else 1])}
        tags[320] = 3, (colours.T.ravel() * scale).tolist()
        data = tiff_file([(tags, [zlib.compress(strip) if packed else strip])], order)
        np.testing.assert_array_equal(decode(data), colours[indices])


def test_orientation_depth_and_planes_of_tiffs() -> None:
    for turn, packed, bits, planes in itertools.product(range(1, 9), (False, True), (8, 16), (1, 2)):
        stored = stored_for(RGB, turn).astype(f"<u{bits // 8}") * (257 if bits == 16 else 1)
        parts = [stored] if planes == 1 else [stored[..., channel] for channel in range(3)]
        strips = [zlib.compress(part.tobytes()) if packed else part.tobytes() for part in parts]
        tags = tiff_tags(stored.shape[1], stored.shape[0], bits, 2, 3)
        tags |= {274: (3, [turn]), 284: (3, [planes]), 259: (3, [8 if packed else 1])}
        assert differs(tiff_file([(tags, strips)]), RGB) == 0, (turn, packed, bits, planes)


def test_subsampled_colour_in_a_tiff_is_read_rightly_or_refused() -> None:
    luma = cv2.cvtColor(RGB, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    tags = tiff_tags(WIDTH, HEIGHT, 8, 6, 3)
    whole = tiff_file([(tags | {530: (3, [1, 1])}, [luma.tobytes()])])
    off = differs(whole, RGB)
    assert off is not None
    assert off <= 3  # rounded twice
    for factors in ({530: (3, [2, 2])}, {530: (3, [2, 1])}, {}):  # none stated means 2, 2
        # Enough bytes for a reader that does not care.
        with pytest.raises(ImageError, match="subsampled colour"):
            decode(tiff_file([(tags | factors, [luma.tobytes()])]))


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({339: (3, [2])}, Status.NOT_AN_IMAGE, "signed samples have no declared white"),
        ({262: None}, Status.CORRUPT, "PhotometricInterpretation, which says what 0 is, is missing"),
    ],
)
def test_tiffs_that_do_not_say_what_samples_mean_are_refused(changes: dict, status: Status, reason: str) -> None:
    tags = {tag: value for tag, value in (tiff_tags(WIDTH, HEIGHT, 8, 1, 1) | changes).items() if value}
    with pytest.raises(ImageError, match=reason) as caught:
        decode(tiff_file([(tags, [GRAY.tobytes()])]))
    assert caught.value.status == status


def test_every_compression_of_libtiff() -> None:
    read = set()
    kinds = ("raw", "tiff_lzw", "packbits", "tiff_adobe_deflate", "tiff_deflate", "zstd", "lzma", "jpeg", "group4")
    for kind, mode in itertools.product(kinds, ("RGB", "L", "1", "RGBA", "CMYK", "P", "YCbCr", "LA")):
        image = Image.fromarray(RGB).convert(mode)
        try:
            data = save(image, "TIFF", compression=kind)
        except Exception:  # not every mode with every compression
            continue
        off = differs(data, np.asarray(image.convert("RGB")))
        if off is not None:
            assert off <= (90 if kind == "jpeg" else 3 if mode == "YCbCr" else 1), (kind, mode)
            read.add(kind)
    assert {"raw", "tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg", "group4"} <= read


# --- PNG


def adam7(samples: np.ndarray, bits: int, colour: int) -> bytes:
    rows = b""
    for left, top, across, down in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
    ):  # fmt: skip
        part = samples[top::down, left::across]
        rows += b"".join(b"\0" + pack_bits(row[None], bits) for row in part)
    data = bytearray(png_of(WIDTH, HEIGHT, bits, colour, zlib.compress(rows)))
    data[28] = 1
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def test_pngs_of_every_depth_plain_and_interlaced() -> None:
    for bits in (1, 2, 4, 8, 16):
        top = (1 << bits) - 1
        gray = (GRAY.astype(int) * top + 127) // 255
        rows = b"".join(b"\0" + pack_bits(row[None], bits) for row in gray)
        for data in (png_of(WIDTH, HEIGHT, bits, 0, zlib.compress(rows)), adam7(gray, bits, 0)):
            assert (differs(data, np.rint(gray * (255 / top))) or 0) <= 1, bits
            read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
            assert read is not None
            assert np.abs(read - gray * (255 / top)).max() <= 1
        if bits >= 8:
            deep = (RGB.astype(int) * top) // 255
            for samples, colour in ((deep, 2), (np.dstack([deep, np.full_like(gray, top)]), 6)):
                assert differs(adam7(samples, bits, colour), RGB) == 0
                assert differs(png(samples, bits=bits), RGB) == 0


def test_a_transparent_colour_of_16_bits_is_refused() -> None:
    """Only 8 bits of each sample arrive, so other colours would become transparent, or the right one would not."""
    deep = np.full((80, 96, 3), 0x1234)
    deep[:, 48:] = 0x1256
    data = png(deep, extra=png_chunk(b"tRNS", struct.pack(">3H", 0x1234, 0x1234, 0x1234)))
    with pytest.raises(ImageError, match="16-bit colour with a transparent colour"):
        decode(data)


# --- BMP


def bitmap(pixels: bytes, bits: int, compression: int, header: int, masks: tuple[int, ...], *, down: bool) -> bytes:
    height = -HEIGHT if down else HEIGHT
    fields = struct.pack("<IiiHHIIiiII", header, WIDTH, height, 1, bits, compression, len(pixels), 0, 0, 0, 0)
    fields += struct.pack(f"<{len(masks)}I", *masks)
    fields = fields.ljust(14 + header - 14, b"\0")
    start = 14 + len(fields)
    return b"BM" + struct.pack("<3I", start + len(pixels), 0, start) + fields + pixels


def bitmap_rows(samples: np.ndarray, *, down: bool) -> bytes:
    rows = samples if down else samples[::-1]
    return b"".join(row.tobytes() + bytes(-len(row.tobytes()) % 4) for row in rows)


def test_bitmaps_of_16_and_32_bits_are_read_rightly_or_refused() -> None:
    read = set()
    red, green, blue = (RGB[..., channel].astype(int) for channel in range(3))
    for down, header in itertools.product((False, True), (40, 52, 56, 108, 124)):
        for name, masks, order in (
            ("BGRA", (0xFF0000, 0xFF00, 0xFF, 0xFF000000), (2, 1, 0, 3)),
            ("BGRX", (0xFF0000, 0xFF00, 0xFF, 0), (2, 1, 0, 3)),
            ("RGBA", (0xFF, 0xFF00, 0xFF0000, 0xFF000000), (0, 1, 2, 3)),
            ("ABGR", (0xFF000000, 0xFF0000, 0xFF00, 0xFF), (3, 2, 1, 0)),
        ):
            for alpha in (0, 255):
                samples = np.dstack([RGB, np.full_like(GRAY, alpha)])[..., order]
                given = masks if header >= 56 else masks[:3]
                data = bitmap(bitmap_rows(samples, down=down), 32, 3, header, given, down=down)
                off = differs(data, RGB)
                assert off in (0, None), (name, header, alpha)
                read |= {(name, header, alpha)} if off == 0 else set()
        for name, masks, packed, depth in (
            ("555", (0x7C00, 0x3E0, 0x1F), red >> 3 << 10 | green >> 3 << 5 | blue >> 3, (3, 3, 3)),
            ("565", (0xF800, 0x7E0, 0x1F), red >> 3 << 11 | green >> 2 << 5 | blue >> 3, (3, 2, 3)),
            ("444", (0xF00, 0xF0, 0xF), red >> 4 << 8 | green >> 4 << 4 | blue >> 4, (4, 4, 4)),
        ):
            data = bitmap(bitmap_rows(packed.astype("<u2"), down=down), 16, 3, header, masks, down=down)
            shift = np.array(depth)
            off = differs(data, np.rint((RGB >> shift) * (255 / (255 >> shift))))
            assert off is None or off <= 1, (name, header)
            read |= {(name, header)} if off is not None else set()
    assert {("BGRA", 124, 0), ("BGRA", 124, 255), ("555", 40), ("565", 108)} <= read


# --- PNM and JPEG 2000


def test_pnm_of_every_white() -> None:
    size = b"%d %d\n" % (WIDTH, HEIGHT)
    for white in (1, 3, 31, 127, 200, 255, 256, 1000, 4095, FULL):
        dtype = ">u2" if white > 255 else "u1"
        for levels, raw, plain in ((GRAY, b"P5\n", b"P2\n"), (RGB, b"P6\n", b"P3\n")):
            samples = (levels.astype(int) * white + 127) // 255
            expected = np.rint(samples * (255 / white))
            text = b" ".join(b"%d" % value for value in samples.ravel().tolist())
            head = b"# a comment\n" + size + b"%d\n" % white
            for data in (raw + head + samples.astype(dtype).tobytes(), plain + head + text):
                off = differs(data, expected)
                assert off is not None, white
                assert off <= 1, white
    bits = (GRAY > 128).astype(int)
    assert differs(b"P4\n" + size + pack_bits(bits, 1), 255 * (1 - bits)) == 0


def test_jpeg_2000_of_8_and_16_bits() -> None:
    for levels, deep in itertools.product((GRAY, RGB), (False, True)):
        samples = levels.astype(np.uint16) * 257 if deep else levels
        done, buffer = cv2.imencode(".jp2", samples[..., ::-1] if levels.ndim == 3 else samples)
        assert done
        off = differs(buffer.tobytes(), levels)
        if deep and levels.ndim == 3:
            assert off is None  # Pillow makes white black there, silently
        else:
            assert off is not None
            assert off <= 1
    done, buffer = cv2.imencode(".jp2", RGB.astype(np.uint16) * 257)
    with pytest.raises(ImageError, match="JPEG 2000 in colour with more than 8 bits"):
        decode(buffer.tobytes())


def test_jpegs_of_four_inks_with_and_without_the_mark_of_adobe() -> None:
    data = save(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95)
    at = data.index(b"\xff\xee")
    bare = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    for file in (data, bare):
        read = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
        assert read is not None
        assert np.abs(decode(file).astype(int) - read[..., ::-1]).mean() < 1


def test_files_of_opencv() -> None:
    for suffix, levels in itertools.product(
        (".png", ".tif", ".ppm", ".bmp", ".webp"), (RGB, RGB.astype(np.uint16) * 257)
    ):
        if levels.dtype == np.uint16 and suffix in (".bmp", ".webp"):
            continue
        options = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []
        done, buffer = cv2.imencode(suffix, levels[..., ::-1], options)
        assert done
        assert differs(buffer.tobytes(), RGB) == 0, suffix
    done, buffer = cv2.imencode(".tif", (GRAY / 255).astype(np.float32))
    assert differs(buffer.tobytes(), GRAY) == 0


# --- alpha that hides everything


def hidden(kind: str) -> bytes:
    clear = np.dstack([RGB, 0 * GRAY])
    if kind == "BMP":
        masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        return bitmap(bitmap_rows(clear[..., (2, 1, 0, 3)], down=False), 32, 3, 124, masks, down=False)
    return encode(clear, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PNG", "JPEG2000"])
def test_alpha_that_hides_everything_is_not_believed(kind: str) -> None:
    np.testing.assert_array_equal(decode(hidden(kind), DecodeLimits(background=(1, 2, 3))), RGB)


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_alpha_that_hides_everything_is_believed_where_hidden_colours_mean_nothing(kind: str) -> None:
    assert (decode(hidden(kind), DecodeLimits(background=(1, 2, 3))) == (1, 2, 3)).all()


def test_one_visible_pixel_makes_alpha_believed() -> None:
    some = np.dstack([RGB, 0 * GRAY])
    some[5, 7, 3] = 255
    rgb = decode(encode(some, "PNG"), DecodeLimits(background=(1, 2, 3)))
    np.testing.assert_array_equal(rgb[5, 7], RGB[5, 7])
    assert (np.delete(rgb.reshape(-1, 3), 5 * WIDTH + 7, axis=0) == (1, 2, 3)).all()


def test_gray_with_alpha_that_hides_everything() -> None:
    data = png(np.dstack([GRAY, 0 * GRAY]), bits=8)
    np.testing.assert_array_equal(decode(data), three(GRAY))


# --- the first image of a container


@pytest.mark.parametrize("key", [None, 3])
def test_a_gif_frame_smaller_than_its_canvas_lies_on_the_background(key: int | None) -> None:
    palette = Image.fromarray(RGB).quantize(16)
    data = bytearray(save(palette, "GIF", **({} if key is None else {"transparency": key})))
    data[6:10] = struct.pack("<HH", WIDTH + 60, HEIGHT + 40)
    at = data.index(b"," + struct.pack("<HHHH", 0, 0, WIDTH, HEIGHT))
    data[at + 1 : at + 5] = struct.pack("<HH", 20, 30)
    rgb = decode(bytes(data), DecodeLimits(background=(1, 2, 3)))
    expected = np.full((HEIGHT + 40, WIDTH + 60, 3), (1, 2, 3), np.uint8)
    frame = np.asarray(palette.convert("RGB"))
    visible = np.asarray(palette) != (-1 if key is None else key)
    expected[30 : 30 + HEIGHT, 20 : 20 + WIDTH][visible] = frame[visible]
    np.testing.assert_array_equal(rgb, expected)


def test_the_reported_containers() -> None:
    folder = shared_data("..", "cases", "images")
    assert decode((folder / "like-nef.tif").read_bytes()).shape == (192, 256, 3)
    assert (decode((folder / "offset.gif").read_bytes())[0, 0] == 255).all()
    empty, opaque = (decode((folder / f"v5-alpha{alpha}.bmp").read_bytes()) for alpha in (0, 255))
    np.testing.assert_array_equal(empty, opaque)
