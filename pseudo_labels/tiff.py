"""What Pillow reads wrongly in a TIFF: which picture is meant, layouts of samples, lost data, the value of white.

Sources: TIFF 6.0; BigTIFF; TIFF Technical Note 1 (SubIFDs); DNG 1.7 and Exif for camera raw.
"""

import ctypes
import io
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import BinaryIO

from PIL import Image, ImagePalette, JpegImagePlugin, TiffImagePlugin

from pseudo_labels import jpeg
from pseudo_labels.errors import WorkExceededError
from pseudo_labels.limits import DecodeLimits, FileSlices
from pseudo_labels.records import ImageError, Status
from pseudo_labels.structure import Directory

_NEW_SUBFILE_TYPE, _REDUCED, _MASK = 254, 1, 4
_WIDTH, _HEIGHT, _BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANES = 256, 257, 258, 262, 284
_SUB_DIRECTORIES, _DNG_VERSION = 330, 50706
_SAMPLE_FORMAT, _SIGNED = 339, 2
_COMPRESSION, _JPEG, _JPEG_TABLES = 259, 7, 347
_YCBCR, _SUBSAMPLING, _COLOUR_MAP = 6, 530, 320
# Offsets and sizes of strips, and of tiles; and what says the width and height of one.
_STRIPS, _TILES = (273, 279), (324, 325)
_ROWS_PER_STRIP, _TILE_WIDTH, _TILE_HEIGHT = 278, 322, 323
# Colour filter array, and linear raw of DNG.
_RAW = {32803, 34892}
_WHITE_IS_ZERO = 0
_MOST_DIRECTORIES = 64
# Four quantisation and eight Huffman tables have some 3 KB.
_MOST_TABLE_BYTES = 1 << 16
_CAMERA_RAW = "camera raw (in TIFF, such as DNG or NEF): develop it and save it as JPEG, PNG or TIFF"


def no_white(what: str) -> str:
    """Why samples are refused that do not say what white is."""
    return f"{what} have no declared white: save the photograph with 8 or 16 bits a channel"


def patches(file: BinaryIO, head: bytes) -> dict[int, bytes]:
    """What to write over a TIFF's head, so that its first directory is its first picture of full size; mostly nothing.

    Args:
        file: the whole file; its position is moved.
        head: its first 16 bytes.

    Returns:
        New bytes by offset in the file.

    Raises:
        ImageError: NOT_AN_IMAGE, camera raw.
    """
    directories = list(_directories(file))
    photometric = {tags.first(_PHOTOMETRIC, -1) for tags in directories}
    if head[8:10] == b"CR" or photometric & _RAW or any(_DNG_VERSION in tags for tags in directories):
        raise ImageError(Status.NOT_AN_IMAGE, _CAMERA_RAW)
    if len(directories) < 2:
        return {}
    # Masks are no choice, and a thumbnail is the last one. Of equals the first is taken.
    kinds = [(tags.first(_NEW_SUBFILE_TYPE, 0), tags) for tags in directories]
    ranks = [
        (not kind & _MASK, not kind & _REDUCED, kind & _REDUCED and tags.first(_WIDTH, 0) * tags.first(_HEIGHT, 0))
        for kind, tags in kinds
    ]
    best = directories[ranks.index(max(ranks))]
    if best is directories[0]:
        return {}
    return {best.number_offset: best.offset.to_bytes(best.number_bytes, best.order)}


def _directories(file: BinaryIO) -> Iterator[Directory]:
    """The first directory; and, if it is not the picture or has others in it, all."""
    offsets, visited = deque[int | None]([None]), set[int]()
    while offsets and len(visited) < _MOST_DIRECTORIES:
        offset = offsets.popleft()
        if offset is not None and (offset <= 0 or offset in visited):
            continue
        try:
            tags = Directory(file, offset)
            if tags.offset <= 0:
                return
            inner = tags.values(_SUB_DIRECTORIES)[:_MOST_DIRECTORIES].tolist()
            is_picture = not visited and not tags.first(_NEW_SUBFILE_TYPE, 0) & (_REDUCED | _MASK)
            following = [] if is_picture else [tags.next]
        except Exception:  # Pillow says what is wrong with the file when it opens it
            return
        visited.add(tags.offset)
        yield tags
        offsets += inner + following


def prepare(image: TiffImagePlugin.TiffImageFile, data: bytes | FileSlices, limits: DecodeLimits) -> None:
    """Make an opened TIFF ready for Pillow to load.

    Args:
        image: as Pillow opened it; not loaded yet.
        data: the file; empty if there is none any more.
        limits: a strip may have as many pixels as a file.

    Raises:
        ImageError: NOT_AN_IMAGE or CORRUPT, Pillow would read it wrongly without an error; TOO_LARGE.
        jpeg.IncompleteError: the data of a strip end early.
        WorkExceededError: tables of JPEG above the limit.
    """
    if image.tile:
        _refuse(image.tag_v2, image.tile[0].codec_name)
        _refuse_lost_strips(image.tag_v2, data, limits)
        _mend(image)


def _refuse(tags: TiffImagePlugin.ImageFileDirectory_v2, codec: str) -> None:
    if _PHOTOMETRIC not in tags:
        raise ImageError(Status.CORRUPT, "TIFF: the tag PhotometricInterpretation, which says what 0 is, is missing")
    if max(tags.get(_SAMPLE_FORMAT, (1,))) == _SIGNED and max(tags[_BITS_PER_SAMPLE]) == 8:
        raise ImageError(Status.NOT_AN_IMAGE, no_white("signed samples"))
    if codec == "raw" and tags[_PHOTOMETRIC] == _YCBCR and tags.get(_SUBSAMPLING, (2, 2)) != (1, 1):
        raise ImageError(Status.NOT_AN_IMAGE, "uncompressed TIFF with subsampled colour: save it compressed, or as RGB")


def _refuse_lost_strips(
    tags: TiffImagePlugin.ImageFileDirectory_v2, data: bytes | FileSlices, limits: DecodeLimits
) -> None:
    """Decode JPEG strips and tiles on their own first: libtiff, too, completes lost data with gray."""
    if tags.get(_COMPRESSION) != _JPEG or not len(data):
        return
    tables = tags.get(_JPEG_TABLES, b"")
    if len(tables) > _MOST_TABLE_BYTES:
        raise WorkExceededError(f"tables of JPEG in a TIFF of {len(tables)} bytes, above the limit: save it anew")
    for (offsets, sizes), (width, height) in ((_STRIPS, _strip_size(tags)), (_TILES, _tile_size(tags))):
        for offset, size in zip(tags.get(offsets, ()), tags.get(sizes, ()), strict=False):
            stream = tables[:-2] + data[offset + (2 if tables else 0) : offset + size]
            with suppress(SyntaxError):  # samples that only libtiff can put together
                strip = JpegImagePlugin.JpegImageFile(io.BytesIO(stream))
                replace(limits, min_side=1).check_size(strip.width, strip.height)
                # One that is too large libtiff refuses at once, while many of them here would take long.
                if strip.width <= width and strip.height <= height:
                    jpeg.load(strip, stream)


def _strip_size(tags: TiffImagePlugin.ImageFileDirectory_v2) -> tuple[int, int]:
    return tags[_WIDTH], min(tags[_HEIGHT], tags.get(_ROWS_PER_STRIP, tags[_HEIGHT]))


def _tile_size(tags: TiffImagePlugin.ImageFileDirectory_v2) -> tuple[int, int]:
    return tags.get(_TILE_WIDTH, 0), tags.get(_TILE_HEIGHT, 0)


def _mend(image: TiffImagePlugin.TiffImageFile) -> None:
    """Set right what Pillow would decode wrongly, before it does."""
    tags, tile = image.tag_v2, image.tile[0]
    if tile.codec_name == "libtiff" and image.mode == "F":
        # libtiff hands samples over in this machine's byte order, not in the file's.
        image.tile = [tile._replace(args=("F;32NF", False, tags.offset))]
    elif tile.codec_name == "raw" and tags.get(_PLANES) == 2 and tags[_BITS_PER_SAMPLE][0] == 16:
        # Pillow's own reader takes samples of 16 bits in planes for samples of 8.
        whole = (0, 0, tags[_WIDTH], tags[_HEIGHT])
        args = (f"{image.mode};16N", False, tags.offset)
        image.tile = [tile._replace(codec_name="libtiff", extents=whole, offset=0, args=args)]
        image.use_load_libtiff = True
    elif image.mode == "P" and max(tags[_COLOUR_MAP]) < 256:
        # Old programs wrote palettes of 8 bits instead of 16.
        image.palette = ImagePalette.raw("RGB;L", bytes(tags[_COLOUR_MAP]))


def white_of(image: Image.Image) -> int:
    """The sample value of white in gray of more than 8 bits; Pillow hands 12-bit TIFF samples over unscaled.

    Raises:
        ImageError: NOT_AN_IMAGE, samples of a TIFF that do not say what white is.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (16,))[0]
        if image.mode == "I":
            raise ImageError(Status.NOT_AN_IMAGE, no_white(f"signed or {bits}-bit integer samples"))
        return (1 << bits) - 1
    return 65535


def is_white_zero(image: Image.Image) -> bool:
    """Pillow inverts "white is zero" up to 8 bits, but not above."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    return image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


@lru_cache(maxsize=1)
def silence_libtiff() -> bool:
    """Take libtiff's printing of errors and warnings away, for good and for the whole process.

    Pillow raises an error of its own for the same fault; libtiff's line, which names no file, would only be in the way
    of the rows. Its functions are looked up through Pillow's extension module, which is linked with it.

    Returns:
        Whether that was possible: not where libtiff was linked into the module itself, or left out.
    """
    try:
        library = ctypes.CDLL(Image.core.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            set_handler = library[name]
            set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_handler(None)
    except (AttributeError, OSError, TypeError):
        return False
    return True
