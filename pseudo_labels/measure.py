"""From listed images to rows: read and decode each once, then mark duplicates and name the groups."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from pseudo_labels import addresses
from pseudo_labels.duplicates import Fingerprint, fingerprint, group_near
from pseudo_labels.files import sha256_bytes
from pseudo_labels.images import DecodeLimits, ImageError, decode
from pseudo_labels.records import ImageRef, Status, id_of
from pseudo_labels.sources import Entry


class _Measured(NamedTuple):
    ref: ImageRef
    fingerprint: Fingerprint | None


def measure_all(
    entries: Sequence[Entry],
    limits: DecodeLimits,
    near_distance: int,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[ImageRef]:
    """One row for each entry, in order, whatever the number of threads.

    Args:
        entries: as listed.
        limits: images outside become bad rows.
        near_distance: see ``duplicates.group_near``.
        workers: threads that read and decode.
        progress: called with images done and in total.
    """
    measured: list[_Measured] = []
    for one in _in_order(lambda entry: _measure(entry, limits), entries, workers):
        measured.append(one)
        if progress:
            progress(len(measured), len(entries))
    return _grouped(_without_duplicates(measured), near_distance)


def _in_order(function: Callable[[Entry], _Measured], items: Iterable[Entry], workers: int) -> Iterator[_Measured]:
    """Results in the order of the items, with only a few in flight."""
    waiting: deque[Future[_Measured]] = deque()
    source = iter(items)
    with ThreadPoolExecutor(workers) as executor:
        try:
            waiting.extend(executor.submit(function, item) for item in islice(source, 4 * workers))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(executor.submit(function, item) for item in islice(source, 1))
        finally:
            for future in waiting:
                future.cancel()


def _measure(entry: Entry, limits: DecodeLimits) -> _Measured:
    """Read and decode one image; never raises for what a file holds."""
    bare = ImageRef(id=id_of(sha256_bytes(entry.address.encode())), uri=entry.address)
    try:
        if entry.problem:
            raise ImageError(*entry.problem)
        data = addresses.read(entry.address)
        digest = sha256_bytes(data)
        bare = replace(bare, id=id_of(digest), sha256=digest, bytes=len(data))
        rgb = decode(data, limits)
    except ImageError as error:
        return _Measured(replace(bare, status=error.status, reason=error.reason), None)
    found = fingerprint(rgb)
    return _Measured(replace(bare, dhash=found.dhash, width=rgb.shape[1], height=rgb.shape[0]), found)


def _without_duplicates(measured: Sequence[_Measured]) -> Iterator[_Measured]:
    """Good images with the bytes of an earlier one become ``duplicate`` rows."""
    first: dict[str, str] = {}
    for ref, found in measured:
        earlier = first.setdefault(ref.sha256, ref.uri) if ref.status == Status.OK else ref.uri
        if earlier == ref.uri:
            yield _Measured(ref, found)
        else:
            yield _Measured(replace(ref, status=Status.DUPLICATE, reason=f"the same bytes as {earlier}"), found)


def _grouped(measured: Iterator[_Measured], near_distance: int) -> list[ImageRef]:
    """Name each group by the id of its first image; a bad image is a group of its own."""
    rows = list(measured)
    first = group_near([found for _, found in rows], near_distance)
    return [replace(ref, group=rows[leader].ref.id) for (ref, _), leader in zip(rows, first.tolist(), strict=True)]
