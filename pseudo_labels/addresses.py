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
from typing import Any

from pseudo_labels import remote
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import local_path as local_path
from pseudo_labels.files import name_of as name_of
from pseudo_labels.files import utf8_path
from pseudo_labels.images import ImageError, read_bytes, refuse_large
from pseudo_labels.records import Status
from pseudo_labels.remote import Address
from pseudo_labels.rows import read_dataset, read_parquet, translated_errors
from pseudo_labels.tars import of_member as of_member
from pseudo_labels.tars import place_of, read_member, whole_member


def of_path(path: str | os.PathLike[str]) -> str:
    """Address of a local file: absolute, with its links kept."""
    return utf8_path(os.path.abspath(os.fspath(path)))


def of_row(scheme: str, table: str, row: int) -> str:
    """Address of a row; ``scheme`` is ``parquet`` or ``dataset``."""
    return f"{scheme}://{table}#{row}"


def read(address: str, base: Path | None = None) -> bytes:
    """The encoded image at ``address``. Thread-safe.

    Args:
        address: see the module.
        base: folder or address that relative addresses start from.

    Raises:
        ImageError: MISSING, UNREADABLE, EMPTY or TOO_LARGE.
    """
    path = local_path(address, base)
    if path is not None:
        return read_bytes(path)
    address = absolute(address, base)
    scheme, _, rest = address.partition("://")
    if scheme == "tar":
        data = _read_member(address)
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


def absolute(address: str, base: Path | None) -> str:
    """An address, from the folder with an address that it starts from."""
    return f"{base}/{address}" if isinstance(base, Address) and "://" not in address else address


def is_remote(address: str, base: Path | None = None) -> bool:
    """Whether reading it asks another machine."""
    scheme, _, rest = absolute(address, base).partition("://")
    if local_path(address, base) is not None or scheme == "dataset":
        return False
    if scheme in ("tar", "parquet"):
        return local_path(place_of(address)[0] if scheme == "tar" else rest.rpartition("#")[0]) is None
    return True


def _read_member(address: str) -> bytes:
    archive, offset, size = place_of(address)
    if local_path(archive) is not None:
        return read_member(address)
    refuse_large(size)
    return whole_member(_read_remote(archive, offset, offset + size), size)


def _read_remote(address: str, start: int | None = None, end: int | None = None) -> bytes:
    def cat(system: Any, name: str) -> bytes:
        if start is None:
            refuse_large(system.size(name) or 0)
        return bytes(system.cat_file(name, start=start, end=end))

    with translated_errors():
        try:
            return remote.retried(address, cat)
        except ImageError:
            raise
        except PocketiqaError as error:
            raise ImageError(Status.UNREADABLE, str(error)) from error
