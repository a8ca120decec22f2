"""Small writers for pictures that Pillow reads but cannot write, and pictures to write."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

_PNG_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> colour type (PNG specification, IHDR)


def picture(seed: int, width: int = 96, height: int = 80) -> np.ndarray:
    """A smooth coloured scene with edges, uint8 HxWx3; different seeds are far apart in dHash."""
    generator = np.random.default_rng(seed)
    rough = Image.fromarray(generator.integers(0, 256, (7, 8, 3), dtype=np.uint8))
    return np.asarray(rough.resize((width, height), Image.Resampling.BICUBIC)).copy()


def encode(rgb: np.ndarray, kind: str, **options: Any) -> bytes:
    """Write with Pillow; ``kind`` is its name of the format."""
    return save(Image.fromarray(rgb), kind, **options)


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Write a Pillow image to bytes."""
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples: np.ndarray, *, bits: int = 16, extra: bytes = b"") -> bytes:
    """A PNG of 8 or 16 bits from HxW or HxWxC samples; ``extra`` chunks come before the pixels."""
    height, width = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    wide = samples.astype(">u2" if bits == 16 else np.uint8).reshape(height, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    return png_of(width, height, bits, _PNG_COLOUR[channels], zlib.compress(rows), extra)


def png_of(width: int, height: int, bits: int, colour: int, pixels: bytes, extra: bytes = b"") -> bytes:
    """A PNG with any header and any compressed pixels, right or wrong."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff_gray(width: int, height: int, bits: int, pixels: bytes, *, photometric: int = 1, form: int = 1) -> bytes:
    """An uncompressed little-endian gray TIFF; ``form`` is the sample format (1 unsigned, 2 signed, 3 float)."""
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, height)]
    tags += [(279, len(pixels)), (339, form)]
    padded = pixels + b"\0" * (len(pixels) % 2)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<2sHI", b"II", 42, 8 + len(padded)) + padded + struct.pack("<H", len(tags)) + entries + bytes(4)


TiffTags = dict[int, tuple[int, list[int]]]
"""Type (1 byte, 3 short, 4 long) and values by tag."""


def tiff_file(directories: list[tuple[TiffTags, list[bytes]]], order: str = "<") -> bytes:
    """A TIFF of any tags: each directory has strips of its own; the first is linked to by the header.

    Directories are linked in order, but for those behind one with the tag 330 (SubIFDs), whose value is replaced by
    the offset of the next directory.
    """
    body, offsets = b"", []
    tables: list[tuple[TiffTags, bytes]] = []
    for tags, strips in directories:
        starts = []
        for strip in strips:
            starts.append(8 + len(body))
            body += strip + bytes(len(strip) % 2)
        tags = tags | {273: (4, starts), 279: (4, [len(strip) for strip in strips])}
        tables.append((tags, body))
    at = 8 + len(body)
    for tags, _ in tables:
        offsets.append(at)
        at += len(_directory(tags, at, 0, order))
    written = b""
    for number, (tags, _) in enumerate(tables):
        following = offsets[number + 1] if number + 1 < len(offsets) else 0
        if 330 in tags:
            tags[330] = (4, [following])
            following = 0
        written += _directory(tags, offsets[number], following, order)
    return (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, offsets[0]) + body + written


def _directory(tags: TiffTags, at: int, following: int, order: str) -> bytes:
    letters, entries, outside = {1: "B", 3: "H", 4: "I"}, b"", b""
    end = at + 6 + 12 * len(tags)
    for tag, (kind, values) in sorted(tags.items()):
        data = struct.pack(f"{order}{len(values)}{letters[kind]}", *values)
        entries += struct.pack(f"{order}HHI", tag, kind, len(values))
        if len(data) <= 4:
            entries += data.ljust(4, b"\0")
        else:
            entries += struct.pack(f"{order}I", end + len(outside))
            outside += data + bytes(len(data) % 2)
    return struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", following) + outside


def tiff_tags(width: int, height: int, bits: int, photometric: int, samples: int) -> TiffTags:
    """The tags that a picture needs, uncompressed, in one strip."""
    tags = {256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * samples), 259: (3, [1]), 262: (3, [photometric])}
    return tags | {277: (3, [samples]), 278: (4, [height])}


def pack_bits(samples: np.ndarray, bits: int) -> bytes:
    """Rows of samples of any number of bits, high bits first, each row beginning with a new byte."""
    flat = samples.reshape(len(samples), -1)
    each = (flat[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(each.astype(np.uint8).reshape(len(samples), -1), axis=1).tobytes()


def pack_12_bits(samples: np.ndarray) -> bytes:
    """Rows of 12-bit samples, two in three bytes, high bits first; the width must be even."""
    left, right = samples[:, ::2].astype(np.uint16), samples[:, 1::2].astype(np.uint16)
    three = np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], axis=-1)
    return three.astype(np.uint8).tobytes()


def exif_turn(orientation: int) -> bytes:
    """EXIF with an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def stored_for(upright: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores so that turning by ``orientation`` gives ``upright`` (TIFF 6.0, tag 274, in numpy terms)."""
    transposed = upright.transpose(1, 0, 2)
    turned = {
        1: upright,
        2: upright[:, ::-1],  # row 0 is the top, column 0 the right side
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: transposed,  # row 0 is the left side, column 0 the top
        6: transposed[::-1],  # right side, top
        7: transposed[::-1, ::-1],  # right side, bottom
        8: transposed[:, ::-1],  # left side, bottom
    }
    return np.ascontiguousarray(turned[orientation])
