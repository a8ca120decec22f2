"""One image in, its row and those of its copies out.

The copies (and the original, where it was shrunk) are PNG files in a folder of their own, which is written aside and
renamed: it exists whole or not at all.
"""

import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Protocol

import numpy as np
from PIL import Image

from pseudo_labels import addresses
from pseudo_labels.copies.shrink import shrink, shrunk_size
from pseudo_labels.duplicates import fingerprint
from pseudo_labels.files import sha256_bytes, staged_folder
from pseudo_labels.images import ImageError, decode, read_bytes
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef, Status, id_of

IMAGES = "images"
_ORIGINAL = "reference"
_LONGEST_NAME = 60  # characters: file systems allow 255 bytes
# PNG level 1 takes a third of the time of the usual level 6, for files a tenth larger.
_PNG_LEVEL = 1


class Copy(Protocol):
    """How one copy is made; travels to worker processes."""

    @property
    def file_name(self) -> str:
        """Of the PNG file; no two copies of one image share it."""
        ...

    def make(self, rgb: np.ndarray, image_id: str) -> np.ndarray:
        """The copy of an image, uint8 HxWx3 both."""
        ...

    def describe(self, row: ImageRef, original_id: str) -> ImageRef:
        """The row of the copy with what it is to its original."""
        ...


Task = tuple[ImageRef, Sequence[Copy]]


@dataclass(frozen=True)
class Maker:
    """Where the originals are and the copies go; travels to worker processes.

    Attributes:
        pool: where the originals are.
        out: folder of the pool of copies.
        max_side: originals are shrunk to it first, see ``shrunk_size``.
    """

    pool: Pool
    out: Path
    max_side: int | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker opens the pool for itself; its table is not sent.
        return _reopen, (self.pool.folder, self.out, self.max_side)

    def make(self, task: Task) -> list[ImageRef]:
        """Rows of an image and its copies; the files are there afterwards, made now or by an earlier run.

        Raises:
            StorageFullError: the disk is full.
        """
        ref, copies = task
        found = self._found(ref, copies)
        if found is not None:
            return found
        try:
            original = shrink(self.pool.load(ref), self.max_side)
        except ImageError as error:
            return self._bad(ref, copies, error)
        return self._made(ref, copies, original)

    def _found(self, ref: ImageRef, copies: Sequence[Copy]) -> list[ImageRef] | None:
        """Rows from the files of an earlier run; None if they are not all there and readable."""
        folder = self.out / IMAGES / ref.id
        if not folder.is_dir():
            return None
        try:
            encoded = [(name, read_bytes(folder / name)) for name in self._files(ref, copies)]
            rows = [_row(data, decode(data), _uri(ref, name)) for name, data in encoded]
        except ImageError:
            return None
        return self._linked(ref, copies, rows)

    def _made(self, ref: ImageRef, copies: Sequence[Copy], original: np.ndarray) -> list[ImageRef]:
        rows = []
        with staged_folder(self.out / IMAGES / ref.id) as staged:
            for name, copy in self._files(ref, copies).items():
                rgb = original if copy is None else copy.make(original, ref.id)
                data = _png(rgb)
                (staged / name).write_bytes(data)
                rows.append(_row(data, rgb, _uri(ref, name)))
        return self._linked(ref, copies, rows)

    def _files(self, ref: ImageRef, copies: Sequence[Copy]) -> dict[str, Copy | None]:
        """What each file holds; None is the original."""
        named = {copy.file_name: copy for copy in copies}
        return {_original_name(ref, named): None, **named} if self._is_shrunk(ref) else {**named}

    def _is_shrunk(self, ref: ImageRef) -> bool:
        return shrunk_size(ref.width, ref.height, self.max_side) != (ref.width, ref.height)

    def _linked(self, ref: ImageRef, copies: Sequence[Copy], rows: list[ImageRef]) -> list[ImageRef]:
        """Bare rows of files, given their group and what they are to their original."""
        original, bare = (rows[0], rows[1:]) if self._is_shrunk(ref) else (self._moved(ref), rows)
        linked = [
            copy.describe(replace(row, group=ref.group), original.id) for row, copy in zip(bare, copies, strict=True)
        ]
        return [replace(original, group=ref.group), *linked]

    def _bad(self, ref: ImageRef, copies: Sequence[Copy], error: ImageError) -> list[ImageRef]:
        reason = f"not made, its reference is {error.status.value}: {error.reason}"
        rows = [replace(self._moved(ref), status=error.status, reason=error.reason)]
        for copy in copies:
            uri = _uri(ref, copy.file_name)
            bare = ImageRef(id_of(sha256_bytes(uri.encode())), uri, status=Status.NO_REFERENCE, reason=reason)
            rows.append(copy.describe(replace(bare, group=ref.group), ref.id))
        return rows

    def _moved(self, ref: ImageRef) -> ImageRef:
        """The original's row with an address that holds in any folder."""
        path = addresses.local_path(ref.uri, self.pool.folder)
        return ref if path is None else replace(ref, uri=addresses.of_path(path))


def _reopen(folder: Path, out: Path, max_side: int | None) -> Maker:
    return Maker(Pool.open(folder), out, max_side)


def _original_name(ref: ImageRef, taken: Collection[str]) -> str:
    """Like the file that the original came from, so that a person knows it again."""
    stem = PurePath(addresses.name_of(ref.uri)).stem
    plain = re.sub(r"[^\w.-]+", "_", stem).strip("._")[:_LONGEST_NAME]
    name = f"{plain or _ORIGINAL}.png"
    return f"{_ORIGINAL}.png" if name in taken else name


def _uri(ref: ImageRef, file_name: str) -> str:
    return f"{IMAGES}/{ref.id}/{file_name}"


def _row(data: bytes, rgb: np.ndarray, uri: str) -> ImageRef:
    digest = sha256_bytes(data)
    return ImageRef(
        id=id_of(digest),
        uri=uri,
        sha256=digest,
        dhash=fingerprint(rgb).dhash,
        bytes=len(data),
        width=rgb.shape[1],
        height=rgb.shape[0],
    )


def _png(rgb: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, "PNG", compress_level=_PNG_LEVEL)
    return data.getvalue()
