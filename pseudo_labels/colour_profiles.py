"""Declared colour -> sRGB, relative colorimetric: ICC profiles, and primaries with a curve that formats name otherwise.

Profiles that are a matrix and three curves (nearly all of cameras, phones and screens) are computed here, by tables of
fixed-point numbers: half the time of LittleCMS on 8-bit pixels, and equal to it to a level. So are gray curves. All
others (tables, CMYK, Lab) go through LittleCMS (``PIL.ImageCms``). A conversion that moves no level by more than one is
none: sRGB profiles, whoever wrote them, leave the pixels alone.

Sources: ICC.1:2022; IEC 61966-2-1; ITU-T H.273 (code points of PNG's cICP and AVIF's nclx); PNG, third edition, 11.3.2.
"""

import io
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from PIL import (
    BmpImagePlugin,
    Image,
    ImageCms,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
)

from pseudo_labels.limits import FileSlices

_MATRIX_TAGS = (b"rXYZ", b"gXYZ", b"bXYZ")
_CURVE_TAGS = (b"rTRC", b"gTRC", b"bTRC")
# A profile with one of these is not only a matrix: LittleCMS prefers the tables.
_TABLE_TAGS = {b"A2B0", b"A2B1", b"A2B2", b"D2B0", b"D2B1", b"D2B2", b"D2B3"}
_DEVICE_CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")
_MODES = {b"RGB ": "RGB", b"CMYK": "CMYK", b"GRAY": "L"}
_MOST_TAGS = 200
_MOST_BYTES = 8 << 20
_IDENTITY_LEVELS = 1.0
_BAND_PIXELS = 1 << 16
_D65, _D50_XYZ = (0.3127, 0.3290), (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

Xy = tuple[float, float]


class Primaries(NamedTuple):
    """An RGB space by chromaticities (CIE x, y) and the exponent of its curve; None is the curve of sRGB."""

    red: Xy
    green: Xy
    blue: Xy
    white: Xy = _D65
    gamma: float | None = None


SRGB = Primaries((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE_RGB = Primaries((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), gamma=563 / 256)
ROMM_RGB = Primaries((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), (0.3457, 0.3585), gamma=1.8)
_DCI_WHITE, _C_WHITE = (0.314, 0.351), (0.310, 0.316)
# H.273, table 2; 2 is "unspecified".
_CODED_PRIMARIES = {
    1: SRGB,
    2: SRGB,
    4: Primaries((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C_WHITE),
    5: Primaries((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: Primaries((0.63, 0.34), (0.31, 0.595), (0.155, 0.07)),
    7: Primaries((0.63, 0.34), (0.31, 0.595), (0.155, 0.07)),
    8: Primaries((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C_WHITE),
    9: Primaries((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _DCI_WHITE),
    12: Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: Primaries((0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
# H.273, table 3. The camera curve of BT.709 (1, 6, 14, 15) is shown by sRGB's, as viewers do.
_CODED_GAMMAS: dict[int, float | None] = {4: 2.2, 5: 2.8, 8: 1.0} | dict.fromkeys((1, 2, 6, 13, 14, 15))
_HIGH_DYNAMIC_RANGE = (16, 18)

Declared = bytes | Primaries
"""What a file says of its colour: an ICC profile, or primaries."""
Conversion = Callable[[Image.Image], np.ndarray]
"""From an image in the mode that the profile is of (RGB, L or CMYK) to uint8 HxWx3, C-contiguous and writable."""


class ProfileError(ValueError):
    """A profile that cannot be applied."""


class NoWhiteError(ValueError):
    """High dynamic range: no sample value is white."""


def coded_space(primaries: int, transfer: int) -> Primaries:
    """The space of two code points of H.273.

    Raises:
        NoWhiteError: the transfer is PQ or HLG.
        ProfileError: code points that nobody has defined, or that are not in use for photographs.
    """
    if transfer in _HIGH_DYNAMIC_RANGE:
        raise NoWhiteError("high dynamic range (PQ or HLG) has no white of 8 bits: save it in sRGB")
    if primaries not in _CODED_PRIMARIES or transfer not in _CODED_GAMMAS:
        raise ProfileError(f"unknown code points: primaries {primaries}, transfer {transfer}")
    return _CODED_PRIMARIES[primaries]._replace(gamma=_CODED_GAMMAS[transfer])


def space_of(declared: Declared) -> str:
    """The mode whose samples a declaration is about: "RGB", "L" or "CMYK".

    Raises:
        ProfileError: no ICC profile, or one of another colour space or class.
    """
    if isinstance(declared, Primaries):
        return "RGB"
    if len(declared) < 132 or declared[36:40] != b"acsp":
        raise ProfileError("it is no ICC profile")
    if len(declared) > _MOST_BYTES:
        raise ProfileError(f"it has {len(declared)} bytes, above the limit of {_MOST_BYTES}")
    if declared[12:16] not in _DEVICE_CLASSES:
        raise ProfileError(f"its class {declared[12:16]!r} is not that of a device or colour space")
    if declared[16:20] not in _MODES:
        raise ProfileError(f"its colour space {declared[16:20]!r} is not one of RGB, gray and CMYK")
    return _MODES[declared[16:20]]


def declared_by(image: Image.Image, data: bytes | FileSlices) -> Declared | None:
    """What a file says of its colour; None where it says nothing.

    Args:
        image: as Pillow opened it.
        data: the file; empty for an image that has none any more. JPEG 2000 and AVIF are looked at only in memory.

    Raises:
        NoWhiteError: high dynamic range.
        ProfileError: what it says cannot be understood.
    """
    if isinstance(image, PngImagePlugin.PngImageFile):
        return _declared_by_png(image, data)
    if profile := image.info.get("icc_profile"):
        return profile
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        return _declared_by_jpeg(image)
    if isinstance(image, Jpeg2KImagePlugin.Jpeg2KImageFile):
        return _declared_by_jpeg2000(data) if isinstance(data, bytes) else None
    if isinstance(image, BmpImagePlugin.BmpImageFile):
        return _declared_by_bmp(data)
    # AVIF's plugin is imported only when it is needed.
    return _declared_by_avif(data[: 1 << 16]) if image.format == "AVIF" else None


def _declared_by_jpeg(image: JpegImagePlugin.JpegImageFile) -> Declared | None:
    if image.icclist:  # behind the frame header, where Pillow does not join the parts
        parts = sorted(image.icclist)
        return b"".join(part[14:] for part in parts) if parts[0][13] == len(parts) else None
    if "icc_profile" in image.info:
        raise ProfileError("parts of it are missing")
    # Cameras set to Adobe RGB write no profile, but this mark of DCF 2.0 (Exif 3.0, interoperability index).
    return ADOBE_RGB if b"R03\0" in image.info.get("exif", b"") else None


def _declared_by_jpeg2000(data: bytes) -> Declared | None:
    """ISO/IEC 15444-1, I.5.3.3: a restricted profile, or an enumerated colour space."""
    at = data.find(b"colr", 0, max(0, data.find(b"\xff\x4f\xff\x51")))
    if at < 4:
        return None
    size, method = int.from_bytes(data[at - 4 : at], "big"), data[at + 4]
    if method == 2:
        return data[at + 7 : at - 4 + size]
    return ROMM_RGB if method == 1 and data[at + 7 : at + 11] == b"\0\0\0\x15" else None


def _declared_by_bmp(data: bytes | FileSlices) -> Declared | None:
    """A profile embedded in a header of version 5 (BITMAPV5HEADER); it lies behind the pixels."""
    if data[14:18] != b"\x7c\0\0\0" or data[70:74] != b"DEBM":
        return None
    offset, size = struct.unpack("<2I", data[126:134])
    # One byte above the limit is enough to be refused by its size.
    return data[14 + offset : 14 + offset + min(size, _MOST_BYTES + 1)]


def _declared_by_avif(data: bytes) -> Declared | None:
    at = data.find(b"colrnclx")
    return coded_space(*struct.unpack_from(">2H", data, at + 8)) if at >= 0 else None


_PNG_LENGTHS = {b"cICP": 4, b"iCCP": None, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}
# Ancillary, public, not registered, safe to copy: readers pass over it.
_NO_COLOUR_CHUNK = b"nOCo"
_CHECKSUM_PIECE = 1 << 20
# Files of sRGB state 1 / 2.2 and rounded primaries; libpng, too, makes no difference below a twentieth.
_SRGB_GAMA, _GAMA_TOLERANCE, _XY_TOLERANCE = 1 / 2.2, 0.05, 0.003


def _png_chunks(data: bytes | FileSlices) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the chunks before the pixels that state a colour."""
    at = 8
    while at + 12 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        if name in (b"IDAT", b"IEND"):
            return
        if name in _PNG_LENGTHS:
            yield name, at, at + 12 + length
        at += 12 + length


def png_patches(data: bytes | FileSlices) -> dict[int, bytes]:
    """What to write over the colour chunks that are broken, for which Pillow would refuse the whole file.

    They become chunks of a name that means nothing, with the checksum that this needs.

    Returns:
        New bytes by offset in the file.
    """
    patches: dict[int, bytes] = {}
    for name, start, end in _png_chunks(data):
        try:
            body = _png_body(data, name, start, end)
            is_broken = name == b"iCCP" and len(_inflated(body)) > PngImagePlugin.MAX_TEXT_CHUNK
        except ProfileError:
            is_broken = True
        if is_broken:
            checksum = zlib.crc32(_NO_COLOUR_CHUNK)
            for at in range(start + 8, end - 4, _CHECKSUM_PIECE):
                checksum = zlib.crc32(data[at : min(at + _CHECKSUM_PIECE, end - 4)], checksum)
            patches |= {start + 4: _NO_COLOUR_CHUNK, end - 4: checksum.to_bytes(4, "big")}
    return patches


def _png_body(data: bytes | FileSlices, name: bytes, start: int, end: int) -> bytes:
    if end - start > _MOST_BYTES:
        raise ProfileError(f"{name.decode()} has {end - start} bytes, above the limit of {_MOST_BYTES}")
    body = data[start + 8 : end - 4]
    if zlib.crc32(name + body) != int.from_bytes(data[end - 4 : end], "big"):
        raise ProfileError(f"the checksum of {name.decode()} is wrong")
    if len(body) != (_PNG_LENGTHS[name] or len(body)):
        raise ProfileError(f"{name.decode()} has {len(body)} bytes")
    return body


def _inflated(body: bytes) -> bytes:
    """The profile of an iCCP chunk."""
    name, _, compressed = body.partition(b"\0")
    if compressed[:1] != b"\0":
        raise ProfileError(f"{name[:20]!r} is not compressed as PNG demands")
    try:
        return zlib.decompressobj().decompress(compressed[1:], _MOST_BYTES)
    except zlib.error as error:
        raise ProfileError(f"{name[:20]!r} cannot be decompressed") from error


def _declared_by_png(image: Image.Image, data: bytes | FileSlices) -> Declared | None:
    """PNG, third edition, section 4.3: cICP before iCCP before sRGB before gAMA and cHRM."""
    chunks: dict[bytes, bytes] = {}
    for name, start, end in _png_chunks(data):
        chunks.setdefault(name, _png_body(data, name, start, end))
    if b"cICP" in chunks:
        primaries, transfer, _, is_full_range = chunks[b"cICP"]
        if not is_full_range:
            raise ProfileError("its range of levels is that of video")
        return coded_space(primaries, transfer)
    if profile := _inflated(chunks[b"iCCP"]) if b"iCCP" in chunks else image.info.get("icc_profile"):
        return profile
    if "srgb" in image.info or not image.info.keys() & {"gamma", "chromaticity"}:
        return None
    return _png_primaries(image.info.get("gamma"), image.info.get("chromaticity"))


def _png_primaries(gamma: float | None, chromaticity: tuple[float, ...] | None) -> Primaries:
    space = SRGB
    if chromaticity is not None:
        white, red, green, blue = zip(chromaticity[::2], chromaticity[1::2], strict=True)
        stated = Primaries(red, green, blue, white)
        if np.abs(np.array(stated[:4]) - np.array(SRGB[:4])).max() > _XY_TOLERANCE:
            space = stated
    if gamma is None or abs(gamma / _SRGB_GAMA - 1) < _GAMA_TOLERANCE:
        return space
    if not 0.2 <= gamma <= 2:
        raise ProfileError(f"gAMA is {gamma:g}")
    return space._replace(gamma=1 / gamma)


@lru_cache(maxsize=8)
def conversion(declared: Declared) -> Conversion | None:
    """How samples of ``space_of(declared)`` become sRGB; None where they are sRGB already, to a level.

    Raises:
        ProfileError: it cannot be applied.
    """
    mode = space_of(declared)
    with np.errstate(all="ignore"):  # what is not finite is refused below
        return _conversion(declared, mode)


def _conversion(declared: Declared, mode: str) -> Conversion | None:
    try:
        tables = _matrix_tables(declared) if mode == "RGB" else None
        if tables is not None:
            # The tables are made only if they are needed.
            return None if _is_identity(*tables) else _by_fixed_point(*tables)
        assert isinstance(declared, bytes)
        tags = _tags(declared)
        if mode == "L" and b"kTRC" in tags and not tags.keys() & _TABLE_TAGS:
            return _by_ramp(_linear_to_srgb(_curve(tags[b"kTRC"])))
        convert = _by_littlecms(declared, mode)
        probe = _probe(mode)
        off = np.abs(convert(probe).astype(int) - np.asarray(probe.convert("RGB"))).max()
    except ProfileError:
        raise
    except Exception as error:  # a broken profile makes struct, numpy and LittleCMS raise nearly anything
        raise ProfileError(f"it cannot be used ({str(error)[:80] or type(error).__name__})") from error
    return None if mode == "RGB" and off <= _IDENTITY_LEVELS else convert


@cache
def lab_conversion() -> Conversion:
    """CIE Lab (D50), as Pillow hands it over from a TIFF, to sRGB."""
    return _transform(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "LAB")


def _by_littlecms(profile: bytes, mode: str) -> Conversion:
    return _transform(ImageCms.ImageCmsProfile(io.BytesIO(profile)), mode)


def _transform(source: ImageCms.ImageCmsProfile, mode: str) -> Conversion:
    srgb = ImageCms.createProfile("sRGB")
    # Without its cache a transform may run in many threads, and is faster on photographs.
    flags = ImageCms.Flags.NOCACHE
    transform = ImageCms.buildTransform(source, srgb, mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC, flags=flags)

    def convert(image: Image.Image, out: np.ndarray) -> None:
        out[:] = transform.apply(image)

    return _in_bands(convert)


def _probe(mode: str) -> Image.Image:
    """A grid of colours."""
    levels = np.arange(0, 256, 51, dtype=np.uint8)
    colours = np.stack(np.meshgrid(*[levels] * len(mode), indexing="ij"), axis=-1)
    return Image.frombytes(mode, (colours.size // len(mode), 1), colours.tobytes())


def _by_ramp(encoded: np.ndarray) -> Conversion | None:
    """Gray by one curve: sRGB [256] in [0, 1] of the 256 levels."""
    ramp = np.rint(255 * encoded)
    if np.abs(255 * encoded - np.arange(256)).max() <= _IDENTITY_LEVELS:
        return None
    levels = np.repeat(ramp.astype(np.uint8)[:, None], 3, axis=1)
    return lambda image: levels[np.asarray(image.convert("L"))]


def _matrix_tables(declared: Declared) -> tuple[np.ndarray, np.ndarray] | None:
    """Linear light of the 256 levels of each channel [3, 256], and the matrix from there to linear sRGB [3, 3].

    None for a profile that is not, or not only, a matrix and curves.
    """
    if isinstance(declared, Primaries):
        unit = np.arange(256) / 255
        curve = _srgb_to_linear(unit) if declared.gamma is None else unit**declared.gamma
        return np.stack([curve] * 3), np.linalg.solve(_to_d50(SRGB), _to_d50(declared))
    tags = _tags(declared)
    if declared[20:24] != b"XYZ " or tags.keys() & _TABLE_TAGS or not {*_MATRIX_TAGS, *_CURVE_TAGS} <= tags.keys():
        return None
    colorants = np.array([struct.unpack_from(">3i", tags[tag], 8) for tag in _MATRIX_TAGS]).T / 65536
    return np.stack([_curve(tags[tag]) for tag in _CURVE_TAGS]), np.linalg.solve(_to_d50(SRGB), colorants)


def _to_d50(space: Primaries) -> np.ndarray:
    """Linear RGB to XYZ, adapted from the space's white to D50 by Bradford's method (ICC.1:2022, annex E)."""
    red, green, blue, white = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in space[:4])
    primaries = np.stack([red, green, blue], axis=1)
    to_xyz = primaries * np.linalg.solve(primaries, white)
    cones = (_BRADFORD @ np.array(_D50_XYZ)) / (_BRADFORD @ white)
    return np.linalg.solve(_BRADFORD, cones[:, None] * _BRADFORD) @ to_xyz


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    if count > _MOST_TAGS:
        raise ProfileError(f"it has {count} tags, above the limit of {_MOST_TAGS}")
    entries = (struct.unpack_from(">4s2I", profile, 132 + 12 * number) for number in range(count))
    return {name: profile[offset : offset + size] for name, offset, size in entries}


def _curve(tag: bytes) -> np.ndarray:
    """Linear light [256] of the levels of a channel: ICC.1:2022, 10.6 (sampled) and 10.18 (parametric)."""
    unit = np.arange(256) / 255
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return unit
        if count == 1:
            return unit ** (struct.unpack_from(">H", tag, 12)[0] / 256)
        samples = np.frombuffer(tag, ">u2", count, 12) / 65535
        return np.interp(unit, np.linspace(0, 1, count), samples)
    if tag[:4] != b"para":
        raise ProfileError(f"its curve is of the unknown type {tag[:4]!r}")
    (kind,) = struct.unpack_from(">H", tag, 8)
    if kind > 4:
        raise ProfileError(f"its parametric curve is of the unknown type {kind}")
    given = np.array(struct.unpack_from(f">{(1, 3, 4, 5, 7)[kind]}i", tag, 12)) / 65536
    return _parametric(unit, kind, *given.tolist())


def _parametric(unit: np.ndarray, kind: int, gamma: float, *rest: float) -> np.ndarray:
    a, b = rest[:2] if rest else (1.0, 0.0)
    # Types 1 and 2 add a constant everywhere, and begin at a root; 3 and 4 are a line below the bend d.
    offset = rest[2] if kind == 2 else rest[4] if kind == 4 else 0.0
    slope, bend = rest[2:4] if kind > 2 else (0.0, -b / a if kind else 0.0)
    line = slope * unit + (rest[5] if kind == 4 else offset)
    power = np.maximum(a * unit + b, 0) ** gamma + offset
    return np.clip(np.where(unit >= bend, power, line), 0, 1)


def _srgb_to_linear(encoded: np.ndarray) -> np.ndarray:
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _linear_to_srgb(linear: np.ndarray) -> np.ndarray:
    clipped = np.clip(linear, 0, 1)
    return np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)


def _is_identity(curves: np.ndarray, matrix: np.ndarray) -> bool:
    if not (np.isfinite(matrix).all() and np.isfinite(curves).all()):
        raise ProfileError("its numbers are not finite")
    grays = np.arange(256)[:, None].repeat(3, axis=1)
    levels = np.concatenate([grays, np.asarray(_probe("RGB")).reshape(-1, 3)])
    linear = np.stack([curves[channel][levels[:, channel]] for channel in range(3)], axis=1)
    off = 255 * _linear_to_srgb(linear @ matrix.T) - levels
    return bool(np.abs(off).max() <= _IDENTITY_LEVELS)


def _by_fixed_point(curves: np.ndarray, matrix: np.ndarray) -> Conversion:
    """The conversion of ``_matrix_tables``, in whole numbers."""
    lowest, highest = min(0.0, np.minimum(matrix, 0).sum(axis=1).min()), np.maximum(matrix, 0).sum(axis=1).max()
    # Four units are left for the rounding of three terms.
    scale = (65535 - 4) / max(highest - lowest, 1e-9)
    if not 4096 <= scale <= 65535 * 4:
        raise ProfileError("its primaries are no colours")
    zero = math.ceil(-lowest * scale) + 2
    # What each level of each channel (second axis) adds to each channel of linear sRGB: sums lie in [0, 65535].
    terms = np.rint(matrix[:, :, None] * curves * scale).astype(np.int64)
    terms[:, 0] += zero
    encode = np.rint(255 * _linear_to_srgb((np.arange(65536) - zero) / scale)).astype(np.uint8)
    # Both fractions move no level by more than a third, where the curve is steepest.
    reaches_red_green = np.abs(matrix[:2, 2]).max() > 3e-5
    step = math.ceil(np.abs(matrix[2, :2]).sum() * scale / 1023) or 1
    if reaches_red_green or step > 2e-4 * scale:
        return _by_sums(terms, encode)
    return _by_pairs(terms, encode, step)


def _by_sums(terms: np.ndarray, encode: np.ndarray) -> Conversion:
    """Any matrix: three sums at once, in numbers of 64 bits that hold three of 16."""
    red, green, blue = (terms << np.array([0, 16, 32])[:, None, None]).sum(axis=0)

    def convert(image: Image.Image, out: np.ndarray) -> None:
        rgb = np.asarray(image)
        sums = red.take(rgb[..., 0])
        sums += green.take(rgb[..., 1])
        sums += blue.take(rgb[..., 2])
        for channel in range(3):
            out[..., channel] = encode.take(sums & 0xFFFF)
            sums >>= 16

    return _in_bands(convert)


def _by_pairs(terms: np.ndarray, encode: np.ndarray, step: int) -> Conversion:
    """Where the blue primary is that of sRGB (Display P3, Adobe RGB), blue adds nothing to red and green.

    Then red and green are looked up as one number of 16 bits, which takes half the time. ``step`` is the unit, in units
    of ``terms``, of what they add to blue; it has 10 bits.
    """
    red_green = terms[:, 0][:, None, :] + terms[:, 1][:, :, None]  # [sRGB channel, green, red]
    least = int(red_green[2].min())
    to_blue = (red_green[2] - least + step // 2) // step
    # Two final levels and, above them, ten bits of what goes to blue.
    pairs = (
        encode[red_green[0]] | encode[red_green[1]].astype(np.uint32) << 8 | to_blue.astype(np.uint32) << 16
    ).ravel()
    blue = encode[np.clip(least + step * np.arange(1024)[:, None] + terms[2, 2], 0, 65535)].ravel()

    def convert(image: Image.Image, out: np.ndarray) -> None:
        flat, flat_out = np.asarray(image).reshape(-1), out.reshape(-1)
        in_pairs, out_pairs = (np.ndarray((len(flat) // 3,), "<u2", array.data, 0, (3,)) for array in (flat, flat_out))
        looked_up = pairs.take(in_pairs, mode="clip")
        out_pairs[:] = looked_up
        looked_up >>= 8
        looked_up &= 0x3FF00
        looked_up |= flat[2::3]
        flat_out[2::3] = blue.take(looked_up, mode="clip")

    return _in_bands(convert)


def _in_bands(convert: Callable[[Image.Image, np.ndarray], None]) -> Conversion:
    """Some rows at a time: they stay in the processor's cache, and memory holds no second copy of the picture.

    ``convert`` takes the rows and the array, C-contiguous, that it writes to.
    """

    def whole(image: Image.Image) -> np.ndarray:
        width, height = image.size
        rows = max(1, _BAND_PIXELS // width)
        out = np.empty((height, width, 3), np.uint8)
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            convert(image.crop((0, top, width, bottom)), out[top:bottom])
        return out

    return whole
