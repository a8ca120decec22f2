"""Any image file -> RGB uint8: the one decoder, so that training, labelling, evaluation and runtime agree to the pixel.

Accepted, by content and never by name: JPEG (with MPO), PNG, WebP, TIFF, BMP, GIF, JPEG 2000, AVIF and PNM (P1 to P6).
Only these Pillow plugins are ever called; formats that run programs or fetch files (EPS, PSD, FPX, ...) are not.

How pixels become 8-bit RGB:

* the first frame of an animation, the first page of a TIFF, the main photograph of an MPO;
* the EXIF orientation is applied; damaged EXIF is ignored, it says nothing about the pixels;
* alpha, palette transparency and colour keys are composited on ``DecodeLimits.background``;
* 16-bit gray is scaled (x / 257, rounded), 12-bit TIFF likewise (x * 255 / 4095); 16-bit colour arrives from Pillow as
  its high byte, which differs from rounding by at most one level;
* 32-bit float TIFF is accepted if every sample lies in [0, 1]; other floats and 32-bit integers have no declared white,
  so they are refused instead of guessed;
* CMYK is converted by Pillow's formula, and embedded ICC profiles are ignored, as the published IQA datasets are read.

Work and memory are bounded, see ``limits``: what costs more is refused with the reason, before it is decoded. A caller
that resizes anyway says how (``resizer``); pictures of more than ``limits.REDUCE_ABOVE`` pixels are reduced by it while
they are decoded.

Needs numpy and Pillow only. Thread-safe: no Pillow setting is touched. Pillow's own complaints about damaged metadata
are silenced. ``PIL.ImageFile.LOAD_TRUNCATED_IMAGES`` must stay at its default, False, or truncation cannot be seen.
"""

import errno
import io
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

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

from pseudo_labels.defaults import MAX_PIXELS
from pseudo_labels.errors import PocketiqaError, WorkExceededError
from pseudo_labels.limits import Header, Plan, PnmImageFile, Resizer, make_plan, metered
from pseudo_labels.records import Status
from pseudo_labels.structure import inspect

MAX_BYTES = 400_000_000
"""Largest content that is read at once; larger files are refused unread, but for those below."""
MAX_STREAMED_BYTES = 1 << 30
"""``load`` decodes TIFF, PNG, BMP and PNM up to this size from the open file: 100 megapixels of four 16-bit channels
have 0.8 GB uncompressed."""

# From this size on the formats that can be are decoded from the open file.
_STREAMED_FROM = 128_000_000
_STREAMED = ("TIFF", "PNG", "BMP", "PNM")
# More than any signature, and the brands of an ISO media file.
_SIGNATURE_BYTES = 512
# Larger pictures become an array strip by strip, so that no third copy of them lies in memory.
_STRIP_PIXELS = 4_000_000
_WHOLE_PIXELS = 16_000_000
_EXIF_ORIENTATION = 0x0112
_TIFF_BITS_PER_SAMPLE = 258
_TIFF_PHOTOMETRIC = 262
_TIFF_WHITE_IS_ZERO = 0
_EMPTY = "the file has zero bytes"
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


@dataclass(frozen=True)
class DecodeLimits:
    """What is accepted, and on what transparent pixels are shown.

    Attributes:
        max_pixels: width times height above this is refused from the header, before anything is decoded. (Pillow
            itself refuses WebP above twice its ``MAX_IMAGE_PIXELS``, 179 megapixels, whatever is said here.)
        min_side: width or height below this is refused.
        background: RGB that shows through transparent pixels.

    Raises:
        PocketiqaError: a limit is below 1, or the background is no 8-bit colour.
    """

    max_pixels: int = MAX_PIXELS
    min_side: int = 64
    background: tuple[int, int, int] = (255, 255, 255)

    def __post_init__(self) -> None:
        for name in ("max_pixels", "min_side"):
            if getattr(self, name) < 1:
                raise PocketiqaError(f"{name} is {getattr(self, name)}, but must be at least 1")
        if len(self.background) != 3 or not all(0 <= level <= 255 for level in self.background):
            raise PocketiqaError(f"background is {self.background}, but must be three levels from 0 to 255")


DEFAULT_LIMITS = DecodeLimits()


class ImageError(PocketiqaError):
    """An image that cannot be used: ``status`` for programs, ``reason`` for persons (also ``str(error)``)."""

    def __init__(self, status: Status, reason: str):
        # Reasons quote other people's text: they become one line that can be printed and stored.
        reason = "".join(letter if letter.isprintable() else "?" for letter in " ".join(reason.split()))
        # Both stay in ``args``, so that the error survives a trip between processes.
        super().__init__(status, reason)
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


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
    path: str | os.PathLike[str], limits: DecodeLimits = DEFAULT_LIMITS, *, resizer: Resizer | None = None
) -> np.ndarray:
    """``decode(read_bytes(path), ...)``, but large uncompressed files are not read at once.

    Raises:
        ImageError: as ``read_bytes`` and ``decode``.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if _STREAMED_FROM < size <= MAX_STREAMED_BYTES:
            name, _ = _recognise(file.read(_SIGNATURE_BYTES))
            file.seek(0)
            if name in _STREAMED:
                with io.FileIO(os.dup(file.fileno())) as raw:
                    return _decode(metered(raw), limits, resizer)
        data = _content(file)
    return decode(data, limits, resizer=resizer)


def decode(data: bytes, limits: DecodeLimits = DEFAULT_LIMITS, *, resizer: Resizer | None = None) -> np.ndarray:
    """Decode an image file.

    Args:
        data: the whole encoded file.
        limits: see ``DecodeLimits``.
        resizer: what the caller is going to do with the picture. A picture of more than ``limits.REDUCE_ABOVE`` pixels,
            or one that would exceed the bound of memory, then comes back in the size that it makes.

    Returns:
        uint8 HxWx3 RGB, C-contiguous and writable, upright.

    Raises:
        ImageError: EMPTY, NOT_AN_IMAGE, CORRUPT, TOO_LARGE or TOO_SMALL; whatever Pillow raises becomes one of these.
    """
    if not data:
        raise ImageError(Status.EMPTY, _EMPTY)
    return _decode(metered(data), limits, resizer)


def _decode(file: BinaryIO, limits: DecodeLimits, resizer: Resizer | None) -> np.ndarray:
    in_memory = len(file.getbuffer()) if isinstance(file, io.BytesIO) else 0
    encoded = file.seek(0, io.SEEK_END)
    file.seek(0)
    name, plugin = _recognise(file.read(_SIGNATURE_BYTES))
    _check_before_opening(plugin, file, limits)
    _silence_complaints()
    with _as_image_error(f"{name} header"):
        structure = inspect(name, file)
        file.seek(0)
        image = plugin(file)
    with image:
        _check_size(image.width, image.height, limits)
        with _as_image_error(f"{name} of {image.width}x{image.height} pixels"):
            header = Header(name, image.mode, image.size, in_memory, encoded)
            plan = make_plan(header, structure, limits.max_pixels, resizer)
            if resizer is None or plan.whole:
                return _upright_rgb(image, limits)
            return _resized_rgb(image, limits, plan, resizer)


def _resized_rgb(image: ImageFile.ImageFile, limits: DecodeLimits, plan: Plan, resizer: Resizer) -> np.ndarray:
    """What the resizer makes of a picture, which is reduced while it is decoded."""
    width, height = image.size
    if isinstance(image, JpegImagePlugin.JpegImageFile) and plan.scale > 1:
        image.draft(None, (width // plan.scale, height // plan.scale))
    elif isinstance(image, Jpeg2KImagePlugin.Jpeg2KImageFile):
        image.reduce = plan.scale.bit_length() - 1
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    small = Image.fromarray(_in_strips(image, limits, None, plan))
    # The last averaged column and row may stand for fewer pixels than the others.
    box = (0, 0, width / plan.scale / plan.columns, height / plan.scale / plan.rows)
    rgb = resizer.filtered(small, resizer.size(height, width), box)
    return np.array(rgb if turn is None else rgb.transpose(turn))


def decode_pil(image: Image.Image, limits: DecodeLimits = DEFAULT_LIMITS) -> np.ndarray:
    """The pixels of a Pillow image, by the rules of ``decode``: those of its file where ``Image.open`` made it.

    Args:
        image: in any mode; loaded if it was not, never closed or altered. Of several frames the current one is taken.
        limits: see ``DecodeLimits``.

    Returns:
        uint8 HxWx3 RGB, C-contiguous and writable, upright.

    Raises:
        ImageError: NOT_AN_IMAGE, CORRUPT (its file was closed, for one), TOO_LARGE or TOO_SMALL.
    """
    if image.mode == "I" and not isinstance(image, _DECLARES_WHITE_OF_32_BITS):
        raise ImageError(Status.NOT_AN_IMAGE, _no_white("32-bit integer samples"))
    _silence_complaints()
    _check_size(image.width, image.height, limits)
    with _as_image_error(f"Pillow image (mode {image.mode}) of {image.width}x{image.height} pixels"):
        return _upright_rgb(image, limits)


def _upright_rgb(image: Image.Image, limits: DecodeLimits) -> np.ndarray:
    # Before the orientation is read: loading a TIFF turns it, and takes the tag away.
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    if image.width * image.height > _WHOLE_PIXELS:
        return _in_strips(image, limits, turn, Plan())
    rgb = _as_rgb(image, limits.background, image)
    return np.array(rgb if turn is None else rgb.transpose(turn))


def _in_strips(image: Image.Image, limits: DecodeLimits, turn: Image.Transpose | None, plan: Plan) -> np.ndarray:
    """The pixels of a loaded picture, averaged as planned: between it and the array only a strip lies in memory."""
    width, height = -(-image.width // plan.columns), -(-image.height // plan.rows)
    upright = np.empty((width, height, 3) if turn in _SWAPS_SIDES else (height, width, 3), np.uint8)
    # The array as the file has its rows; what is written here stands upright there.
    stored = _UNTURNED[turn](upright)
    rows = max(1, _STRIP_PIXELS // image.width // plan.rows) * plan.rows
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        rgb = _as_rgb(strip, limits.background, image)
        if plan.columns > 1 or plan.rows > 1:
            rgb = rgb.reduce((plan.columns, plan.rows))
        stored[top // plan.rows : top // plan.rows + rgb.height] = np.asarray(rgb)
    return upright


def _recognise(data: bytes) -> tuple[str, type[ImageFile.ImageFile]]:
    """Format by its signature. JPEG and MPO go to the same plugin, which reads the main photograph of both."""
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
    hint = "HEIC is not accepted: save it as JPEG or PNG" if brands & {b"heic", b"heix", b"hevc", b"mif1"} else ""
    raise ImageError(Status.NOT_AN_IMAGE, hint or f"begins with {data[:12]!r}, which is none of {_ACCEPTED}")


def _avif_plugin() -> type[ImageFile.ImageFile]:
    """Pillow has it since 11.3, if it was built with libavif. It is large, so it is imported when first needed."""
    with suppress(ImportError):
        from PIL import AvifImagePlugin

        if AvifImagePlugin.SUPPORTED:
            return AvifImagePlugin.AvifImageFile
    raise ImageError(Status.NOT_AN_IMAGE, "AVIF, which this Pillow does not read: install Pillow 11.3 or newer")


def _iso_brands(data: bytes) -> set[bytes]:
    """Major and compatible brands of an ISO media file (ISO/IEC 14496-12, box ``ftyp``); empty for anything else."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 256, len(data))
    return {data[8:12]} | {data[at : at + 4] for at in range(16, end - 3, 4)}


def _check_before_opening(plugin: type[ImageFile.ImageFile], file: BinaryIO, limits: DecodeLimits) -> None:
    """What two of Pillow's decoders let pass."""
    data = file.getvalue() if isinstance(file, io.BytesIO) else b""
    if plugin is Jpeg2KImagePlugin.Jpeg2KImageFile and data.find(b"\xff\xd9", data.find(b"\xff\x4f\xff\x51")) < 0:
        # A missing rest becomes noise. No packet can hold the end marker (ISO/IEC 15444-1, annex A).
        raise ImageError(Status.CORRUPT, "JPEG 2000: truncated, the end of the codestream is missing")
    if plugin is WebPImagePlugin.WebPImageFile and data[12:16] == b"VP8X" and len(data) >= 30:
        # Opening a WebP already allocates its canvas (RFC 9649, section 2.7: sides of 24 bits, minus one).
        width, height = int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        _check_size(width, height, limits)


@contextmanager
def _as_image_error(what: str) -> Iterator[None]:
    """Damaged files make Pillow raise nearly anything (SyntaxError, struct.error, KeyError, OverflowError, ...)."""
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
    return f"{text[:160] or 'damaged'} ({type(error).__name__})"


def _check_size(width: int, height: int, limits: DecodeLimits) -> None:
    if width * height > limits.max_pixels:
        reason = f"{width}x{height} = {width * height} pixels are above the limit of {limits.max_pixels}"
        raise ImageError(Status.TOO_LARGE, reason)
    if min(width, height) < limits.min_side:
        raise ImageError(Status.TOO_SMALL, f"{width}x{height} pixels: a side is below the limit of {limits.min_side}")


def _silence_complaints() -> None:
    """Keep one narrow filter in front, where it is found at once; ``warnings.catch_warnings`` is not thread-safe."""
    if list(warnings.filters[:1]) != [_PIL_COMPLAINT]:
        warnings.filterwarnings("ignore", category=UserWarning, module=_PIL_COMPLAINT[3].pattern)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 where there is none to be read; Pillow has already turned a TIFF."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:
        return 1


def _as_rgb(image: Image.Image, background: tuple[int, int, int], source: Image.Image) -> Image.Image:
    """A picture, or a strip of it, as RGB; ``source``, the whole picture, says what its samples mean."""
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        return _deep_gray(image, background, source)
    if image.mode == "La":
        return _on_background(image.convert("LA"), background)
    return _on_background(image, background) if image.has_transparency_data else image.convert("RGB")


def _on_background(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    canvas = Image.new("RGBA", image.size, (*background, 255))
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas.convert("RGB")


def _deep_gray(image: Image.Image, background: tuple[int, int, int], source: Image.Image) -> Image.Image:
    """Gray of more than 8 bits: scaled to 8, never clipped."""
    samples = np.asarray(image)
    gray = _scaled_float(samples) if image.mode == "F" else _scaled_integer(samples, _white(source))
    if _is_white_zero(source):
        gray = 255 - gray
    rgb = np.repeat(gray[:, :, None], 3, axis=2)
    key = image.info.get("transparency")
    if isinstance(key, int):
        rgb[samples == key] = background
    return Image.fromarray(rgb)


def _white(image: Image.Image) -> int:
    """The sample value of white; Pillow hands 12-bit TIFF samples over unscaled."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (16,))[0]
        if image.mode == "I":
            raise ImageError(Status.NOT_AN_IMAGE, _no_white(f"signed or {bits}-bit integer samples"))
        return (1 << bits) - 1
    return 65535


def _is_white_zero(image: Image.Image) -> bool:
    """Pillow inverts "white is zero" up to 8 bits, but not above."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    return image.tag_v2.get(_TIFF_PHOTOMETRIC) == _TIFF_WHITE_IS_ZERO


def _scaled_integer(samples: np.ndarray, white: int) -> np.ndarray:
    return ((samples.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)


def _scaled_float(samples: np.ndarray) -> np.ndarray:
    if not (np.isfinite(samples).all() and samples.min() >= 0 and samples.max() <= 1):
        raise ImageError(Status.NOT_AN_IMAGE, _no_white("float samples outside [0, 1]"))
    return np.rint(samples * 255).astype(np.uint8)


def _no_white(what: str) -> str:
    return f"{what} have no declared white: save the photograph with 8 or 16 bits a channel"
