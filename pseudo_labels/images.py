"""Any image file -> RGB uint8: the one decoder, so that training, labelling, evaluation and runtime agree to the pixel.

Accepted, by content and never by name: JPEG (with MPO), PNG, WebP, TIFF, BMP, GIF, JPEG 2000, AVIF and PNM (P1 to P6);
HEIC and other HEIF where the package pillow-heif is installed.
Only these Pillow plugins are ever called; formats that run programs or fetch files (EPS, PSD, FPX, ...) are not.

How pixels become 8-bit RGB:

* the first frame of an animation, the first page of a TIFF, the main photograph of an MPO; what a GIF's first frame
  leaves free of its canvas is background;
* a TIFF that begins with a thumbnail or a mask (NewSubfileType) gives its first picture of full size, also from a
  SubIFD; camera raw files (DNG, NEF, CR2, ...) are refused, for the photograph is not in them yet;
* the EXIF orientation is applied; corrupt EXIF is ignored, it says nothing about the pixels;
* alpha, palette transparency and colour keys are composited on ``DecodeLimits.background``. An alpha channel that is 0
  everywhere is not believed in BMP, TIFF, PNG and JPEG 2000, where viewers that know no alpha show the picture, and
  programs leave the fourth byte empty; it is believed in WebP, AVIF and GIF, for palettes and colour keys, and for
  images in memory, whose hidden colours mean nothing;
* declared colour becomes sRGB, relative colorimetric (``colour_profiles``): ICC profiles of any format, PNG cICP, gAMA
  and cHRM, AVIF nclx, Adobe RGB by EXIF. What is sRGB already, to a level, is not touched; nor is a file without a
  declaration. PQ and HLG are refused: they have no white of 8 bits. A broken profile is ignored, and a note says so;
* 16-bit gray is scaled (x / 257, rounded), 12-bit TIFF likewise (x * 255 / 4095); 16-bit colour arrives from Pillow as
  its high byte, which differs from rounding by at most one level. JPEG 2000 in colour with more than 8 bits, and PNG
  with 16 bits and a transparent colour, would come wrong, and are refused;
* 32-bit float TIFF is accepted if every sample lies in [0, 1]; other floats and 32-bit integers have no declared white,
  so they are refused instead of guessed;
* CMYK without a profile is converted by Pillow's formula.

Work and memory are bounded, see ``limits``: what costs more is refused with the reason, before it is decoded. A caller
that resizes anyway says how (``resizer``); pictures of more than ``limits.REDUCE_ABOVE`` pixels are reduced by it while
they are decoded.

Needs numpy and Pillow only. Thread-safe: no Pillow setting is touched. Pillow's own complaints about corrupt metadata
and about sizes below ``DecodeLimits.max_pixels`` are silenced, and so are the lines that libtiff prints.
``PIL.ImageFile.LOAD_TRUNCATED_IMAGES`` must stay at its default, False, or truncation cannot be seen.
"""

import errno
import io
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from pseudo_labels import colour_profiles, jpeg, tiff
from pseudo_labels.errors import WorkExceededError
from pseudo_labels.foreign import HEIF_BRANDS, SIGNATURE_BYTES, foreign_format
from pseudo_labels.limits import (
    DEFAULT_LIMITS,
    DecodeLimits,
    FileSlices,
    Header,
    Plan,
    PnmImageFile,
    Resizer,
    make_plan,
    metered,
    patch,
)
from pseudo_labels.pixels import Meaning, as_rgb, declared_colour, hides_everything
from pseudo_labels.records import ImageError, Status
from pseudo_labels.structure import Structure, inspect

VERSION = 2
"""Raised when the pixels of some file change, so that pixels stored by an earlier version are not mixed with ours."""
MAX_BYTES = 400_000_000
"""Largest content that is read at once; larger files are refused unread, but for those below."""
MAX_STREAMED_BYTES = 1 << 30
"""``load`` decodes TIFF, PNG, BMP and PNM up to this size from the open file: 100 megapixels of four 16-bit channels
have 0.8 GB uncompressed."""

# From this size on the formats that can be are decoded from the open file.
_STREAMED_FROM = 128_000_000
_STREAMED = ("TIFF", "PNG", "BMP", "PNM")
# Larger pictures become an array strip by strip, so that no third copy of them lies in memory.
_STRIP_PIXELS = 4_000_000
_WHOLE_PIXELS = 16_000_000
_EXIF_ORIENTATION = 0x0112
_EMPTY = "the file has zero bytes"
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "AVIF", "PPM")
_ACCEPTED = "JPEG, PNG, WebP, TIFF, BMP, GIF, JPEG 2000, AVIF, PNM"
# What turns the stored picture upright, for each EXIF orientation (TIFF 6.0, tag 274).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = tuple(turn for number, turn in _UPRIGHT.items() if number >= 5)
# The upright array as a view that has the rows and columns of the stored picture, for each of these turns.
_UNTURNED: dict[Image.Transpose | None, Callable[[np.ndarray], np.ndarray]] = {
    None: lambda upright: upright,
    Image.Transpose.FLIP_LEFT_RIGHT: lambda upright: upright[:, ::-1],
    Image.Transpose.ROTATE_180: lambda upright: upright[::-1, ::-1],
    Image.Transpose.FLIP_TOP_BOTTOM: lambda upright: upright[::-1],
    Image.Transpose.TRANSPOSE: lambda upright: upright.swapaxes(0, 1),
    Image.Transpose.ROTATE_270: lambda upright: np.rot90(upright),
    Image.Transpose.TRANSVERSE: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    Image.Transpose.ROTATE_90: lambda upright: np.rot90(upright, -1),
}
# Pillow hands 16-bit samples of these over in its mode of 32 bits. In other such images nothing says what white is.
_DECLARES_WHITE_OF_32_BITS = (PngImagePlugin.PngImageFile, PpmImagePlugin.PpmImageFile, TiffImagePlugin.TiffImageFile)
_PIL_COMPLAINT = ("ignore", None, UserWarning, re.compile(r"PIL\.\w+Plugin"), 0)
# Pillow warns above 89 megapixels, whoever asks; here ``DecodeLimits.max_pixels`` decides.
_PIL_SIZE_WARNING = ("ignore", None, Image.DecompressionBombWarning, None, 0)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a regular file. Never blocks: pipes, devices, sockets and folders are refused unopened.

    Raises:
        ImageError: MISSING, UNREADABLE, EMPTY, or TOO_LARGE above ``MAX_BYTES``.
    """
    with open_regular(path) as file:
        return _content(file)


def _content(file: BinaryIO) -> bytes:
    size = os.fstat(file.fileno()).st_size
    refuse_large(size)
    # One byte more shows a file that grew; asking for MAX_BYTES would set that much memory aside first.
    data = file.read(size + 1)
    refuse_large(len(data))
    if not data:
        raise ImageError(Status.EMPTY, _EMPTY)
    return data


def refuse_large(size: int) -> None:
    """Refuse an encoded size above ``MAX_BYTES`` before it is read.

    Raises:
        ImageError: TOO_LARGE.
    """
    if size > MAX_BYTES:
        raise ImageError(Status.TOO_LARGE, f"the file has {size} bytes, above the limit of {MAX_BYTES}")


@contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a regular file for reading without ever blocking; errors while it is read are translated too.

    Raises:
        ImageError: MISSING or UNREADABLE.
    """
    try:
        _refuse_special(os.stat(path))
        # Not blocking, and looked at again: the name may have become a pipe since.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            _refuse_special(os.fstat(descriptor))
            yield file
    except (FileNotFoundError, NotADirectoryError) as error:
        reason = "broken link: its target does not exist" if os.path.islink(path) else "no such file"
        raise ImageError(Status.MISSING, reason) from error
    except OSError as error:
        raise ImageError(Status.UNREADABLE, _os_reason(error)) from error
    except ValueError as error:  # a NUL, or a character that the file system cannot spell
        raise ImageError(Status.MISSING, f"not a possible file name ({error})") from error


def _refuse_special(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(Status.UNREADABLE, "a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(Status.UNREADABLE, "not a regular file (pipe, device or socket)")


def _os_reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "a link that leads back to itself"
    # The file's name is not repeated: the row carries it, and it may not be printable.
    return f"cannot be read ({error.strerror or type(error).__name__})"


def load(
    path: str | os.PathLike[str],
    limits: DecodeLimits = DEFAULT_LIMITS,
    notes: list[str] | None = None,
    *,
    resizer: Resizer | None = None,
) -> np.ndarray:
    """``decode(read_bytes(path), ...)``, but large uncompressed files are not read at once.

    Raises:
        ImageError: as ``read_bytes`` and ``decode``.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if _STREAMED_FROM < size <= MAX_STREAMED_BYTES:
            name, _ = _recognise(file.read(SIGNATURE_BYTES))
            file.seek(0)
            if name in _STREAMED:
                with io.FileIO(os.dup(file.fileno())) as raw:
                    return _decode(raw, limits, notes, resizer)
        data = _content(file)
    return decode(data, limits, notes, resizer=resizer)


def decode(
    data: bytes,
    limits: DecodeLimits = DEFAULT_LIMITS,
    notes: list[str] | None = None,
    *,
    resizer: Resizer | None = None,
) -> np.ndarray:
    """Decode an image file.

    Args:
        data: the whole encoded file.
        limits: see ``DecodeLimits``.
        notes: sentences about what was ignored are appended, such as a broken colour profile.
        resizer: what the caller is going to do with the picture. A picture of more than ``limits.REDUCE_ABOVE`` pixels,
            or one that would exceed the bound of memory, then comes back in the size that it makes, as does an upright
            JPEG (to the bit as the resizer would make it of the whole, unless it is an eager one).

    Returns:
        uint8 HxWx3 RGB, C-contiguous and writable, upright.

    Raises:
        ImageError: EMPTY, NOT_AN_IMAGE, CORRUPT, TOO_LARGE or TOO_SMALL; whatever Pillow raises becomes one of these.
    """
    if not data:
        raise ImageError(Status.EMPTY, _EMPTY)
    return _decode(data, limits, notes, resizer)


class _Context(NamedTuple):
    """What a picture is decoded with.

    Attributes:
        limits: see ``DecodeLimits``.
        data: its file; empty where that is gone.
        notes: see ``decode``.
    """

    limits: DecodeLimits
    data: bytes | FileSlices
    notes: list[str] | None


def _decode(
    source: bytes | io.FileIO, limits: DecodeLimits, notes: list[str] | None, resizer: Resizer | None
) -> np.ndarray:
    data = source if isinstance(source, bytes) else FileSlices(source)
    name, plugin = _recognise(data[:SIGNATURE_BYTES])
    _check_before_opening(plugin, data, limits)
    _silence_complaints()
    with _as_image_error(f"{name} header"):
        image, structure = _opened(name, plugin, source, data)
    with image:
        limits.check_size(image.width, image.height)
        with _as_image_error(f"{name} of {image.width}x{image.height} pixels"):
            in_memory = len(data) if isinstance(data, bytes) else 0
            header = Header(name, image.mode, image.size, in_memory, len(data))
            plan = make_plan(header, structure, limits.max_pixels, resizer)
            context = _Context(limits, data, notes)
            if resizer is None or (plan.whole and not _is_plain(image)):
                return _upright_rgb(image, context)
            return _resized_rgb(image, context, plan, resizer)


def _opened(
    name: str, plugin: type[ImageFile.ImageFile], source: bytes | io.FileIO, data: bytes | FileSlices
) -> tuple[ImageFile.ImageFile, Structure]:
    file = metered(source)
    # First, for what is inspected must be the picture that is decoded.
    if plugin is TiffImagePlugin.TiffImageFile:
        patch(file, tiff.patches(file, data[:16]))
    structure = inspect(name, file)
    if plugin is PngImagePlugin.PngImageFile:
        patch(file, colour_profiles.png_patches(data))
    file.seek(0)
    return plugin(file), structure


def _is_plain(image: ImageFile.ImageFile) -> bool:
    """Whether the samples of a picture that is not loaded yet are those of an upright RGB JPEG."""
    return (
        isinstance(image, JpegImagePlugin.JpegImageFile) and image.mode == "RGB" and _orientation(image) not in _UPRIGHT
    )


def _resized_rgb(image: ImageFile.ImageFile, context: _Context, plan: Plan, resizer: Resizer) -> np.ndarray:
    """What the resizer makes of a picture, which is reduced while it is decoded."""
    width, height = image.size
    if isinstance(image, JpegImagePlugin.JpegImageFile) and plan.scale > 1:
        image.draft(None, (width // plan.scale, height // plan.scale))
    elif isinstance(image, Jpeg2KImagePlugin.Jpeg2KImageFile):
        image.reduce = plan.scale.bit_length() - 1
    meaning = _loaded(image, context)
    turn = _UPRIGHT.get(_orientation(image))
    if (
        plan.columns == plan.rows == 1
        and image.mode == "RGB"
        and isinstance(image, JpegImagePlugin.JpegImageFile)
        and meaning.colour is None
    ):
        # As it lies in memory: an array of 12 megapixels, and an image of that, take a tenth of the time of decoding.
        small = image
    else:
        small = Image.fromarray(_in_strips(image, meaning, None, plan))
    # The last averaged column and row may stand for fewer pixels than the others.
    box = (0, 0, width / plan.scale / plan.columns, height / plan.scale / plan.rows)
    rgb = resizer.filtered(small, resizer.size(height, width), box)
    return np.array(rgb if turn is None else rgb.transpose(turn))


def decode_pil(image: Image.Image, limits: DecodeLimits = DEFAULT_LIMITS, notes: list[str] | None = None) -> np.ndarray:
    """The pixels of a Pillow image, by the rules of ``decode``: those of its file where ``Image.open`` made it.

    Args:
        image: in any mode; never closed or altered. Of several frames the current one is taken.
        limits: see ``DecodeLimits``.
        notes: as for ``decode``.

    Returns:
        uint8 HxWx3 RGB, C-contiguous and writable, upright.

    Raises:
        ImageError: NOT_AN_IMAGE, CORRUPT (its file was closed, for one), TOO_LARGE or TOO_SMALL.
    """
    if image.mode == "I" and not isinstance(image, _DECLARES_WHITE_OF_32_BITS):
        raise ImageError(Status.NOT_AN_IMAGE, tiff.no_white("32-bit integer samples"))
    data = _unread_file(image)
    if data:
        return decode(data, limits, notes)
    _silence_complaints()
    limits.check_size(image.width, image.height)
    with _as_image_error(f"Pillow image (mode {image.mode}) of {image.width}x{image.height} pixels"):
        return _upright_rgb(image, _Context(limits, b"", notes))


def _unread_file(image: Image.Image) -> bytes:
    """The file of an image that is as ``Image.open`` made it; empty if it was decoded, reduced or moved on since.

    Empty as well for a file above ``MAX_BYTES``: Pillow decodes it from where it lies.
    """
    file = getattr(image, "fp", None)
    if file is None or not isinstance(image, ImageFile.ImageFile) or image.format not in _FORMATS:
        return b""
    if not image.tile or image.decoderconfig or image.tell() != 0:
        return b""
    with suppress(OSError, ValueError, AttributeError):
        before = file.tell()
        file.seek(0)
        data = file.read(MAX_BYTES + 1)
        file.seek(before)
        return data if len(data) <= MAX_BYTES else b""
    return b""


def _upright_rgb(image: Image.Image, context: _Context) -> np.ndarray:
    meaning = _loaded(image, context)
    turn = _UPRIGHT.get(_orientation(image))
    if image.width * image.height > _WHOLE_PIXELS:
        return _in_strips(image, meaning, turn, Plan())
    rgb = as_rgb(image, meaning)
    return rgb if turn is None else np.array(Image.fromarray(rgb).transpose(turn))


def _in_strips(image: Image.Image, meaning: Meaning, turn: Image.Transpose | None, plan: Plan) -> np.ndarray:
    """The pixels of a loaded picture, averaged as planned: between it and the array only a strip lies in memory."""
    width, height = -(-image.width // plan.columns), -(-image.height // plan.rows)
    upright = np.empty((width, height, 3) if turn in _SWAPS_SIDES else (height, width, 3), np.uint8)
    # The array as the file has its rows; what is written here stands upright there.
    stored = _UNTURNED[turn](upright)
    rows = max(1, _STRIP_PIXELS // image.width // plan.rows) * plan.rows
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        rgb = as_rgb(strip, meaning, top)
        if plan.columns > 1 or plan.rows > 1:
            rgb = np.asarray(Image.fromarray(rgb).reduce((plan.columns, plan.rows)))
        stored[top // plan.rows : top // plan.rows + len(rgb)] = rgb
    return upright


def _loaded(image: Image.Image, context: _Context) -> Meaning:
    """Decode the pixels of an opened image. TIFF is turned by that, and its orientation taken away."""
    colour = declared_colour(image, context.data, context.notes)
    if isinstance(image, JpegImagePlugin.JpegImageFile) and context.data and isinstance(context.data, bytes):
        jpeg.load(image, context.data)
    else:
        _prepare(image, context)
        image.load()
    return Meaning(image, context.limits.background, colour, hides_everything(image))


def _prepare(image: Image.Image, context: _Context) -> None:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tiff.prepare(image, context.data, context.limits)
    deep = isinstance(image, PngImagePlugin.PngImageFile) and any(tile.args == "RGB;16B" for tile in image.tile)
    if deep and "transparency" in image.info:
        # Of the 16 bits of a sample, only 8 arrive: they cannot be compared with the colour.
        raise ImageError(Status.NOT_AN_IMAGE, "16-bit colour with a transparent colour: save it with 8 bits")


def _recognise(data: bytes) -> tuple[str, type[ImageFile.ImageFile]]:
    """Format by its signature. JPEG and MPO go to the same plugin, which reads the main photograph of both."""
    # First, for some of them begin as a JPEG or a TIFF does.
    if foreign := foreign_format(data):
        raise ImageError(Status.NOT_AN_IMAGE, foreign)
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG", JpegImagePlugin.JpegImageFile
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG", PngImagePlugin.PngImageFile
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP", WebPImagePlugin.WebPImageFile
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF", TiffImagePlugin.TiffImageFile
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF", GifImagePlugin.GifImageFile
    if data.startswith(b"BM"):
        return "BMP", BmpImagePlugin.BmpImageFile
    if data.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")):
        return "JPEG 2000", Jpeg2KImagePlugin.Jpeg2KImageFile
    brands = _iso_brands(data)
    if brands & {b"avif", b"avis"}:
        return "AVIF", _avif_plugin()
    if re.match(rb"P[1-6]\s", data):
        return "PNM", PnmImageFile
    if brands & HEIF_BRANDS:
        return "HEIC", _heif_plugin()
    raise ImageError(Status.NOT_AN_IMAGE, f"begins with {data[:12]!r}, which is none of {_ACCEPTED}")


def _avif_plugin() -> type[ImageFile.ImageFile]:
    """Pillow has it since 11.3, if it was built with libavif. It is large, so it is imported when first needed."""
    with suppress(ImportError):
        from PIL import AvifImagePlugin

        if AvifImagePlugin.SUPPORTED:
            return AvifImagePlugin.AvifImageFile
    raise ImageError(Status.NOT_AN_IMAGE, "AVIF, which this Pillow does not read: install Pillow 11.3 or newer")


def _heif_plugin() -> type[ImageFile.ImageFile]:
    """An extra: libheif turns and mirrors the picture as the file says, and the plugin takes the EXIF tag away."""
    with suppress(ImportError):
        from pillow_heif import HeifImageFile

        return HeifImageFile
    reason = "HEIC, which needs the package pillow-heif: pip install pillow-heif, or save it as JPEG or PNG"
    raise ImageError(Status.NOT_AN_IMAGE, reason)


def _iso_brands(data: bytes) -> set[bytes]:
    """Major and compatible brands of an ISO media file (ISO/IEC 14496-12, box ``ftyp``); empty for anything else."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 256, len(data))
    return {data[8:12]} | {data[at : at + 4] for at in range(16, end - 3, 4)}


def _check_before_opening(plugin: type[ImageFile.ImageFile], data: bytes | FileSlices, limits: DecodeLimits) -> None:
    """What two of Pillow's decoders let pass."""
    if not isinstance(data, bytes):
        return  # neither is decoded from the disk
    if plugin is Jpeg2KImagePlugin.Jpeg2KImageFile and data.find(b"\xff\xd9", data.find(b"\xff\x4f\xff\x51")) < 0:
        # A missing rest becomes noise. No packet can hold the end marker (ISO/IEC 15444-1, annex A).
        raise ImageError(Status.CORRUPT, "JPEG 2000: truncated, the end of the codestream is missing")
    if plugin is Jpeg2KImagePlugin.Jpeg2KImageFile and _is_deep_jpeg2000(data):
        # Pillow rounds, and what is nearly white becomes 256, which is black.
        reason = "JPEG 2000 in colour with more than 8 bits a channel: save it with 8 bits, or as PNG"
        raise ImageError(Status.NOT_AN_IMAGE, reason)
    if plugin is WebPImagePlugin.WebPImageFile and data[12:16] == b"VP8X" and len(data) >= 30:
        # Opening a WebP already allocates its canvas (RFC 9649, section 2.7: sides of 24 bits, minus one).
        width, height = int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        limits.check_size(width, height)


def _is_deep_jpeg2000(data: bytes) -> bool:
    """Whether the components are several and one has more than 8 bits (ISO/IEC 15444-1, A.5.1)."""
    start = data.find(b"\xff\x4f\xff\x51") + 40
    count = int.from_bytes(data[start : start + 2], "big")
    depths = data[start + 2 : start + 2 + 3 * count : 3]
    return count > 1 and any(depth & 0x7F > 7 for depth in depths)


@contextmanager
def _as_image_error(what: str) -> Iterator[None]:
    """Corrupt files make Pillow raise nearly anything (SyntaxError, struct.error, KeyError, OverflowError, ...)."""
    try:
        yield
    except ImageError:
        raise
    except WorkExceededError as error:
        raise ImageError(Status.TOO_LARGE, f"{what}: {error}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(Status.TOO_LARGE, f"{what}: {_said(error)}") from error
    except MemoryError as error:
        raise ImageError(Status.CORRUPT, f"{what}: memory did not suffice to decode it") from error
    except Exception as error:
        raise ImageError(Status.CORRUPT, f"{what}: {_said(error)}") from error


def _said(error: Exception) -> str:
    """The message without addresses of objects, which differ from run to run."""
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", str(error))
    return f"{text[:160] or 'corrupt'} ({type(error).__name__})"


def _silence_complaints() -> None:
    """Keep narrow filters in front, where they are found at once; ``warnings.catch_warnings`` is not thread-safe."""
    if list(warnings.filters[:2]) != [_PIL_SIZE_WARNING, _PIL_COMPLAINT]:
        warnings.filterwarnings("ignore", category=UserWarning, module=_PIL_COMPLAINT[3].pattern)
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    tiff.silence_libtiff()


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 where there is none to be read; Pillow has already turned a TIFF."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:
        return 1
