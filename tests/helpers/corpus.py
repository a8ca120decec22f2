"""Good, odd and bad image files, each with what ``DecodeLimits()`` makes of it."""

import os
import struct
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

from pseudo_labels.records import Status
from tests.helpers.encoders import (
    encode,
    exif_turn,
    pack_12_bits,
    picture,
    png,
    png_chunk,
    png_of,
    save,
    stored_for,
    tiff_gray,
)

UPRIGHT = picture(1000, 96, 80)
"""What each of the eight files ``turn-*.png`` shows once it is upright, to the pixel."""

_OK, _BAD, _NONE, _SMALL, _LARGE = Status.OK, Status.CORRUPT, Status.NOT_AN_IMAGE, Status.TOO_SMALL, Status.TOO_LARGE
_File = tuple[str, bytes, Status, str]


class CorpusItem(NamedTuple):
    """One file of the corpus.

    Attributes:
        name: printable, unlike the file's name.
        path: may lead to a folder (``os.path.isdir(path)``), a pipe, a device or nothing at all.
        expected_status: of its row in a pool, a label store or a list of scores. Good files differ in bytes, and in
            scene unless they are ``turn-*``.
        note: what is odd about it.
    """

    name: str
    path: Path
    expected_status: Status
    note: str


def build_corpus(folder: Path) -> list[CorpusItem]:
    """Fill ``folder`` with about 160 files of more than 100 kinds.

    All but ``vanished`` are listed with the folder. One is a pipe and one a link to an endless device: whoever
    opens them carelessly hangs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for file, data, status, note in (
        *_formats(),
        *_depths(),
        *_turns(),
        *_sizes(),
        *_damaged(),
        *_disguised(),
        *_names(),
    ):
        path = Path(os.fsdecode(os.path.join(os.fsencode(folder), os.fsencode(file))))
        path.write_bytes(data)
        items.append(CorpusItem(ascii(file)[1:-1], path, status, note))
    return items + list(_not_files(folder))


def _formats() -> Iterator[_File]:
    seeds = iter(range(100, 200))

    def fresh() -> np.ndarray:
        return picture(next(seeds))

    def frames() -> list[Image.Image]:
        return [Image.fromarray(fresh()) for _ in range(3)]

    for kind, suffix in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("BMP", "bmp"), ("TIFF", "tif")):
        yield f"plain.{suffix}", encode(fresh(), kind), _OK, f"plain {kind}"
    for kind, suffix in (("GIF", "gif"), ("JPEG2000", "jp2"), ("AVIF", "avif"), ("PPM", "ppm")):
        yield f"plain.{suffix}", encode(fresh(), kind), _OK, f"plain {kind}"
    yield "progressive.jpg", encode(fresh(), "JPEG", progressive=True), _OK, "progressive JPEG"
    yield "gray.jpg", save(Image.fromarray(fresh()).convert("L"), "JPEG"), _OK, "JPEG of one channel"
    yield "icc.jpg", encode(fresh(), "JPEG", icc_profile=_icc()), _OK, "embedded colour profile"
    yield "huge-exif.jpg", encode(fresh(), "JPEG", exif=_huge_exif()), _OK, "60 KB of EXIF"
    yield (
        "bad-exif.jpg",
        encode(fresh(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffnonsense"),
        _OK,
        "EXIF is nonsense",
    )
    yield "tail.jpg", encode(fresh(), "JPEG") + b"garbage" * 500, _OK, "garbage behind the end"
    yield "cmyk.jpg", save(Image.fromarray(fresh()).convert("CMYK"), "JPEG"), _OK, "CMYK as Adobe writes it"
    yield "cmyk.tif", save(Image.fromarray(fresh()).convert("CMYK"), "TIFF"), _OK, "CMYK, uncompressed"
    yield "lzw.tif", encode(fresh(), "TIFF", compression="tiff_lzw"), _OK, "LZW TIFF"
    yield "jpeg-in.tif", encode(fresh(), "TIFF", compression="jpeg"), _OK, "JPEG in TIFF"
    yield "lossless.webp", encode(fresh(), "WEBP", lossless=True), _OK, "lossless WebP"
    yield "stream.j2k", encode(fresh(), "JPEG2000", no_jp2=True), _OK, "JPEG 2000 without its box"
    for kind, suffix in (("GIF", "gif"), ("WEBP", "webp"), ("PNG", "apng"), ("TIFF", "tiff"), ("AVIF", "avif")):
        first, *rest = frames()
        yield f"frames.{suffix}", save(first, kind, save_all=True, append_images=rest), _OK, f"three frames of {kind}"
    first, *rest = frames()
    yield "frames.mpo", save(first, "MPO", save_all=True, append_images=rest), _OK, "stereo camera's MPO"


def _depths() -> Iterator[_File]:
    rgb = [picture(seed) for seed in range(200, 230)]
    gray16 = [image[..., 0].astype(np.uint16) * 257 for image in rgb]
    shade = np.linspace(0, 255, rgb[0].shape[1], dtype=np.uint8)[None, :].repeat(rgb[0].shape[0], axis=0)
    palette, other = (Image.fromarray(rgb[number]).quantize(16) for number in (0, 20))
    yield "palette.png", save(palette, "PNG"), _OK, "palette"
    yield "palette-alpha.png", save(other, "PNG", transparency=bytes(range(0, 256, 16))), _OK, "palette with alpha"
    yield (
        "palette-key.gif",
        save(Image.fromarray(rgb[1]).quantize(16), "GIF", transparency=3),
        _OK,
        "transparent colour",
    )
    yield "gray-alpha.png", png(np.dstack([rgb[2][..., 0], shade]), bits=8), _OK, "gray with alpha"
    yield "rgba.png", png(np.dstack([rgb[3], shade]), bits=8), _OK, "RGBA"
    yield "rgba.webp", encode(np.dstack([rgb[4], shade]), "WEBP"), _OK, "RGBA WebP"
    yield "rgba.tif", encode(np.dstack([rgb[5], shade]), "TIFF"), _OK, "RGBA TIFF"
    yield (
        "key.png",
        png(rgb[6], bits=8, extra=png_chunk(b"tRNS", bytes([0, 9, 0, 9, 0, 9]))),
        _OK,
        "transparent RGB colour",
    )
    yield "one-bit.png", save(Image.fromarray(rgb[7]).convert("1"), "PNG"), _OK, "1 bit"
    yield "one-bit.pbm", save(Image.fromarray(rgb[8]).convert("1"), "PPM"), _OK, "1 bit PBM"
    yield "gray16.png", png(gray16[9]), _OK, "16-bit gray"
    yield "gray16-alpha.png", png(np.dstack([gray16[10], shade.astype(np.uint16) * 257])), _OK, "16-bit gray with alpha"
    yield "rgb16.png", png(rgb[11].astype(np.uint16) * 257), _OK, "16-bit RGB"
    yield "rgba16.png", png(np.dstack([rgb[12], shade]).astype(np.uint16) * 257), _OK, "16-bit RGBA"
    yield "gray16.pgm", save(Image.fromarray(gray16[13]), "PPM"), _OK, "16-bit PGM"
    yield "gray16.tif", tiff_gray(96, 80, 16, gray16[14].astype("<u2").tobytes()), _OK, "16-bit gray TIFF"
    inverted = (65535 - gray16[15]).astype("<u2").tobytes()
    yield "white-zero.tif", tiff_gray(96, 80, 16, inverted, photometric=0), _OK, "16-bit, white is zero"
    yield "gray12.tif", tiff_gray(96, 80, 12, pack_12_bits(gray16[16] >> 4)), _OK, "12-bit gray TIFF"
    unit = (rgb[17][..., 0] / np.float32(255)).astype("<f4")
    yield "float.tif", tiff_gray(96, 80, 32, unit.tobytes(), form=3), _OK, "float in [0, 1]"
    yield "float-wide.tif", tiff_gray(96, 80, 32, (unit * 3).tobytes(), form=3), _NONE, "float above 1"
    yield "float-nan.tif", tiff_gray(96, 80, 32, (unit * np.float32("nan")).tobytes(), form=3), _NONE, "float NaN"
    yield "int32.tif", tiff_gray(96, 80, 32, gray16[18].astype("<u4").tobytes()), _NONE, "32-bit integers"
    yield "signed16.tif", tiff_gray(96, 80, 16, (gray16[19] >> 1).tobytes(), form=2), _NONE, "signed 16-bit integers"


def _turns() -> Iterator[_File]:
    for turn in range(1, 9):
        data = encode(stored_for(UPRIGHT, turn), "PNG", exif=exif_turn(turn))
        yield f"turn-{turn}.png", data, _OK, f"EXIF orientation {turn}"
    yield "turn-9.png", encode(UPRIGHT, "PNG", exif=exif_turn(9)), _OK, "EXIF orientation 9 does not exist"
    yield "turned.jpg", encode(picture(1001), "JPEG", exif=exif_turn(6)), _OK, "JPEG on its side"
    yield "turned.tif", encode(picture(1002), "TIFF", exif=exif_turn(6)), _OK, "TIFF on its side"
    yield "turned.webp", encode(picture(1003), "WEBP", exif=exif_turn(8)), _OK, "WebP on its side"
    yield "turned.avif", encode(picture(1004), "AVIF", exif=exif_turn(3)), _OK, "AVIF upside down"


def _sizes() -> Iterator[_File]:
    for width, height, status in ((64, 64, _OK), (1, 1, _SMALL), (1, 5000, _SMALL), (63, 64, _SMALL), (64, 63, _SMALL)):
        yield f"{width}x{height}.png", encode(picture(width, width, height), "PNG"), status, "size"
    yield "wide.png", encode(picture(5, 5000, 64), "PNG"), _OK, "very wide"
    yield "bomb.png", png_of(50_000, 50_000, 8, 2, zlib.compress(bytes(1000))), _LARGE, "2.5 gigapixels in 100 bytes"
    yield "bomb.jpg", _jpeg_frame(65_500, 65_500), _LARGE, "4.3 gigapixels"
    yield (
        "bomb.gif",
        _patched(encode(picture(6), "GIF"), 6, struct.pack("<HH", 65_535, 65_535)),
        _LARGE,
        "4.3 gigapixels",
    )
    yield "bomb.bmp", _patched(encode(picture(6), "BMP"), 18, struct.pack("<ii", 1 << 20, 1 << 20)), _LARGE, "terapixel"
    yield "bomb.ppm", b"P6 100000 100000 255\n" + bytes(1000), _LARGE, "10 gigapixels"
    yield "bomb.tif", tiff_gray(1 << 20, 1 << 20, 8, bytes(1000)), _LARGE, "terapixel"
    yield "bomb.webp", _webp_canvas(16_000, 16_000), _LARGE, "256 megapixels"
    yield "bomb-text.png", _text_bomb(), _BAD, "100 MB of text in 100 KB"


def _damaged() -> Iterator[_File]:
    yield "empty.jpg", b"", Status.EMPTY, "zero bytes"
    for kind, suffix, offsets in (
        ("JPEG", "jpg", (0.1, 0.5, 0.9)),
        ("PNG", "png", (0.1, 0.5, 0.9)),
        ("GIF", "gif", (0.3, 0.7)),
        ("WEBP", "webp", (0.2, 0.5, 0.9)),
        ("TIFF", "tif", (0.01, 0.5, 0.99)),
        ("BMP", "bmp", (0.001, 0.5, 0.99)),
        ("JPEG2000", "jp2", (0.02, 0.0345, 0.5)),
        ("AVIF", "avif", (0.1, 0.5, 0.9)),
        ("PPM", "ppm", (0.0003, 0.5, 0.99)),
    ):
        whole = encode(picture(300), kind)
        for fraction in offsets:
            yield (
                f"cut-{fraction:g}.{suffix}",
                whole[: max(9, int(fraction * len(whole)))],
                _BAD,
                f"{kind} cut at {fraction:.2%}",
            )
    whole = encode(picture(301), "PNG")
    yield "cut-signature.png", whole[:5], _NONE, "five bytes of a PNG"
    yield "crc.png", _patched(whole, 29, b"\0\0\0\0"), _BAD, "wrong CRC of the header"
    yield "no-width.png", png_of(0, 80, 8, 2, zlib.compress(bytes(9))), _BAD, "width 0"
    yield "odd-depth.png", png_of(80, 80, 7, 2, zlib.compress(bytes(9))), _BAD, "7 bits"
    yield "not-zlib.png", png_of(80, 80, 8, 2, bytes(range(256)) * 8), _BAD, "pixels are not compressed data"
    yield "no-height.jpg", _jpeg_frame(80, 0), _BAD, "height 0"
    yield "12-bit.jpg", _jpeg_frame(80, 80, bits=12), _BAD, "12-bit JPEG"
    yield (
        "soup.jpg",
        b"\xff\xd8\xff\xe0" + np.random.default_rng(7).bytes(4000),
        _BAD,
        "noise behind a JPEG's first bytes",
    )
    yield "soup.tif", b"II*\0" + np.random.default_rng(8).bytes(4000), _BAD, "noise behind a TIFF's first bytes"
    yield "loop.tif", b"II*\0" + struct.pack("<IHI", 8, 0, 8), _BAD, "TIFF directory that points at itself"


def _disguised() -> Iterator[_File]:
    yield "really-png.jpg", encode(picture(400), "PNG"), _OK, "PNG named .jpg"
    yield "really-jpeg.png", encode(picture(401), "JPEG"), _OK, "JPEG named .png"
    yield "UPPER.JPG", encode(picture(402), "JPEG"), _OK, "suffix in capitals"
    yield "text.jpg", b"Ceci n'est pas une image.\n" * 20, _NONE, "text"
    yield "page.png", b"<!DOCTYPE html><html><body>404</body></html>", _NONE, "web page"
    yield "vector.png", b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", _NONE, "SVG"
    yield "script.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\nshowpage\n", _NONE, "PostScript"
    yield "paper.jpg", b"%PDF-1.7\n", _NONE, "PDF"
    yield "layers.tif", b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 80, 80, 8, 3) + bytes(80), _NONE, "Photoshop"
    yield "icon.png", save(Image.fromarray(picture(403)), "ICO"), _NONE, "Windows icon"
    heic = _BAD if find_spec("pillow_heif") else _NONE
    yield "phone.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), heic, "HEIC without content"
    yield "film.gif", b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2mp41" + bytes(100), _NONE, "MP4"
    yield "zip.png", b"PK\3\4" + bytes(100), _NONE, "ZIP"
    yield "zeros.jpg", bytes(5000), _NONE, "zeros"
    yield "noise.jpg", np.random.default_rng(9).bytes(5000), _NONE, "noise"


def _names() -> Iterator[_File]:
    names = [
        "with space.jpg",
        " lead and trail .jpg",
        "new\nline.jpg",
        "tab\there.jpg",
        "quote\"s'.jpg",
        "back\\slash.jpg",
    ]
    names += ["🌄📷.jpg", "صورة.jpg", "照片.jpg", "Снимок.jpg", "e\u0301te\u0301.jpg", "été.jpg", "\u202egpj.jpg"]
    names += [
        "-rf.jpg",
        "--help.jpg",
        ".hidden.jpg",
        "100%25#row?x=1&y.jpg",
        "=1+1,2;3.jpg",
        "a::b.jpg",
        "\x1b[31mred.jpg",
    ]
    names += ["{braces}[0-9]*.jpg", "$HOME`id`.jpg", "n" * 251 + ".jpg", os.fsdecode(b"latin-\xe9\xff.jpg")]
    for seed, name in enumerate(names, start=500):
        yield name, encode(picture(seed), "JPEG"), _OK, "name"


def _not_files(folder: Path) -> Iterator[CorpusItem]:
    def item(name: str, status: Status, note: str) -> CorpusItem:
        return CorpusItem(name, folder / name, status, note)

    (folder / "target.bin").write_bytes(encode(picture(600), "JPEG"))
    (folder / "linked.jpg").symlink_to("target.bin")
    yield item("linked.jpg", _OK, "link to an image whose own name is not one")
    (folder / "broken.jpg").symlink_to("nowhere.jpg")
    yield item("broken.jpg", Status.MISSING, "broken link")
    (folder / "ring-a.jpg").symlink_to("ring-b.jpg")
    (folder / "ring-b.jpg").symlink_to("ring-a.jpg")
    yield item("ring-a.jpg", Status.UNREADABLE, "link loop")
    yield item("ring-b.jpg", Status.UNREADABLE, "link loop")
    yield item("vanished.jpg", Status.MISSING, "was never there")
    (folder / "folder.jpg").mkdir(exist_ok=True)
    yield item("folder.jpg", Status.UNREADABLE, "folder named like an image")
    (folder / "upward").symlink_to(".")
    yield item("upward", Status.UNREADABLE, "link to the folder it is in")
    os.mkfifo(folder / "pipe.jpg")
    yield item("pipe.jpg", Status.UNREADABLE, "pipe")
    (folder / "endless.jpg").symlink_to("/dev/zero")
    yield item("endless.jpg", Status.UNREADABLE, "device without an end")
    (folder / "locked.jpg").write_bytes(encode(picture(601), "JPEG"))
    (folder / "locked.jpg").chmod(0)
    locked = not os.access(folder / "locked.jpg", os.R_OK)  # nothing is locked for root
    yield item("locked.jpg", Status.UNREADABLE if locked else _OK, "no permission to read")


def _patched(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


def _icc() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _huge_exif() -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000
    return exif.tobytes()


def _jpeg_frame(width: int, height: int, bits: int = 8) -> bytes:
    """A JPEG whose frame header (SOF0) was rewritten."""
    data = encode(picture(6), "JPEG")
    return _patched(data, data.index(b"\xff\xc0") + 4, struct.pack(">BHH", bits, height, width))


def _webp_canvas(width: int, height: int) -> bytes:
    """A WebP whose extended header (VP8X) was rewritten."""
    data = encode(np.dstack([picture(6), picture(7)[..., :1]]), "WEBP")
    sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return _patched(data, data.index(b"VP8X") + 12, sides)


def _text_bomb() -> bytes:
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9))
    return png(picture(8), bits=8, extra=text)
