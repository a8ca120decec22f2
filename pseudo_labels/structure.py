"""The structure of image files, read before their decoders do, at the speed of a search for bytes.

Refused is what no encoder writes, but what costs a decoder time or memory without bound: scans of a JPEG, chunks of a
PNG, strips of a TIFF, code-blocks of a JPEG 2000. Each bound is far above what encoders write, and low enough that a
file costs at most 10 seconds of one core. Needs numpy only.
"""

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

import numpy as np

from pseudo_labels.errors import WorkExceededError

MAX_SCANS = 100
"""Scans of a JPEG; libjpeg's own progressive script has 10, mozjpeg's at most 30."""
MAX_SEGMENTS = 20_000
"""Marker segments of a JPEG."""
MAX_STRAY_BYTES = 1 << 20
"""Bytes between the segments of a JPEG that belong to none: padding."""
MAX_FILL_BYTES = 1 << 16
"""Fill bytes (FF) in a row in a JPEG: while they last, libjpeg takes nothing of what it is given, and each further
piece costs as much as all before it."""
MAX_HEADER_BYTES = 1 << 25
"""Bytes before the first scan of a JPEG: EXIF, profile, XMP. Pillow joins them in quadratic time."""
MAX_CHUNKS = 200_000
"""Chunks of a PNG; with the usual 8 KiB each they hold 1.6 GB."""
MAX_CHUNK_BYTES = 1 << 26
"""Bytes of a chunk of a PNG that holds no pixels: Pillow reads it whole."""
MAX_COMPRESSED_TEXTS = 100
"""Compressed texts and profiles in a PNG; each may unfold to a megabyte."""
MAX_ITEM_BYTES = 1 << 18
"""Bytes of the boxes of an AVIF that list its items: libavif compares each item with all before it."""
MAX_TAGS = 4096
MAX_STRIPS = 400_000
"""Strips or tiles of a TIFF: each is a step of Python where it is not compressed."""
MAX_JPEG_STRIPS = 50_000
MAX_RLE_PIXELS = 32_000_000
"""Pixels of a BMP with run lengths, which Pillow unfolds in Python."""
MAX_TILES = 16_384
MAX_TILE_PARTS = 200_000
MAX_CODE_BLOCKS = 4_000_000
MAX_PACKETS = 8_000_000
"""Code-blocks and packets of a JPEG 2000; 100 megapixels in blocks of 32x32 have 0.3 million."""


@dataclass(frozen=True)
class Structure:
    """What ``inspect`` read.

    Attributes:
        buffers: bytes that the decoder will hold beside the picture.
        copies: whole pictures that Pillow holds at a time.
        halvings: how often JPEG 2000 can be halved in decoding.
        scanned: scans of a JPEG times its pixels: each scan passes over all of them, with data for them or without.
    """

    buffers: int = 0
    copies: int = 1
    halvings: int = 0
    scanned: int = 0


def inspect(name: str, file: BinaryIO) -> Structure:
    """Read the structure of an image file, and refuse what would cost without bound.

    Args:
        name: format, as ``images`` names it; of those not listed here, nothing is read.
        file: the whole file; its position is moved.

    Raises:
        WorkExceededError: with the count that is too high.
    """
    reader = _INSPECTORS.get(name)
    if reader is None:
        return Structure()
    try:
        return reader(file)
    except (IndexError, ValueError, TypeError, KeyError, OverflowError):
        return Structure()  # cut or corrupt: its decoder will say so


def _refuse_above(count: float, limit: int, what: str) -> None:
    if count > limit:
        raise WorkExceededError(
            f"more than {limit} {what}, which no photograph needs: save it anew with another program"
        )


def _whole(file: BinaryIO) -> bytes:
    if isinstance(file, io.BytesIO):
        return file.getvalue()
    file.seek(0)
    return file.read()


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    piece = file.read(size)
    if len(piece) < size:
        raise ValueError("the file ends early")
    return piece


# --- JPEG (ITU-T T.81)

# Fill bytes, stuffed zeros and restart markers are no segments.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, offset of its length field, and stray bytes before it, up to the end of the image (included)."""
    at = 2
    while (hit := _JPEG_MARKER.search(data, at)) is not None:
        marker, start = data[hit.start() + 1], hit.end()
        yield marker, start, hit.start() - at
        if marker == _EOI:
            return
        at = start if marker in (_SOI, _TEM) else start + max(2, int.from_bytes(data[start : start + 2], "big"))


def _inspect_jpeg(file: BinaryIO) -> Structure:
    data = _whole(file)
    if b"\xff" * (MAX_FILL_BYTES + 1) in data:
        _refuse_above(MAX_FILL_BYTES + 1, MAX_FILL_BYTES, "fill bytes in a row in a JPEG")
    scans = stray = pixels = coefficients = 0
    progressive = has_end = False
    for count, (marker, start, before) in enumerate(_segments(data)):
        _refuse_above(count, MAX_SEGMENTS, "segments in a JPEG")
        if not scans:
            stray += before
            _refuse_above(stray, MAX_STRAY_BYTES, "bytes of padding between the segments of a JPEG")
            _refuse_above(start, MAX_HEADER_BYTES, "bytes before the first scan of a JPEG")
        if marker in _FRAMES:
            progressive = marker in (0xC2, 0xC6, 0xCA, 0xCE)
            pixels, coefficients = _frame(data, start)
        elif marker == _SOS:
            scans += 1
            _refuse_above(scans, MAX_SCANS, "scans in a JPEG")
        has_end |= marker == _EOI
    # Without its end marker, ``jpeg.load`` decodes a file three times.
    passes = scans if has_end else 3 * scans
    # All coefficients wait in memory, 16 bits each, where more than one scan brings them.
    return Structure(buffers=2 * coefficients if progressive or scans > 1 else 0, scanned=passes * pixels)


def _frame(data: bytes, start: int) -> tuple[int, int]:
    """Pixels of a frame, and coefficients of all its components."""
    height, width = (
        int.from_bytes(data[start + 3 : start + 5], "big"),
        int.from_bytes(data[start + 5 : start + 7], "big"),
    )
    factors = [data[start + 9 + 3 * index] for index in range(data[start + 7])]
    sampled = [(factor >> 4) * (factor & 15) for factor in factors]
    most = max((factor >> 4 for factor in factors), default=1) * max((factor & 15 for factor in factors), default=1)
    return width * height, width * height * sum(sampled) // max(1, most)


# --- PNG


def _inspect_png(file: BinaryIO) -> Structure:
    at = 8
    compressed = 0
    file.seek(at)
    for count in range(MAX_CHUNKS + 1):
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return Structure()
        compressed += head[4:] in (b"zTXt", b"iTXt", b"iCCP")
        _refuse_above(compressed, MAX_COMPRESSED_TEXTS, "compressed texts and profiles in a PNG")
        _refuse_above(count, MAX_CHUNKS - 1, "chunks in a PNG")
        length = int.from_bytes(head[:4], "big")
        if head[4:] != b"IDAT":
            _refuse_above(length, MAX_CHUNK_BYTES, "bytes in a chunk of a PNG that holds no pixels")
        file.seek(length + 4, io.SEEK_CUR)
    return Structure()


# --- BMP


def _inspect_bmp(file: BinaryIO) -> Structure:
    head = _at(file, 0, 34)
    if int.from_bytes(head[14:18], "little") < 40 or int.from_bytes(head[30:34], "little") not in (1, 2):
        return Structure()
    width, height = (abs(int.from_bytes(head[at : at + 4], "little", signed=True)) for at in (18, 22))
    _refuse_above(width * height, MAX_RLE_PIXELS, "pixels in a BMP with run lengths")
    return Structure(buffers=2 * width * height)


# --- TIFF 6.0 and BigTIFF

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _STRIPS = 256, 257, 258, 259, 273
_TURN, _SAMPLES, _ROWS, _COUNTS = 274, 277, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS = 322, 323, 324, 325
# Bytes of a value by its type: the unsigned integers, with those that are offsets of directories; and all types.
_SIZES = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}
_ALL_SIZES = {**_SIZES, 2: 1, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 17: 8}
_RAW, _JPEGS = 1, (6, 7)


class Directory:
    """One directory of a TIFF: unsigned values by tag, which are read when they are asked for.

    Attributes:
        offset: where it is in the file.
        number_offset: where the file says that its first directory begins.
        number_bytes: how many bytes that number has.
        order: byte order of the file.

    Raises:
        WorkExceededError: more than ``MAX_TAGS``, or values above ``MAX_STRIPS``.
        ValueError: the file ends early.
    """

    def __init__(self, file: BinaryIO, offset: int | None = None):
        head = _at(file, 0, 16)
        self._file = file
        self.order: Literal["little", "big"] = "little" if head[:1] == b"I" else "big"
        self._big = head[2:4] in (b"+\0", b"\0+")
        self.number_offset, self.number_bytes = (8, 8) if self._big else (4, 4)
        first = self._number(head[self.number_offset :][: self.number_bytes])
        self.offset = at = first if offset is None else offset
        entries = self._number(_at(file, at, 8 if self._big else 2))
        _refuse_above(entries, MAX_TAGS, "tags in a TIFF")
        size = 20 if self._big else 12
        table = _at(file, at + (8 if self._big else 2), entries * size)
        self._next_at = file.tell()
        rows = [table[start : start + size] for start in range(0, len(table), size)]
        self._rows = {self._number(row[:2]): row for row in reversed(rows)}

    def _number(self, digits: bytes) -> int:
        return int.from_bytes(digits, self.order)

    @property
    def next(self) -> int:
        """Offset of the next directory; 0 behind the last one."""
        return self._number(_at(self._file, self._next_at, self.number_bytes))

    def __contains__(self, tag: int) -> bool:
        return tag in self._rows

    def total_bytes(self) -> int:
        """Bytes of all values, which Pillow reads when it opens the file."""
        rows = self._rows.values()
        counts = (self._number(row[4:12] if self._big else row[4:8]) for row in rows)
        return sum(count * _ALL_SIZES.get(self._number(row[2:4]), 0) for count, row in zip(counts, rows, strict=True))

    def values(self, tag: int) -> np.ndarray:
        """All values of a tag, int64; none where it is missing or no unsigned number."""
        row = self._rows.get(tag, b"")
        size = _SIZES.get(self._number(row[2:4]), 0)
        count = self._number(row[4:12] if self._big else row[4:8])
        if not size or not count:
            return np.zeros(0, np.int64)
        _refuse_above(count, MAX_STRIPS, "strips or tiles in a TIFF")
        field = row[12:] if self._big else row[8:]
        data = (
            field[: count * size] if count * size <= len(field) else _at(self._file, self._number(field), count * size)
        )
        return np.frombuffer(data, f"{'<' if self.order == 'little' else '>'}u{size}").astype(np.int64)

    def first(self, tag: int, default: int) -> int:
        """The first value of a tag."""
        values = self.values(tag)
        return int(values[0]) if len(values) else default


def _inspect_tiff(file: BinaryIO) -> Structure:
    tags = Directory(file)
    size = file.seek(0, io.SEEK_END)
    # Each value has bytes of its own, or a small file could ask for any amount of memory.
    _refuse_above(tags.total_bytes(), size + MAX_STRAY_BYTES, "bytes in the tags of a TIFF of that size")
    width, height = tags.first(_WIDTH, 0), tags.first(_HEIGHT, 0)
    # Pillow turns a TIFF while it loads it, into a second picture.
    copies = 1 if tags.first(_TURN, 1) == 1 else 2
    tiled = len(tags.values(_TILE_OFFSETS)) > 0
    offsets = tags.values(_TILE_OFFSETS if tiled else _STRIPS)
    compression = tags.first(_COMPRESSION, _RAW)
    if compression == _RAW:
        return Structure(tags.total_bytes(), copies)
    counts = np.clip(tags.values(_TILE_COUNTS if tiled else _COUNTS), 0, size)
    _refuse_above(int(counts.sum()), 2 * size + MAX_STRAY_BYTES, "bytes in the strips of a TIFF of half that size")
    scans = 0
    if compression in _JPEGS:
        # Each is decoded on its own as well, to see whether it is whole.
        _refuse_above(len(offsets), MAX_JPEG_STRIPS, "strips or tiles of JPEG in a TIFF")
        scans = _tiff_scans(file, offsets, counts)
    bits = int(tags.values(_BITS).max(initial=1)) * tags.first(_SAMPLES, 1)
    rows = tags.first(_TILE_HEIGHT, 0) if tiled else min(height, tags.first(_ROWS, height))
    buffer = rows * (tags.first(_TILE_WIDTH, 0) if tiled else width) * bits // 8
    # As in ``_inspect_jpeg``.
    buffer += 2 * buffer if scans > 1 else 0
    return Structure(buffer + tags.total_bytes(), copies, scanned=2 * scans * width * height)


def _tiff_scans(file: BinaryIO, offsets: np.ndarray, counts: np.ndarray) -> int:
    """The scans of an average strip, rounded up; libtiff refuses more than 100 in any."""
    # In a JPEG stream these two bytes are always the marker, but for tables, which hold them by chance at most.
    scans = sum(_at(file, int(at), int(size)).count(b"\xff\xda") for at, size in zip(offsets, counts, strict=False))
    return -(-scans // max(1, len(counts)))


# --- JPEG 2000 (ISO/IEC 15444-1, annex A)

_SIZ, _COD, _COC, _SOT, _SOD = 0x51, 0x52, 0x53, 0x90, 0x93


def _inspect_jpeg2000(file: BinaryIO) -> Structure:
    data = _whole(file)
    start = data.index(b"\xff\x4f\xff\x51")

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "big")

    at, parts, packets, blocks, halvings, tiles = start + 2, 0, 0, 0, 33, 1
    area = tile_area = components = 1
    end_of_part = 0
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _EOI:
        marker, body = data[at + 1], at + 4
        if marker == _SIZ:
            width, height = number(body + 2, 4) - number(body + 10, 4), number(body + 6, 4) - number(body + 14, 4)
            tile_width, tile_height = min(number(body + 18, 4), width), min(number(body + 22, 4), height)
            area, tile_area, components = width * height, tile_width * tile_height, number(body + 34, 2)
            tiles = -(-width // max(1, tile_width)) * -(-height // max(1, tile_height))
            _refuse_above(tiles, MAX_TILES, "tiles in a JPEG 2000")
        elif marker in (_COD, _COC):
            # The style is followed by layers (COD) or by the component (COC).
            coding = body + 5 if marker == _COD else body + (2 if components < 257 else 3)
            levels, log_area = data[coding], data[coding + 1] + data[coding + 2] + 4
            halvings = min(halvings, levels)
            layers = number(body + 2, 2) if marker == _COD else 1
            precincts = data[coding + 5 : coding + 6 + levels] if data[body] & 1 and marker == _COD else b"\xff"
            smallest = min((size >> 4) + (size & 15) for size in precincts or b"\xff")
            blocks = max(blocks, components * area >> min(log_area, smallest))
            packets = max(packets, layers * components * ((levels + 1) * tiles + (area >> smallest)))
            _refuse_above(blocks, MAX_CODE_BLOCKS, "code-blocks in a JPEG 2000")
            _refuse_above(packets, MAX_PACKETS, "packets in a JPEG 2000")
        elif marker == _SOT:
            parts += 1
            _refuse_above(parts, MAX_TILE_PARTS, "tile parts in a JPEG 2000")
            end_of_part = at + number(body + 2, 4) if number(body + 2, 4) else len(data)
        elif marker == _SOD:
            at = max(at + 2, end_of_part)
            continue
        at = body - 2 + max(2, number(body - 2, 2))
    # Samples are 32-bit integers while a tile is decoded, and then packed.
    return Structure(5 * components * tile_area, halvings=0 if halvings == 33 else halvings)


# --- WebP (RFC 9649) and AVIF (AV1-ISOBMFF, section 2.3)


def _inspect_webp(file: BinaryIO) -> Structure:
    head = _at(file, 0, 30)
    if head[12:16] == b"VP8X":
        width, height = int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    elif head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    # Two canvases and what is handed over, each of four bytes; and the file once more.
    return Structure(buffers=12 * width * height + file.seek(0, io.SEEK_END))


def _inspect_avif(file: BinaryIO) -> Structure:
    _refuse_many_items(_whole(file))
    head = _at(file, 0, min(1 << 16, file.seek(0, io.SEEK_END)))
    width, height = (_largest(head, b"ispe", at) for at in (8, 12))
    # The third byte of the decoder's configuration: depth, whether gray, and how colours are sampled.
    flags = [head[hit.end() + 2] for hit in re.finditer(b"av1C", head)]
    planes = max(map(_planes, flags), default=6) + (1 if b"auxC" in head else 0)
    # The planes, what is handed over as RGB or RGBA, and the file once more.
    return Structure(buffers=int((planes + 4) * width * height) + file.seek(0, io.SEEK_END))


def _inspect_heic(file: BinaryIO) -> Structure:
    _refuse_many_items(_whole(file))
    encoded = file.seek(0, io.SEEK_END)
    head = _at(file, 0, min(1 << 16, encoded))
    width, height = (_largest(head, b"ispe", at) for at in (8, 12))
    # Planes of 16 bits without subsampling at most, what is handed over, and the file once more.
    return Structure(buffers=(6 + 4) * width * height + encoded)


def _refuse_many_items(data: bytes) -> None:
    at = 0
    for _ in range(MAX_SEGMENTS):
        size = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"meta":
            for hit in re.finditer(b"iinf|iloc|iref|ipma", data[at : at + size]):
                start = at + hit.start()
                _refuse_above(
                    int.from_bytes(data[start - 4 : start], "big"), MAX_ITEM_BYTES, "bytes of items in an AVIF"
                )
            return
        if size < 8:
            return
        at += size


def _planes(flags: int) -> float:
    """Bytes that a decoded AV1 picture takes a pixel."""
    colours = 0 if flags & 0x10 else 2 / (1 + (flags >> 3 & 1)) / (1 + (flags >> 2 & 1))
    return (1 + colours) * (2 if flags & 0x40 else 1)


def _largest(data: bytes, box: bytes, at: int) -> int:
    """The largest 32-bit number that boxes of one kind have ``at`` bytes behind the first letter of their name."""
    starts = [hit.start() for hit in re.finditer(re.escape(box), data)]
    return max((int.from_bytes(data[start + at : start + at + 4], "big") for start in starts), default=0)


_INSPECTORS: dict[str, Callable[[BinaryIO], Structure]] = {
    "JPEG": _inspect_jpeg,
    "PNG": _inspect_png,
    "BMP": _inspect_bmp,
    "TIFF": _inspect_tiff,
    "JPEG 2000": _inspect_jpeg2000,
    "WebP": _inspect_webp,
    "AVIF": _inspect_avif,
    "HEIC": _inspect_heic,
}
