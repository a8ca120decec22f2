"""Images kept in the rows of tables: Parquet files and Hugging Face datasets saved to disk.

The encoded bytes come from the column ``image`` or, failing that, from the only column that can hold them: binary (of
any length type, dictionary-encoded or not), or a struct with such a field ``bytes`` (how ``datasets.Image`` is stored).
A ``path`` without bytes is never followed. Lists of images, and images deeper in structs, are refused.
Random access costs a whole Parquet row group at a time: unpack a file with large row groups before shuffled reading.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.foreign import SIGNATURE_BYTES, foreign_format
from pseudo_labels.images import ImageError, open_regular
from pseudo_labels.records import Status

_CACHED_TABLES = 4
# Row groups of photographs may be large: the one in use and its neighbour are all that is held.
_CACHED_ROW_GROUPS = 2


class _Recent:
    """The last few results of ``load``, shared by all threads."""

    def __init__(self, load: Callable[..., Any], limit: int):
        self._load, self._limit = load, limit
        self._forget()
        # A forked child would inherit a lock that nobody there releases.
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._held: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, *key: Hashable) -> Any:
        # Loading is inside the lock: threads that walk a file in order want the same block at the same moment.
        with self._lock:
            if key not in self._held:
                self._held[key] = self._load(*key)
                while len(self._held) > self._limit:
                    self._held.popitem(last=False)
            self._held.move_to_end(key)
            return self._held[key]


class _ParquetTable:
    def __init__(self, where: Path | str):
        if isinstance(where, Path):
            _refuse_pointer(where)
        # A path goes in as bytes, so that any name works.
        self._file = pq.ParquetFile(pa.OSFile(os.fsencode(where)) if isinstance(where, Path) else open_remote(where))
        self._column = image_column(self._file.schema_arrow, str(where))
        metadata = self._file.metadata
        rows = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
        self._ends = np.cumsum(rows, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def locate(self, row: int) -> tuple[int, int]:
        """Row group and position in it."""
        group = int(np.searchsorted(self._ends, row, side="right"))
        return group, row - (int(self._ends[group - 1]) if group else 0)

    def row_group(self, index: int) -> pa.ChunkedArray:
        return self._file.read_row_group(index, columns=[self._column]).column(self._column)


def _refuse_pointer(path: Path) -> None:
    """A clone without Git LFS has small text files in the position of its Parquet files."""
    with open_regular(path) as file:
        begin = file.read(SIGNATURE_BYTES)
    foreign = "" if begin.startswith(b"PAR1") else foreign_format(begin)
    if foreign:
        raise ImageError(Status.UNREADABLE, f"it is {foreign}")


class _DatasetTable:
    def __init__(self, where: Path):
        from datasets import Dataset  # takes a second to import

        self._rows = Dataset.load_from_disk(str(where)).with_format("arrow")
        self._column = image_column(self._rows.data.schema, str(where))

    def __len__(self) -> int:
        return len(self._rows)

    def value(self, row: int) -> Any:
        # In the format "arrow" a slice is a table, which the annotations of `datasets` do not say.
        return cast(pa.Table, self._rows[row : row + 1]).column(self._column)[0].as_py()


def _parquet_row_group(where: Path | str, stamp: str, index: int) -> pa.ChunkedArray:
    return _parquet_table(where, stamp).row_group(index)


# The stamp is part of the key only: a file that changed is opened anew.
_parquet_table = _Recent(lambda where, stamp: _ParquetTable(where), _CACHED_TABLES)
_parquet_block = _Recent(_parquet_row_group, _CACHED_ROW_GROUPS)
_dataset_table = _Recent(lambda where, stamp: _DatasetTable(where), _CACHED_TABLES)


def stamp_of(path: Path | str) -> str:
    """Size and time of a local file, which change with it; empty for a remote one.

    Raises:
        ImageError: MISSING or UNREADABLE.
    """
    if not isinstance(path, Path):
        return ""
    with open_regular(path) as file:  # a pipe would block Arrow
        status = os.fstat(file.fileno())
    return f"{status.st_size}-{status.st_mtime_ns}"


def parquet_length(where: Path | str) -> int:
    """Number of rows.

    Raises:
        ImageError: MISSING or UNREADABLE.
        PocketiqaError: no column, or more than one, can hold images.
    """
    with translated_errors():
        return len(_parquet_table(where, stamp_of(where)))


def read_parquet(where: Path | str, row: int) -> bytes:
    """Encoded image of a row.

    Raises:
        ImageError: MISSING or UNREADABLE.
    """
    stamp = stamp_of(where)
    with translated_errors():
        table = _parquet_table(where, stamp)
        _check_row(row, len(table))
        group, position = table.locate(row)
        return _encoded(_parquet_block(where, stamp, group)[position].as_py())


def dataset_length(where: Path) -> int:
    """As ``parquet_length``, of one split of a dataset saved to disk."""
    with translated_errors():
        return len(_dataset_table(where, stamp_of(where / "state.json")))


def read_dataset(where: Path, row: int) -> bytes:
    """As ``read_parquet``, of one split of a dataset saved to disk."""
    stamp = stamp_of(where / "state.json")
    with translated_errors():
        table = _dataset_table(where, stamp)
        _check_row(row, len(table))
        return _encoded(table.value(row))


def image_column(schema: pa.Schema, where: str) -> str:
    """Name of the column with the encoded images.

    Raises:
        PocketiqaError: there is none, or the choice is not clear.
    """
    able = [field.name for field in schema if _holds_bytes(field.type)]
    if "image" in able:
        return "image"
    deeper = {field.name: way for field in schema if field.name not in able and (way := _way_to_bytes(field.type))}
    # A preview beside a column of lists, say, is not what was meant.
    if len(able) == 1 and not {"image", "images"} & set(deeper):
        return able[0]
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if deeper:
        column, way = next(iter(deeper.items()))
        remedy = (
            "write a table with one image a row"
            if "[]" in way
            else f"write a table with {column + way!r} as a column 'image' of its own"
        )
        raise PocketiqaError(
            f"{where} has its images deeper in the column {column!r} ({column}{way}), which is not read: {remedy}; its "
            f"columns are {columns}"
        )
    problem = (
        f"{len(able)} columns that can hold images ({', '.join(able)}): name the one to use 'image'"
        if able
        else "no column with image bytes: embed the images in a column 'image' (links and base64 text are not followed)"
    )
    raise PocketiqaError(f"{where} has {problem}; its columns are {columns}")


def _holds_bytes(kind: pa.DataType) -> bool:
    kind = _plain(kind)
    if pa.types.is_struct(kind):
        position = kind.get_field_index("bytes")
        return position >= 0 and _is_binary(kind.field(position).type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    # Not those of a fixed length, which are checksums.
    kind = _plain(kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values behind a dictionary or an extension."""
    if isinstance(kind, pa.DictionaryType):
        return _plain(kind.value_type)
    return _plain(kind.storage_type) if isinstance(kind, pa.BaseExtensionType) else kind


def _way_to_bytes(kind: pa.DataType) -> str:
    """From a column of lists and structs to image bytes in it, such as ``[].image``; empty if there are none."""
    kind = _plain(kind)
    if _is_list(kind):
        return f"[]{_way_to_bytes(kind.value_type)}" if _leads_to_bytes(kind.value_type) else ""
    if pa.types.is_struct(kind):
        fields = (kind.field(position) for position in range(kind.num_fields))
        return next((f".{own.name}{_way_to_bytes(own.type)}" for own in fields if _leads_to_bytes(own.type)), "")
    return ""


def _leads_to_bytes(kind: pa.DataType) -> bool:
    return _holds_bytes(kind) or bool(_way_to_bytes(kind))


def _is_list(kind: pa.DataType) -> TypeGuard[pa.ListType]:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view)
    return any(test(kind) for test in (*tests, pa.types.is_large_list_view))


def _encoded(value: Any) -> bytes:
    content = value.get("bytes") if isinstance(value, dict) else value
    if content is None:
        raise ImageError(Status.MISSING, "the row holds no image bytes")
    return content


def open_remote(address: str) -> BinaryIO:
    """A seekable reader of a remote file, closed with the object."""
    system, name = url_to_fs(address)
    return cast(BinaryIO, system.open(name, "rb"))


def _check_row(row: int, length: int) -> None:
    if row >= length:
        raise ImageError(Status.MISSING, f"no row {row}: the table has {length} rows")


@contextmanager
def translated_errors() -> Iterator[None]:
    """Errors of file systems and Arrow as ImageError; each has a family of its own, so any exception is taken.

    Raises:
        ImageError: MISSING or UNREADABLE.
    """
    try:
        yield
    except PocketiqaError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(Status.MISSING, "no such file") from error
    except Exception as error:
        raise ImageError(Status.UNREADABLE, f"cannot be read: {str(error)[:160]} ({type(error).__name__})") from error
