"""Pools of originals and their copies.

    OUT/images/<id of the original>/<name of its file>.png    only where it was shrunk
    OUT/images/<id of the original>/<copy>.png

The folder of one original exists whole or not at all (see ``maker``); it is the unit of resuming.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pseudo_labels.copies.maker import IMAGES, Maker, Task
from pseudo_labels.copies.parallel import in_order
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.locks import exclusive
from pseudo_labels.pool import Pool, write_pool
from pseudo_labels.records import ImageRef, Status

Progress = Callable[[int, int], None]

_LOCK = ".lock"


def originals_of(pool: Pool) -> list[ImageRef]:
    """The rows that copies can be made of: good, and not damaged already.

    Raises:
        PocketiqaError: there is none.
    """
    originals = [ref for ref in pool.ok() if not ref.ref_id]
    if not originals:
        raise PocketiqaError(f"the pool {pool.folder} holds no clean image: give one that `pocketiqa pool` made")
    return originals


def write_copies(
    maker: Maker,
    tasks: Sequence[Task],
    *,
    spec: dict[str, Any],
    workers: int,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Pool:
    """Make the copies of each original, and a pool of both; an interrupted run goes on where it was.

    A copy with the bytes of an earlier row is a ``duplicate``; an original that can no longer be read gives rows that
    say so.

    Args:
        maker: where from and where to.
        tasks: originals with their copies.
        spec: see ``pool.write_pool``.
        workers: processes. They are started afresh, so a script needs the usual ``if __name__ == "__main__"``.
        overwrite: replace an earlier pool that was made differently.
        progress: called with copies done and in total.

    Raises:
        OutputConflictError: the folder holds something else, or is being written by another process.
        StorageFullError: the disk is full; what was made before is kept.
    """
    rows = _mark_duplicates(_make_all(maker, tasks, workers, progress))
    notes = {"clean_pool": str(maker.pool.folder)}
    return write_pool(maker.out, rows, spec=spec, notes=notes, overwrite=overwrite)


def check_whole_numbers(least: Mapping[str, int], **values: Any) -> None:
    """Refuse values that are no whole numbers, or below ``least`` of their name.

    Raises:
        PocketiqaError: names the first such value.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least[name]:
            raise PocketiqaError(f"{name} is {value!r}, but must be a whole number of at least {least[name]}")


def _make_all(maker: Maker, tasks: Sequence[Task], workers: int, progress: Progress | None) -> Iterator[ImageRef]:
    total, done = sum(len(copies) for _, copies in tasks), 0
    with exclusive(maker.out / _LOCK, what=f"the synthetic pool {maker.out}"):
        # Of writers that were killed: with the lock in hand nobody is writing them.
        for leftover in (maker.out / IMAGES).glob(".*.staged"):
            shutil.rmtree(leftover, ignore_errors=True)
        for (_, copies), rows in zip(tasks, in_order(maker.make, tasks, workers), strict=True):
            yield from rows
            done += len(copies)
            if progress:
                progress(done, total)


def _mark_duplicates(rows: Iterable[ImageRef]) -> Iterator[ImageRef]:
    """A distortion may change nothing (saturation of a gray picture): such a copy has an id that is taken."""
    first: dict[str, str] = {}
    for row in rows:
        earlier = first.setdefault(row.sha256, row.uri) if row.status == Status.OK else row.uri
        if earlier == row.uri:
            yield row
        else:
            yield replace(row, status=Status.DUPLICATE, reason=f"the same bytes as {earlier}")
