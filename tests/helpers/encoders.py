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
