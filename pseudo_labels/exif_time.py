"""When a photograph was taken, as its camera wrote it into the file (EXIF 2.32, section 4.6.5)."""

import io
import re
from datetime import UTC, datetime
from os import PathLike
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

_EXIF_IFD = 0x8769
# DateTimeOriginal and DateTimeDigitized, each with the tag of its fractions of a second. DateTime is not among them:
# programs that edit a photograph change it.
_TAGS = ((0x9003, 0x9291), (0x9004, 0x9292))
_TIME = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)")
_FORMATS = ("JPEG", "TIFF", "PNG", "WEBP")
_LONGEST = 64


def taken_at(image: str | PathLike[str] | bytes) -> float | None:
    """Seconds since 1970 by the camera's own clock, without time zone; None where the file does not say it.

    Only differences between photographs of one camera mean something.

    Args:
        image: path or content of a file that could be decoded before.
    """
    try:
        with _opened(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
            tags = opened.getexif().get_ifd(_EXIF_IFD)
        for time, fraction in _TAGS:
            seconds = _seconds(tags.get(time), tags.get(fraction))
            if seconds is not None:
                return seconds
    except Exception:  # broken EXIF makes Pillow raise nearly anything, and is no fault of the photograph
        return None
    return None


def _opened(source: str | PathLike[str] | BinaryIO) -> Image.Image:
    try:
        return Image.open(source, formats=_FORMATS)
    except UnidentifiedImageError:
        # An extra: without it the photograph could not have been decoded.
        from pillow_heif import HeifImageFile

        return HeifImageFile(source)


def _seconds(time: object, fraction: object) -> float | None:
    match = _TIME.match(time.strip()[:_LONGEST]) if isinstance(time, str) else None
    if match is None:
        return None
    digits = re.match(r"\d{1,9}", fraction.strip()[:_LONGEST]) if isinstance(fraction, str) else None
    try:
        whole = datetime(*map(int, match.groups()), tzinfo=UTC).timestamp()  # type: ignore[arg-type]
    except ValueError:  # cameras without a clock write zeros, which are no date
        return None
    return whole + (float(f"0.{digits[0]}") if digits else 0.0)
