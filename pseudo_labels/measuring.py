"""Images that were listed, read once: what each is, which have the bytes of an earlier one, which show one scene."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pseudo_labels import addresses
from pseudo_labels.duplicates import group_hashes
from pseudo_labels.files import sha256_bytes
from pseudo_labels.fingerprints import Fingerprint, fingerprint
from pseudo_labels.images import DecodeLimits, ImageError, decode
from pseudo_labels.parallel import Progress, in_order
from pseudo_labels.records import ID_DIGITS, ImageRef, Status, id_of
from pseudo_labels.ref_tables import ROWS_AT_ONCE, refs_of, table_of
from pseudo_labels.sources import Entry


class _Measured(NamedTuple):
    ref: ImageRef
    fingerprint: Fingerprint | None


class MeasuredRows(Collection[ImageRef]):
    """The rows of a pool, in order, made on demand as often as they are wanted.

    Args:
        table: the rows as measured, each for itself.
        first: int64 [n], the first row with the same bytes; itself of a bad image.
        leader: int64 [n], the first row of the same scene.
    """

    def __init__(self, table: pa.Table, first: np.ndarray, leader: np.ndarray):
        self._table, self._first, self._leader = table, first, leader
        self._ids = np.concatenate([
            np.empty(0, f"S{ID_DIGITS}"), *(np.array(ids.to_pylist(), f"S{ID_DIGITS}") for ids in table["id"].chunks)
        ])  # fmt: skip

    def __len__(self) -> int:
        return self._table.num_rows

    def __contains__(self, ref: object) -> bool:
        return any(own == ref for own in self)

    def __iter__(self) -> Iterator[ImageRef]:
        for row, ref in enumerate(refs_of(self._table)):
            changes = {"group": bytes(self._ids[self._leader[row]]).decode()}
            if (first := int(self._first[row])) != row:
                changes["reason"] = f"the same bytes as {self._table['uri'][first].as_py()}"
                changes["status"] = Status.DUPLICATE
            yield replace(ref, **changes)


def measure_all(
    entries: Sequence[Entry],
    limits: DecodeLimits,
    near_duplicate_distance: int,
    workers: int,
    progress: Progress | None = None,
) -> MeasuredRows:
    """One row for each entry, in order, whatever the number of threads.

    Good images with the bytes of an earlier one are ``duplicate`` rows. Each group is named by the id of its first
    image; a bad image is a group of its own.

    Args:
        entries: as listed.
        limits: images outside become bad rows.
        near_duplicate_distance: see ``duplicates.group_near_duplicates``.
        workers: threads that read and decode.
        progress: called with images done and in total.
    """
    blocks: list[pa.Table] = []
    hashes, telling = np.zeros(len(entries), np.uint64), np.zeros(len(entries), bool)
    digests, good = np.zeros(len(entries), "S32"), np.zeros(len(entries), bool)
    block: list[ImageRef] = []
    for row, (ref, print_) in enumerate(in_order(lambda entry: _measure(entry, limits), entries, workers)):
        block.append(ref)
        if print_ is not None:
            hashes[row], telling[row] = int(print_.dhash, 16), not print_.is_flat
        if ref.status == Status.OK:
            digests[row], good[row] = bytes.fromhex(ref.sha256), True
        if len(block) == ROWS_AT_ONCE or row + 1 == len(entries):
            blocks.append(table_of(block))
            block = []
        if progress:
            progress(row + 1, len(entries))
    leader = group_hashes(hashes, telling, near_duplicate_distance)
    return MeasuredRows(pa.concat_tables(blocks or [table_of([])]), _firsts(digests, good), leader)


def _firsts(digests: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Of each row the first with the same bytes, int64 [n]."""
    first, at = np.arange(len(digests)), np.flatnonzero(good)
    _, earliest, which = np.unique(digests[at], return_index=True, return_inverse=True)
    first[at] = at[earliest[which]]
    return first


def _measure(entry: Entry, limits: DecodeLimits) -> _Measured:
    """Read and decode one image; never raises for what a file holds."""
    bare = ImageRef(id=id_of(sha256_bytes(entry.address.encode())), uri=entry.address)
    try:
        if entry.problem:
            raise ImageError(*entry.problem)
        data = addresses.read(entry.address)
        digest = sha256_bytes(data)
        bare = replace(bare, id=id_of(digest), sha256=digest, bytes=len(data))
        notes: list[str] = []
        rgb = decode(data, limits, notes)
        bare = replace(bare, reason="; ".join(notes))
    except ImageError as error:
        return _Measured(replace(bare, status=error.status, reason=error.reason), None)
    print_ = fingerprint(rgb)
    return _Measured(replace(bare, dhash=print_.dhash, width=rgb.shape[1], height=rgb.shape[0]), print_)
