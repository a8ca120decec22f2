"""What decoding a file may cost: bounds of work and memory that hold whoever made the file.

``metered`` counts the calls with which Pillow's own loops take a file in small pieces, one step of Python a piece,
whatever the format. ``make_plan`` estimates memory and time from the header (and ``structure.inspect``), and says how
far a picture is reduced while it is decoded. ``PnmImageFile`` stands in for the one reader of Pillow that works sample
by sample. ``DecodeLimits`` is what a caller says of it. Needs numpy and Pillow only.
"""

import io
import os
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, Protocol

import numpy as np
from PIL import Image
from PIL.PpmImagePlugin import PpmImageFile

from pseudo_labels.defaults import MAX_PIXELS
from pseudo_labels.errors import PocketiqaError, WorkExceededError
from pseudo_labels.records import ImageError, Status
from pseudo_labels.structure import Structure

MAX_READS = 2_000_000
"""Pieces in which Pillow may take a file; a photograph of 100 megapixels needs some ten thousand."""
REDUCE_ABOVE = 64_000_000
"""Pictures of at most this many pixels are decoded whole."""
MAX_SECONDS = 10.0
"""Bound of the time that a file of ``MAX_PIXELS`` may take on one core."""
# Sides that are left where a picture is reduced while it is decoded, as multiples of those that are needed: where the
# students' own resize, too, stops averaging whole pixels and begins to filter (``students.preprocess``).
_GAP = 2.0
# How far the reduction may be from this factor for the sake of the decoder: with more, scores move by more than 0.002.
_OFF = 0.05
# A picture of 8.0 megapixels is twice one of 2, but for the rounding of its sides.
_NEARLY = 1.02
_HALVINGS_OF_JPEG = 3
# Bound of memory in bytes for each pixel of the limit, where the caller resizes and where it takes all pixels; Pillow
# holds 4 bytes a pixel, and an array of all pixels has 3 more.
_BYTES_RESIZED, _BYTES_WHOLE = 6.6, 11
_FEWEST_BYTES = 256_000_000
_SCANS_OF_LARGEST = 20
_BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
# Seconds for each byte and each pixel of the slow formats, measured on one core (photographs and noise, lossless too).
_SECONDS = {"JPEG 2000": (0.16e-6, 0.034e-6), "AVIF": (0.075e-6, 0.022e-6), "HEIC": (0.075e-6, 0.022e-6)}
MAX_PLAIN_SAMPLES = 64_000_000
"""Samples of a plain PNM: numbers in words cost about 0.1 microseconds each."""
MAX_COMMENTS = 1_000_000
_PIECE = 1 << 22
_PATCH_BYTES = 8
_WHITESPACE = b" \t\n\v\f\r"
_COMMENT = re.compile(rb"#[^\r\n]*[\r\n]?")


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

    def check_size(self, width: int, height: int) -> None:
        """Refuse a picture by its size.

        Raises:
            ImageError: TOO_LARGE or TOO_SMALL.
        """
        if width * height > self.max_pixels:
            reason = f"{width}x{height} = {width * height} pixels are above the limit of {self.max_pixels}"
            raise ImageError(Status.TOO_LARGE, reason)
        if min(width, height) < self.min_side:
            reason = f"{width}x{height} pixels: a side is below the limit of {self.min_side}"
            raise ImageError(Status.TOO_SMALL, reason)


DEFAULT_LIMITS = DecodeLimits()


class _Metered:
    """A stream that counts how often it is read, and gives other bytes at some offsets."""

    reads_left = MAX_READS
    patches: tuple[tuple[int, bytes], ...] = ()

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise WorkExceededError(
                f"it consists of more than {MAX_READS} tiny pieces (padding, chunks, blocks or runs): save it anew "
                "with another program"
            )
        # Both methods are of the stream beside this class.
        if not self.patches:
            return super().read(size)  # pyright: ignore[reportAttributeAccessIssue]
        start = super().tell()  # pyright: ignore[reportAttributeAccessIssue]
        piece = super().read(size)  # pyright: ignore[reportAttributeAccessIssue]
        return _patched(piece, start, self.patches)


class _MeteredBytes(_Metered, io.BytesIO):
    pass


class _MeteredFile(_Metered, io.BufferedReader):
    pass


def _patched(piece: bytes, start: int, patches: tuple[tuple[int, bytes], ...]) -> bytes:
    # Patches are short: the first that may reach into the piece begins a little before it.
    first = bisect_left(patches, (start - _PATCH_BYTES, b""))
    end = start + len(piece)
    if first == len(patches) or patches[first][0] >= end:
        return piece
    changed = bytearray(piece)
    # By index: a file may need a hundred thousand patches, and a slice of them would be copied at each read.
    for number in range(first, len(patches)):
        offset, new = patches[number]
        if offset >= end:
            break
        for at in range(max(start, offset), min(end, offset + len(new))):
            changed[at - start] = new[at - offset]
    return bytes(changed)


def patch(stream: BinaryIO, patches: Mapping[int, bytes]) -> None:
    """Let a stream of ``metered`` give other bytes than the file has, at these offsets; no copy of it is made.

    Args:
        stream: readers that ask for its ``getvalue`` or ``fileno`` get the file as it is.
        patches: by offset, at most 8 bytes each.
    """
    assert isinstance(stream, _Metered)
    assert all(len(new) <= _PATCH_BYTES for new in patches.values())
    stream.patches = tuple(sorted(patches.items()))


class FileSlices:
    """The content of an open file: a slice of it is read when it is asked for, and nothing else."""

    def __init__(self, file: io.FileIO):
        self._descriptor = file.fileno()
        self._size = os.fstat(self._descriptor).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        # The position of the file is left alone: a buffered stream over it relies on it.
        return os.pread(self._descriptor, max(0, stop - start), start)


def metered(source: bytes | io.RawIOBase) -> BinaryIO:
    """A stream over a file's content or over the open file, which raises ``WorkExceededError`` after ``MAX_READS``."""
    return _MeteredBytes(source) if isinstance(source, bytes) else _MeteredFile(source)  # pyright: ignore


@dataclass(frozen=True)
class Plan:
    """How a picture is decoded.

    Attributes:
        scale: the decoder itself gives a picture whose sides are divided by this, a power of two.
        columns: columns of that picture that are averaged to one.
        rows: likewise its rows.
    """

    scale: int = 1
    columns: int = 1
    rows: int = 1

    @property
    def whole(self) -> bool:
        """Whether all pixels are decoded."""
        return self == Plan()


@dataclass(frozen=True)
class Header:
    """What a file is, before it is decoded.

    Attributes:
        name: format, as ``images`` names it.
        mode: Pillow's mode.
        size: width and height in pixels.
        in_memory: bytes of the file that lie in memory.
        encoded: bytes of the file.
    """

    name: str
    mode: str
    size: tuple[int, int]
    in_memory: int
    encoded: int


class Resizer(Protocol):
    """What a caller is going to do with a picture, so that it need not lie in memory whole.

    Attributes:
        eager: whether a JPEG is decoded to half, a quarter or an eighth of its sides wherever that leaves the size that
            is needed; that takes less time.
    """

    eager: ClassVar[bool]

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after the resize."""
        ...

    def filtered(
        self, image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
    ) -> Image.Image:
        """Resize an RGB image.

        Args:
            image: RGB; large sides may have been reduced already by averaging whole pixels.
            size: height and width of the result.
            box: the part of the image that is the picture, if not all of it: left, upper, right, lower.
        """
        ...


def make_plan(header: Header, structure: Structure, max_pixels: int, resizer: Resizer | None) -> Plan:
    """Choose how a picture is decoded within the bounds of memory and time, which grow with ``max_pixels``.

    Args:
        header: of the file.
        structure: of the file, see ``inspect``.
        max_pixels: the limit of pixels.
        resizer: where given, pictures of more than ``REDUCE_ABOVE`` pixels are decoded reduced, to about twice the
            sides that it makes, as are smaller ones that would exceed a bound otherwise; of an eager one, also JPEGs.

    Raises:
        WorkExceededError: a bound would be exceeded whatever is done; with the estimate and the bound.
    """
    width, height = header.size
    most_scanned = _SCANS_OF_LARGEST * max(MAX_PIXELS, max_pixels)
    if structure.scanned > most_scanned:
        raise WorkExceededError(
            f"its scans pass over {structure.scanned} pixels in all, above the bound of {most_scanned}: save it with "
            "fewer scans"
        )
    plans = [] if resizer and width * height > REDUCE_ABOVE else [Plan()]
    if resizer is not None and resizer.eager and header.name == "JPEG":
        plans.insert(0, _halved(header, resizer))
    if resizer is not None:
        plans.append(_reduced(header, structure, resizer))
    most = max(_FEWEST_BYTES, int((_BYTES_RESIZED if resizer else _BYTES_WHOLE) * max_pixels))
    longest = MAX_SECONDS * max(1, max_pixels / MAX_PIXELS)
    excess = ""
    for plan in plans:
        needed, seconds = _peak_bytes(header, structure, plan), _seconds(header, plan)
        if needed <= most and seconds <= longest:
            return plan
        if needed > most:
            excess = f"decoding it would take {needed >> 20} MB of memory, above the bound of {most >> 20} MB"
        else:
            excess = f"decoding it would take about {seconds:.0f} s, above the bound of {longest:.0f} s"
    raise WorkExceededError(f"{excess}: save it with fewer pixels or in another format")


def _reduced(header: Header, structure: Structure, resizer: Resizer) -> Plan:
    """The reduction that the resizer would begin with, as much of it as comes close by the decoder itself."""
    width, height = header.size
    rows, columns = resizer.size(height, width)
    wanted = [max(1, int(side / needed / _GAP)) for side, needed in ((width, columns), (height, rows))]
    most = {"JPEG": _HALVINGS_OF_JPEG, "JPEG 2000": structure.halvings}.get(header.name, 0)
    scale = 1 << min(most, min(wanted).bit_length() - 1)
    while any(abs(scale * round(factor / scale) - factor) > _OFF * factor for factor in wanted):
        scale //= 2
    return Plan(scale, *(round(factor / scale) for factor in wanted))


def _halved(header: Header, resizer: Resizer) -> Plan:
    """The most that a JPEG's decoder can reduce a picture and leave what the resizer needs."""
    width, height = header.size
    rows, columns = resizer.size(height, width)
    factor = int(_NEARLY * min(width / columns, height / rows))
    return Plan(1 << min(_HALVINGS_OF_JPEG, max(1, factor).bit_length() - 1))


def _peak_bytes(header: Header, structure: Structure, plan: Plan) -> int:
    pixels = header.size[0] * header.size[1] // plan.scale**2
    buffers = structure.buffers // (plan.scale**2 if header.name == "JPEG 2000" else 1)
    picture = _BYTES_PER_PIXEL.get(header.mode, 4) * pixels * structure.copies
    return header.in_memory + picture + max(buffers, 3 * pixels // (plan.columns * plan.rows))


def _seconds(header: Header, plan: Plan) -> float:
    for_bytes, for_pixels = _SECONDS.get(header.name, (0.0, 0.0))
    # The finest level of a JPEG 2000 holds most of its bytes.
    whole = for_bytes * header.encoded + for_pixels * header.size[0] * header.size[1]
    return whole / plan.scale**2


class PnmImageFile(PpmImageFile):
    """Pillow's reader of PNM, but plain files (P1, P2, P3) and raw ones with an odd maximum are read by numpy.

    Pillow takes minutes for 20 megapixels of them. Header, modes, pixels and what is corrupt are Pillow's.
    """

    def load(self) -> Any:
        """Read the samples.

        Raises:
            WorkExceededError: a plain file of more than ``MAX_PLAIN_SAMPLES``.
            ValueError: samples are missing, no numbers, or above the maximum of the header.
        """
        if self.tile and self.tile[0].codec_name in ("ppm", "ppm_plain"):
            plain = self.tile[0].codec_name == "ppm_plain"
            bitmap = self.mode == "1"
            args = self.tile[0].args
            maximum = 1 if bitmap or not isinstance(args, tuple) else int(args[-1])
            bands = len(self.getbands())
            if plain and not bitmap and self.width * self.height * bands > MAX_PLAIN_SAMPLES:
                raise WorkExceededError(
                    f"{self.width * self.height * bands} samples in plain text, above the limit of "
                    f"{MAX_PLAIN_SAMPLES}: save it as binary PNM or PNG"
                )
            assert self.fp is not None
            self.fp.seek(self.tile[0].offset)
            samples = self._bits() if bitmap else self._words(maximum) if plain else self._raw(maximum, bands)
            self.im = self._filled(samples, maximum, bands).im
            self.tile = []
        return super().load()

    def _filled(self, samples: Iterator[np.ndarray], maximum: int, bands: int) -> Image.Image:
        """The picture, filled by whole rows, so that its samples never lie in memory all at once."""
        white = 65535 if self.mode == "I" else 255
        picture = Image.new(self.mode, self.size)
        # The formula of Pillow for each value that a sample may have.
        scaled = np.minimum(white, np.rint(np.arange(maximum + 1) / maximum * white)).astype(np.int64)
        row, top = self.width * bands, 0
        rest = np.zeros(0, np.int64)
        while top < self.height:
            piece = next(samples, None)
            if piece is None:
                raise ValueError(f"{top * row + len(rest)} samples are there, {self.height * row} are needed")
            rest = np.concatenate([rest, piece])[: (self.height - top) * row]
            rows = len(rest) // row
            if rows:
                strip = rest[: rows * row]
                if int(strip.max()) > maximum:
                    raise ValueError(f"a sample of {int(strip.max())} is above the maximum of {maximum}")
                picture.paste(self._strip(scaled[strip], rows), (0, top))
                rest, top = rest[rows * row :], top + rows
        return picture

    def _strip(self, values: np.ndarray, rows: int) -> Image.Image:
        size = (self.width, rows)
        if self.mode == "I":
            return Image.frombytes("I", size, values.astype("<i4").tobytes())
        strip = Image.frombytes("L" if self.mode == "1" else self.mode, size, values.astype(np.uint8).tobytes())
        return strip.convert("1", dither=Image.Dither.NONE) if self.mode == "1" else strip

    def _pieces(self) -> Iterator[bytes]:
        assert self.fp is not None
        while piece := self.fp.read(_PIECE):
            yield piece

    def _text(self) -> Iterator[bytes]:
        """The text without comments, in pieces.

        Raises:
            WorkExceededError: more than ``MAX_COMMENTS``.
        """
        comments, in_comment = 0, False
        for piece in self._pieces():
            if in_comment:
                piece = b"#" + piece
            comments += piece.count(b"#")
            if comments > MAX_COMMENTS:
                raise WorkExceededError(f"more than {MAX_COMMENTS} comments in a PNM: save it anew without")
            # A comment joins what stands on its two sides, as Pillow has it.
            last = piece.rfind(b"#")
            in_comment = last >= 0 and not re.search(rb"[\r\n]", piece[last:])
            yield _COMMENT.sub(b"", piece)

    def _cut_between_words(self) -> Iterator[bytes]:
        rest = b""
        for piece in self._text():
            text = rest + piece
            end = max(text.rfind(bytes([letter])) for letter in _WHITESPACE) + 1
            rest = text[end:]
            if len(rest) > _PIECE:
                raise ValueError("a word of more than 4 MB in plain PNM")
            yield text[:end]
        yield rest

    def _words(self, maximum: int) -> Iterator[np.ndarray]:
        for text in self._cut_between_words():
            odd = text.translate(None, b"0123456789" + _WHITESPACE)
            if odd:
                raise ValueError(f"{odd[:12]!r} is no sample of a plain PNM")
            if re.search(rb"\d{11}", text):
                raise ValueError(f"a sample of more than 10 digits is above the maximum of {maximum}")
            yield np.fromstring(text, np.int64, sep=" ") if text.strip() else np.zeros(0, np.int64)

    def _bits(self) -> Iterator[np.ndarray]:
        for text in self._text():
            digits = text.translate(None, _WHITESPACE)
            odd = digits.translate(None, b"01")
            if odd:
                raise ValueError(f"{odd[:12]!r} is no sample of a plain PBM")
            # A one is black.
            yield 1 - (np.frombuffer(digits, np.uint8) - 48).astype(np.int64)

    def _raw(self, maximum: int, bands: int) -> Iterator[np.ndarray]:
        size = 1 if maximum < 256 else 2
        for piece in self._pieces():
            whole = np.frombuffer(piece[: len(piece) // size * size], np.uint8 if size == 1 else ">u2").astype(np.int64)
            yield np.minimum(whole, maximum)
