"""Very many tiny pictures in one Parquet file, and a teacher that scores them at once: for ``tests.campaign.scale``.

Each picture is 72x64 pixels of 9x8 random grey levels, so its difference hash is as random as that of a photograph or
more; a PNG of it takes some 200 bytes. Of a hundred, two are near duplicates of the one before, one is a copy of it to
the byte, and of a thousand one is cut off. Or a row holds no picture but twelve bytes, among them its difference hash:
then nothing is decoded, and what is left is what a row costs (``nothing_decoded``).
"""

from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pseudo_labels import measuring, pool
from pseudo_labels.fingerprints import Fingerprint
from pseudo_labels.records import ImageError, Status

_COLUMNS, _ROWS, _SIDE = 9, 8, 8
_AT_ONCE = 4096  # rows of a row group: reading one row of a Parquet file costs its whole group
_HASH_BYTES, _BYTES = 8, 12


def brightness() -> Any:
    """Mean of some pixels: a function of numpy, no model."""
    from teachers.plain import plain_teacher  # torch, which other steps do without

    return plain_teacher(lambda rgb: float(rgb[:, ::_SIDE, 0].mean()), name="brightness", worst=0, best=255)


def write_pictures(path: Path, rows: int) -> None:
    """Write ``rows`` pictures as PNG files in the column ``image``."""
    _write(path, rows, _pictures)


def write_hashes(path: Path, rows: int) -> None:
    """Write ``rows`` rows for ``nothing_decoded``, with near duplicates, copies and bad ones as often as above."""
    _write(path, rows, _hashes)


def nothing_decoded(reader: Any = None) -> None:
    """From now on, this process takes rows of ``write_hashes`` for pictures of 8x8 pixels: reading them stays real.

    Args:
        reader: module that reads ahead for teachers, whose threads are not used either.
    """

    def decode(data: bytes, *_: Any) -> np.ndarray:
        if len(data) != _BYTES:
            raise ImageError(Status.CORRUPT, "cut off")
        return np.frombuffer(data, np.uint8, _HASH_BYTES)[:, None, None].repeat(_SIDE, 1).repeat(3, 2)

    def fingerprint(rgb: np.ndarray) -> Fingerprint:
        return Fingerprint(rgb[:, 0, 0].tobytes().hex(), False)

    def in_turn(function: Callable[[Any], Any], items: Iterable[Any], *_: Any, **__: Any) -> Iterator[Any]:
        # No thread decodes ahead where nothing is decoded: on a busy machine, it would be measured how long threads
        # wait for each other.
        return (function(item) for item in items)

    measuring.decode = pool.decode = decode
    measuring.fingerprint = fingerprint
    measuring.in_order = in_turn
    if reader is not None:
        reader.in_order = in_turn


def _write(path: Path, rows: int, make: Callable[[int, np.random.Generator], Iterator[bytes]]) -> None:
    partial, schema = path.with_suffix(".partial"), pa.schema([("image", pa.binary())])
    with pq.ParquetWriter(partial, schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, rows, _AT_ONCE):
            images = list(make(min(_AT_ONCE, rows - start), np.random.default_rng([0, start])))
            writer.write_table(pa.table({"image": images}, schema=schema), row_group_size=_AT_ONCE)
    partial.rename(path)


def _pictures(count: int, draw: np.random.Generator) -> Iterator[bytes]:
    grey = draw.integers(32, 224, (count, _ROWS, _COLUMNS), np.uint8)
    before = b""
    for index in range(count):
        if index % 50 == 1:
            grey[index] = grey[index - 1] + 2  # brighter: no bit of its hash differs
        encoded = before if index % 100 == 3 else _png(grey[index])
        yield encoded[: len(encoded) // 2] if index % 1000 == 5 else encoded
        before = encoded


def _hashes(count: int, draw: np.random.Generator) -> Iterator[bytes]:
    rows = draw.integers(0, 256, (count, _BYTES), np.uint8)
    for index in range(count):
        if index % 50 == 1:
            rows[index, :_HASH_BYTES] = rows[index - 1, :_HASH_BYTES] ^ np.eye(1, _HASH_BYTES, dtype=np.uint8)[0]
        if index % 100 == 3:
            rows[index] = rows[index - 1]
        yield rows[index, : 6 if index % 1000 == 5 else _BYTES].tobytes()


def _png(grey: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(grey.repeat(_SIDE, 0).repeat(_SIDE, 1)).save(file, "PNG", compress_level=1)
    return file.getvalue()
