"""Images in uncompressed tars (WebDataset): where each one's bytes are, and these bytes. Standard library and Pillow.

A member of a local tar is read without unpacking; ``sources`` lists remote ones by the same functions.
"""

import errno
import os
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple
from urllib.parse import parse_qs, quote_from_bytes

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import local_path
from pseudo_labels.folders import PassedOver, is_image_name, leftover_on_the_way
from pseudo_labels.foreign import SIGNATURE_BYTES, foreign_format, is_tar
from pseudo_labels.images import open_regular, refuse_large
from pseudo_labels.records import ImageError, Status

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
"""Endings of compressed tars, which have no random access."""
_ZEROS_AT_ONCE = 1 << 20


class TarImage(NamedTuple):
    """An image of a tar that was listed but not opened, or what is wrong with the archive.

    Attributes:
        address: see ``addresses``; of the archive itself where its rest is lost.
        problem: status and reason, if listing has already shown that it cannot be read.
    """

    address: str
    problem: tuple[Status, str] | None = None


def of_member(archive: str, name: str, offset: int, size: int) -> str:
    """Address of the bytes of a tar member; ``name`` as ``tarfile`` gives it, with escaped surrogates."""
    quoted = quote_from_bytes(name.encode("utf-8", "surrogateescape"))
    return f"tar://{quoted}?offset={offset}&size={size}::{archive}"


def place_of(address: str) -> tuple[str, int, int]:
    """Address of the archive, offset and size of a member.

    Raises:
        ImageError: MISSING, ``address`` is not as ``of_member`` makes them.
    """
    member, separator, archive = address.removeprefix("tar://").partition("::")
    fields = parse_qs(member.rpartition("?")[2])
    try:
        offset, size = int(fields["offset"][0]), int(fields["size"][0])
    except (KeyError, ValueError) as error:
        raise ImageError(Status.MISSING, "no address of a member of a tar: offset and size are needed") from error
    if not separator or offset < 0 or size < 0:
        raise ImageError(Status.MISSING, "no address of a member of a tar: offset, size and ::ARCHIVE are needed")
    return archive, offset, size


def read_member(address: str) -> bytes:
    """The bytes of a member of a local tar.

    Raises:
        ImageError: MISSING, UNREADABLE or TOO_LARGE.
    """
    archive, offset, size = place_of(address)
    refuse_large(size)
    path = local_path(archive)
    if path is None:
        raise ImageError(Status.MISSING, "the archive is no local file")
    with open_regular(path) as file:
        file.seek(offset)
        return whole_member(file.read(size), size)


def whole_member(data: bytes, size: int) -> bytes:
    """The bytes that were read, if none are missing.

    Raises:
        ImageError: UNREADABLE.
    """
    if len(data) < size:
        raise ImageError(Status.UNREADABLE, "the archive ends before this member does")
    return data


def list_tar(name: str, file: BinaryIO, passed: PassedOver) -> Iterator[TarImage]:
    """The images of a tar, also of those behind its end: ``cat one.tar two.tar`` leaves zero blocks between them.

    Args:
        name: address of the archive.
        file: its content, seekable.
        passed: counts the other members.

    Raises:
        PocketiqaError: it is no uncompressed tar.
    """
    start: int | None = 0
    while start is not None:
        archive, distortion = _opened_tar(name, file, start), ""
        try:
            while (member := archive.next()) is not None:
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  # else all would be kept
                if _is_wanted(member, name, passed):
                    yield _member(name, member)
        except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
            distortion = str(error) or type(error).__name__
        start = None if distortion else _behind_zeros(file, archive.offset)
        # A corrupt header ends the iteration silently; a sound archive ends with zeros, or just ends.
        if start == archive.offset:
            start, distortion = None, "a header that cannot be read"
        if distortion:
            reason = f"the archive is corrupt at byte {archive.offset} ({distortion}): members behind it are lost"
            yield TarImage(name, (Status.CORRUPT, reason))


def _opened_tar(name: str, file: BinaryIO, start: int) -> tarfile.TarFile:
    """The archive that begins at ``start``, before its first member is looked at, but for the first archive."""
    file.seek(start)
    try:
        return tarfile.TarFile(fileobj=file, encoding="utf-8", errors="surrogateescape")
    except tarfile.TarError as error:
        file.seek(0)
        begin = file.read(SIGNATURE_BYTES)
        foreign = "" if is_tar(begin) else foreign_format(begin)
        why = f", but {foreign}" if foreign else f" ({error}): decompress or replace it"
        raise PocketiqaError(f"{name!r} is no uncompressed tar{why}") from error


def _is_wanted(member: tarfile.TarInfo, archive: str, passed: PassedOver) -> bool:
    """Whether a member is an image by its name; others are counted."""
    rule, is_image = leftover_on_the_way(member.name), is_image_name(member.name)
    if rule and is_image:
        passed.left_out[rule] += 1
    if not rule and not is_image and member.isfile():
        passed.count(f"{archive}::{os.path.dirname(member.name)}", os.path.basename(member.name))
    return is_image and not rule


def _behind_zeros(file: BinaryIO, start: int) -> int | None:
    """Offset of the first block from ``start`` on that is not all zeros; None if there is none."""
    while True:
        start = _behind_hole(file, start)
        file.seek(start)
        block = file.read(_ZEROS_AT_ONCE)
        if rest := block.lstrip(b"\0"):
            return start + (len(block) - len(rest)) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        if not block:
            return None
        start += len(block)


def _behind_hole(file: BinaryIO, start: int) -> int:
    """Where the bytes of a sparse file go on, so that a hole of a terabyte costs nothing; else ``start``."""
    try:
        before = os.lseek(file.fileno(), 0, os.SEEK_CUR)
        further = os.lseek(file.fileno(), start, os.SEEK_DATA)
        # The buffer of ``file`` counts on where it left the descriptor.
        os.lseek(file.fileno(), before, os.SEEK_SET)
    except (OSError, ValueError, AttributeError) as error:  # no local file, or nothing but a hole up to its end
        behind_all = isinstance(error, OSError) and error.errno == errno.ENXIO
        return file.seek(0, os.SEEK_END) if behind_all else start
    # Blocks are counted from ``start``, which begins one.
    return start + (further - start) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE


def _member(archive: str, member: tarfile.TarInfo) -> TarImage:
    address = of_member(archive, member.name, member.offset_data, member.size)
    if member.isreg() and not member.issparse():
        return TarImage(address)
    reason = "not a plain file in the archive (link, folder or sparse file)"
    return TarImage(address, (Status.UNREADABLE, reason))
