"""Whether a JPEG's image data are whole: a lost half is noticed, also where an end marker follows it.

libjpeg completes lost data with gray and says so in a warning that Pillow hides. Here it is given each scan without the
marker behind it, but with filler: a scan that is whole leaves the filler unread, as rubbish between two segments; one
that is not takes the filler for image data. So one decoding does both, and a whole file has the pixels it always had.

Also counted are restart markers and, for several scans, what each was to send (ITU-T T.81, B.2 and G.1). A loss below
about eight blocks at the lower right corner stays unnoticed in a file that has its end marker. Arithmetic coding has no
such test: its decoder cannot be interrupted, and data that end early are legal there (T.81, D.1.8).
"""

import hashlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import Any, NamedTuple

from PIL import Image, JpegImagePlugin

_EOI, _SOS, _DRI = 0xD9, 0xDA, 0xDD
_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended sequential, progressive
_PROGRESSIVE = 0xC2
_COEFFICIENTS = 64
# Rubbish, fill bytes and markers without content are passed over at once, however many there are.
_SEGMENT = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
# Within image data, 0xFF is followed by 0 (then it is data), by a restart marker, or by the marker that ends them.
_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_RESTARTS = [bytes([0xFF, number]) for number in range(0xD0, 0xD8)]
# libjpeg is given image data in pieces, so that no second copy of the file lies in memory.
_PIECE_BYTES = 1 << 20
_DIGEST_ROWS = 64
_END_MARKER = b"\xff\xd9"
# Bits of 1 are no Huffman code (T.81, C.2): each block takes 17 of them, whatever the tables.
_ONES = b"\xff\x00"
# What other bits would make of a missing rest.
_OTHER_FILLERS = (b"\x55", b"\xaa")
# libjpeg reads up to 64 bits ahead.
_READ_AHEAD_BYTES = 8
# Image data end with bits of 1, to the next whole byte.
_ZEROS = bytes(16)


class IncompleteError(ValueError):
    """The image data end early."""


class Scan(NamedTuple):
    """One scan: ``end`` is where its data end in the file; the rest are the fields of its header (T.81, B.2.3)."""

    end: int
    components: tuple[int, ...]
    first: int
    last: int
    low_bit: int
    restarts_missing: int


@dataclass
class Layout:
    """The segments of a JPEG file.

    Attributes:
        frame: second byte of its frame marker, 0 if it has none.
        components: horizontal and vertical sampling factors by id.
        scans: in the order of the file.
        has_end: whether the end marker is there.
        size: width and height in pixels, zeros if it has no frame.
    """

    frame: int = 0
    components: dict[int, tuple[int, int]] = field(default_factory=dict)
    scans: list[Scan] = field(default_factory=list)
    has_end: bool = False
    size: tuple[int, int] = (0, 0)


def layout_of(data: bytes) -> Layout:
    """Walk through the segments of the first image of a JPEG file, without decoding.

    Raises:
        IncompleteError, struct.error, IndexError: a header is cut.
    """
    layout, interval = Layout(), 0
    for marker, start, length in _segments(data, layout):
        body = data[start : start + length]
        if marker in _HUFFMAN_FRAMES or (0xC0 < marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            layout.frame = marker
            _, height, width, count = struct.unpack_from(">BHHB", body)
            layout.size = width, height
            parts = [body[6 + 3 * number : 9 + 3 * number] for number in range(count)]
            layout.components = {part[0]: (part[1] >> 4, part[1] & 15) for part in parts}
        elif marker == _DRI:
            (interval,) = struct.unpack_from(">H", body)
        elif marker == _SOS:
            layout.scans.append(_scan(data, start, body, layout, interval))
    return layout


def _segments(data: bytes, layout: Layout) -> Iterator[tuple[int, int, int]]:
    """Marker, start and length of the content of each segment, until the end of the image."""
    at = 2
    while match := _SEGMENT.search(data, at):
        at, marker = match.start(), data[match.start() + 1]
        if marker == _EOI:
            layout.has_end = True
            return
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, at + 4, length - 2
        at = layout.scans[-1].end if marker == _SOS else at + 2 + length


def _scan(data: bytes, start: int, header: bytes, layout: Layout, interval: int) -> Scan:
    count = header[0]
    components = tuple(header[1 : 1 + 2 * count : 2])
    first, last, approximation = header[1 + 2 * count : 4 + 2 * count]
    begin = start + len(header)
    closing = _SCAN_END.search(data, begin)
    # Half an end marker is none.
    end = closing.start() if closing else begin + len(data[begin:].rstrip(b"\xff"))
    missing = 0
    if interval:
        wanted = ceil(_units(layout, components) / interval) - 1
        missing = max(0, wanted - sum(data.count(marker, begin, end) for marker in _RESTARTS))
    return Scan(end, components, first, last, low_bit=approximation & 15, restarts_missing=missing)


def _units(layout: Layout, components: tuple[int, ...]) -> int:
    """How many minimum coded units a scan has (T.81, A.2)."""
    width, height = layout.size
    most_across = max(across for across, _ in layout.components.values())
    most_down = max(down for _, down in layout.components.values())
    if len(components) != 1:
        return ceil(width / (8 * most_across)) * ceil(height / (8 * most_down))
    across, down = layout.components[components[0]]
    return ceil(ceil(width * across / most_across) / 8) * ceil(ceil(height * down / most_down) / 8)


def load(image: JpegImagePlugin.JpegImageFile, data: bytes) -> None:
    """Decode an opened JPEG, as ``image.load()`` does, but only if its image data are whole.

    A file that lacks nothing but its end marker, or half of it, is whole.

    Args:
        image: as Pillow opened it, perhaps reduced by ``draft``; its pixels are there afterwards.
        data: the file.

    Raises:
        IncompleteError: the image data end early, scans are missing, or restart markers are.
        OSError: Pillow cannot decode it.
    """
    layout = layout_of(data)
    if layout.frame not in _HUFFMAN_FRAMES or not image.tile:
        image.load()
        return
    _check_scans(layout)
    if not layout.has_end and data.endswith(_ZEROS):
        raise IncompleteError("zeros instead of the rest, as an interrupted copy leaves them")
    tile = image.tile[0]
    _decode(image, tile, data, layout)
    if not layout.has_end:
        pixels = _digest(image)
        for filler in _OTHER_FILLERS:
            _decode(image, tile, data, layout, filler)
            # Bits that were lost would have been taken from the filler.
            if _digest(image) != pixels:
                raise IncompleteError("the image data end early, and the end marker is missing")


def _digest(image: Image.Image) -> bytes:
    """Of the pixels; a copy of them would be as large as the picture."""
    digest = hashlib.sha256()
    for top in range(0, image.height, _DIGEST_ROWS):
        rows = image.crop((0, top, image.width, min(top + _DIGEST_ROWS, image.height)))
        digest.update(rows.tobytes())
    return digest.digest()


def _check_scans(layout: Layout) -> None:
    """What is wrong can be read from the headers of scans alone."""
    if any(scan.restarts_missing for scan in layout.scans):
        missing = sum(scan.restarts_missing for scan in layout.scans)
        raise IncompleteError(f"the image data have gaps, {missing} restart markers are missing")
    # How many low bits of each coefficient are still to come; 16 stands for all.
    pending = {component: [16] * _COEFFICIENTS for component in layout.components}
    for scan in layout.scans:
        band = slice(scan.first, scan.last + 1) if layout.frame == _PROGRESSIVE else slice(None)
        for component in scan.components:
            if component in pending:
                pending[component][band] = [scan.low_bit] * len(pending[component][band])
    if any(any(bits) for bits in pending.values()):
        raise IncompleteError(f"scans are missing behind the first {len(layout.scans)}")


def _decode(
    image: JpegImagePlugin.JpegImageFile, tile: Any, data: bytes, layout: Layout, filler: bytes = _ONES
) -> None:
    """Decode into ``image``, scan by scan."""
    image.load_prepare()
    decoder = Image._getdecoder(image.mode, tile.codec_name, tile.args, image.decoderconfig)
    decoder.setimage(image.im, tile.extents)
    try:
        _feed(decoder, data, layout, filler)
    finally:
        decoder.cleanup()
    image.tile = []


def _feed(decoder: Any, data: bytes, layout: Layout, filler: bytes) -> None:
    left, at = b"", 0
    for scan in layout.scans:
        while scan.end - at > _PIECE_BYTES:
            left, at = left + data[at : at + _PIECE_BYTES], at + _PIECE_BYTES
            used, error = decoder.decode(left)
            if used < 0:
                _check_error(error)
                return
            left = left[used:]
        left, at = left + data[at : scan.end], scan.end
        for filled in range(2 * _READ_AHEAD_BYTES + 1):
            used, error = decoder.decode(left)
            if used < 0:
                _check_error(error)
                # A single scan is read row by row, and the decoder is done with the last one.
                if filled > _READ_AHEAD_BYTES and filler == _ONES:
                    raise IncompleteError("the image data end early")
                return
            left = left[used:]
            if filled > _READ_AHEAD_BYTES and left and filler == _ONES:
                raise IncompleteError("the image data end early")
            left += filler
    used, error = decoder.decode(left + data[at:] + (b"" if layout.has_end else _END_MARKER))
    if used >= 0:
        raise IncompleteError("the image data end early")
    _check_error(error)


def _check_error(error: int) -> None:
    if error < 0:
        raise OSError(f"libjpeg cannot decode it (code {error})")
