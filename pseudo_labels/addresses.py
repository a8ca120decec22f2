"""Addresses: one line of text from which an image's bytes can be read again, at random and in any process.

    /abs/photo.jpg                                  a local file
    file://%2Fabs%2F%E9t%E9.jpg                     a local file whose name is not UTF-8: its bytes, percent-encoded
    images/0123.png                                 relative to a given folder (a pool's own images)
    tar://dir/a.jpg?offset=1536&size=2048::ARCHIVE  a member of an uncompressed tar (its name percent-encoded)
    parquet://FILE#12                               row 12 of a Parquet file with image bytes
    dataset://FOLDER#12                             row 12 of a Hugging Face dataset saved to disk
    memory://..., s3://..., gs://...                a file on any other file system that fsspec knows

ARCHIVE, FILE and FOLDER are addresses of files themselves (FOLDER a local one). Every address is valid UTF-8.
"""

import os
from pathlib import Path
from urllib.parse import parse_qs, quote_from_bytes

from fsspec.core import url_to_fs

from pseudo_labels.files import local_path as local_path
from pseudo_labels.files import name_of as name_of
from pseudo_labels.files import utf8_path
from pseudo_labels.images import ImageError, open_regular, read_bytes, refuse_large
from pseudo_labels.records import Status
from pseudo_labels.rows import read_dataset, read_parquet, translated_errors


def of_path(path: str | os.PathLike[str]) -> str:
    """Address of a local file: absolute, with its links kept."""
    return utf8_path(os.path.abspath(os.fspath(path)))


def of_member(archive: str, name: str, offset: int, size: int) -> str:
    """Address of the bytes of a tar member; ``name`` as ``tarfile`` gives it, with escaped surrogates."""
    quoted = quote_from_bytes(name.encode("utf-8", "surrogateescape"))
    return f"tar://{quoted}?offset={offset}&size={size}::{archive}"


def of_row(scheme: str, table: str, row: int) -> str:
    """Address of a row; ``scheme`` is ``parquet`` or ``dataset``."""
    return f"{scheme}://{table}#{row}"


def read(address: str, base: Path | None = None) -> bytes:
    """The encoded image at ``address``. Thread-safe.

    Args:
        address: see the module.
        base: folder that relative addresses start from.

    Raises:
        ImageError: MISSING, UNREADABLE, EMPTY or TOO_LARGE.
    """
    path = local_path(address, base)
    if path is not None:
        return read_bytes(path)
    scheme, _, rest = address.partition("://")
    if scheme == "tar":
        data = _read_member(rest)
    elif scheme == "parquet":
        table, _, row = rest.rpartition("#")
        data = read_parquet(local_path(table) or table, int(row))
    elif scheme == "dataset":
        table, _, row = rest.rpartition("#")
        data = read_dataset(local_path(table) or Path(table), int(row))
    else:
        data = _read_remote(address)
    if not data:
        raise ImageError(Status.EMPTY, "the image has zero bytes")
    refuse_large(len(data))
    return data


def _read_member(rest: str) -> bytes:
    member, _, archive = rest.partition("::")
    fields = parse_qs(member.rpartition("?")[2])
    offset, size = int(fields["offset"][0]), int(fields["size"][0])
    refuse_large(size)
    path = local_path(archive)
    if path is None:
        data = _read_remote(archive, offset, offset + size)
    else:
        with open_regular(path) as file:
            file.seek(offset)
            data = file.read(size)
    if len(data) < size:
        raise ImageError(Status.UNREADABLE, "the archive ends before this member does")
    return data


def _read_remote(address: str, start: int | None = None, end: int | None = None) -> bytes:
    with translated_errors():
        system, name = url_to_fs(address)
        if start is None:
            refuse_large(system.size(name) or 0)
        return bytes(system.cat_file(name, start=start, end=end))
