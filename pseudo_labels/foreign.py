"""Files that are no image for us, recognised by their first bytes: what they are, and what to do. Nothing is decoded.

Signatures: the specifications of the formats, and for camera raw the makers' first bytes as the magic files of ``file``
and ExifTool's documentation list them. Raw files that begin as any TIFF does are left to the reader of TIFF.
"""

import re

SIGNATURE_BYTES = 512
"""So many first bytes are enough."""

HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1", b"avci"}
)
"""Brands of HEIF (ISO/IEC 23008-12): single images, collections and sequences."""

_DEVELOP = "camera raw ({0}): develop it and save it as JPEG, PNG or TIFF"
_SAVE = "{0}, which is not accepted: save it as JPEG or PNG"
_UNPACK = "an archive ({0}): unpack it"

# Beginning of the file, what it is, what to say. The longer of two that begin alike stands first.
_SIGNATURES = (
    (b"version https://git-lfs.github.com/spec/", "", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", _SAVE),
    (b"\xff\x0a", "JPEG XL", _SAVE),
    (b"II*\0\x10\0\0\0CR", "Canon CR2", _DEVELOP),
    (b"II\x1a\0\0\0HEAPCCDR", "Canon CRW", _DEVELOP),
    (b"FUJIFILMCCD-RAW", "Fujifilm RAF", _DEVELOP),
    (b"IIRO", "Olympus ORF", _DEVELOP),
    (b"IIRS", "Olympus ORF", _DEVELOP),
    (b"MMOR", "Olympus ORF", _DEVELOP),
    (b"IIU\0", "Panasonic RW2", _DEVELOP),
    (b"FOVb", "Sigma X3F", _DEVELOP),
    (b"\0MRM", "Minolta MRW", _DEVELOP),
    (b"8BPS", "a Photoshop file", _SAVE),
    (b"gimp xcf", "a GIMP file", _SAVE),
    (b"v/1\x01", "OpenEXR", _SAVE),
    (b"#?RADIANCE", "Radiance HDR", _SAVE),
    (b"#?RGBE", "Radiance HDR", _SAVE),
    (b"II\xbc", "JPEG XR", _SAVE),
    (b"\xff\xd8\xff\xf7", "JPEG-LS", _SAVE),
    (b"BPG\xfb", "BPG", _SAVE),
    (b"qoif", "QOI", _SAVE),
    (b"DDS ", "DDS", _SAVE),
    (b"P7\n", "PAM", _SAVE),
    (b"PF\n", "PFM", _SAVE),
    (b"Pf\n", "PFM", _SAVE),
    (b"%PDF", "PDF", _SAVE),
    (b"%!PS", "PostScript", _SAVE),
    (b"\0\x05\x16\x07", "", "AppleDouble, which macOS puts beside a file: it holds no picture"),
    (b"PK\x03\x04", "zip, or an Office document", _UNPACK),
    (b"\x1f\x8b", "gzip", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "7z", _UNPACK),
    (b"Rar!\x1a\x07", "rar", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "zstd", _UNPACK),
    (b"\xfd7zXZ\0", "xz", _UNPACK),
    (b"PAR1", "", "a Parquet file: read it with `pocketiqa pool`, under a name that ends in .parquet"),
)
# Major brands of ISO media files (ISO/IEC 14496-12) that are no still image.
_ISO_NAMES = {b"crx ": ("Canon CR3", _DEVELOP), b"jxl ": ("JPEG XL", _SAVE)}
_VIDEO_BRANDS = frozenset({b"qt  ", b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"M4V ", b"avc1"})


def is_tar(data: bytes) -> bool:
    """Whether a file begins with the header of a tar (POSIX and GNU)."""
    return data[257:262] == b"ustar"


def foreign_format(data: bytes) -> str:
    """What a file is that is not read here, and the next step; empty if its first bytes say nothing.

    Args:
        data: the file, or its first ``SIGNATURE_BYTES``.
    """
    for begin, name, text in _SIGNATURES:
        if data.startswith(begin):
            return text.format(name)
    if is_tar(data):
        return "a tar: unpack it, or read it with `pocketiqa pool`"
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand in _ISO_NAMES:
        name, text = _ISO_NAMES[brand]
        return text.format(name)
    if brand in _VIDEO_BRANDS:
        return "a video (MP4 or QuickTime): save a frame of it as JPEG or PNG"
    if re.match(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html)", data[:SIGNATURE_BYTES], re.IGNORECASE):
        return "a web page (HTML), which servers send when a picture is not to be had: download it again"
    if re.match(rb"(?:\xef\xbb\xbf)?\s*<(?:\?xml|svg|!doctype svg)", data[:SIGNATURE_BYTES], re.IGNORECASE):
        return "a drawing or document (SVG or other XML): save it as PNG"
    return ""
