"""Decoded and resized images of a pool on disk, so that training reads pixels instead of decoding them every epoch.

The cache of one pool and one preprocessing is a folder of shards, each written whole or not at all:
``shard-00003/pixels.bin`` holds the rows' pixels one after the other (uint8 RGB, ragged), ``index.json`` their sizes,
why some have none, and digests of both. Building it again builds only what is missing or corrupt. Reading uses plain
reads instead of memory maps: resident memory stays flat, and a truncated file is an error instead of a crash.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pseudo_labels import images, outputs
from pseudo_labels.errors import IntegrityError
from pseudo_labels.files import canonical_json, digest_of, parse_json, sha256_file, staged_folder
from pseudo_labels.images import ImageError
from pseudo_labels.parallel import Progress, in_order
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef, Status
from students.preprocess import Preprocess

KIND = "pixels"
PIXELS, INDEX = "pixels.bin", "index.json"
# A killed process loses the work on one shard, and a corrupt file costs as much. Another number makes another cache.
SHARD_ROWS = 256

Barrier = Callable[[], None]
Decoded = tuple[dict[str, Any], np.ndarray | None]


class PixelCache:
    """Pixels of a pool's rows, by position in the pool. Thread-safe.

    Attributes:
        sizes: int32 [rows, 2], height and width after the resize; 0 for rows without pixels.
        statuses: why each row without pixels has none, by row; rows that are bad in the pool are not listed.
    """

    def __init__(self, folder: Path, rows: int):
        self._folder = folder
        self.sizes = np.zeros((rows, 2), dtype=np.int32)
        self.statuses: dict[int, tuple[Status, str]] = {}
        # A shard of large images is longer than int32 can count.
        self._offsets = np.zeros(rows, dtype=np.int64)
        for shard in range(_shards(rows)):
            # Without reading the pixels: ``build_pixels`` has just compared their digests, each process those of its
            # shards.
            self._take(shard, _trusted_index(folder, shard, check_pixels=False))

    def _take(self, shard: int, index: dict[str, Any] | None) -> None:
        if index is None:
            raise IntegrityError(
                f"the pixel cache {self._folder} is incomplete (shard {shard}): train again to mend it"
            )
        first = shard * SHARD_ROWS
        offset = 0
        for row, entry in enumerate(index["rows"], start=first):
            self.sizes[row] = entry["size"]
            self._offsets[row] = offset
            offset += 3 * entry["size"][0] * entry["size"][1]
            if entry["status"] not in ("", Status.OK):
                self.statuses[row] = (Status(entry["status"]), entry["reason"])

    def read(self, row: int, top: int = 0, height: int | None = None) -> np.ndarray:
        """Rows ``top`` to ``top + height`` of an image, at their full width.

        Returns:
            uint8 [height, width, 3].

        Raises:
            IntegrityError: the file ends early.
        """
        whole, width = (int(side) for side in self.sizes[row])
        # A crop needs a band of whole lines: one read, of less than the image.
        height = whole - top if height is None else height
        path = self._folder / _name(row // SHARD_ROWS) / PIXELS
        pixels = np.empty((height, width, 3), dtype=np.uint8)
        # Opened for each read: threads have no common position in a file, and no descriptor stays open.
        with open(path, "rb", buffering=0) as file:
            file.seek(int(self._offsets[row]) + 3 * width * top)
            if file.readinto(pixels.data) != pixels.nbytes:
                raise IntegrityError(f"the pixel cache {path} ends early: train again to mend it")
        return pixels


def build_pixels(
    pool: Pool,
    preprocess: Preprocess,
    root: Path,
    *,
    rank: int = 0,
    world: int = 1,
    barrier: Barrier = lambda: None,
    workers: int | None = None,
    retry_failed: bool = True,
    progress: Progress | None = None,
) -> PixelCache:
    """Open the cache of ``pool`` under ``root``; build what is missing and rebuild what does not match its digest.

    Every process calls this; process ``rank`` checks and builds shards ``rank``, ``rank + world``, ... No two runs may
    build the same cache at the same time.

    Args:
        pool: its digest and ``preprocess`` name the cache.
        preprocess: the student's own resize.
        root: folder of all caches.
        rank: rank of this process.
        world: number of processes.
        barrier: returns when all processes have called it.
        workers: decoding threads; None for one a core.
        retry_failed: read images again that could not be read when the cache was built.
        progress: called with (rows, rows) done and in total, of this process.

    Raises:
        StorageFullError: the disk is full; finished shards stay.
    """
    spec = {"pool": pool.digest, "preprocess": preprocess.as_dict(), "rows": len(pool), "shard_rows": SHARD_ROWS}
    spec["decoder"] = images.VERSION
    # 16 digits tell a few caches apart; the manifest holds the whole spec, and ``claim`` refuses another one.
    folder = root / f"pixels-{digest_of(spec)[:16]}"
    # One process claims. The others wait: a shard in a folder without a manifest would be refused as foreign.
    if rank == 0:
        outputs.claim(folder, KIND, spec)
    barrier()
    mine = range(rank, _shards(len(pool)), world)
    total = sum(len(_rows(len(pool), shard)) for shard in mine)
    done = 0
    for shard in mine:
        index = _trusted_index(folder, shard, check_pixels=True)
        # A file that failed may be back, so its whole shard is decoded again; what is in order is not touched.
        if index is None or (retry_failed and index["failed"]):
            _build_shard(folder, shard, pool, preprocess, workers or os.cpu_count() or 1)
        done += len(_rows(len(pool), shard))
        if progress:
            progress(done, total)
    barrier()
    return PixelCache(folder, len(pool))


def _shards(rows: int) -> int:
    return -(-rows // SHARD_ROWS)


def _rows(rows: int, shard: int) -> range:
    return range(shard * SHARD_ROWS, min(rows, (shard + 1) * SHARD_ROWS))


def _name(shard: int) -> str:
    return f"shard-{shard:05d}"


def _trusted_index(folder: Path, shard: int, *, check_pixels: bool) -> dict[str, Any] | None:
    """The shard's index, or None if the shard is missing, incomplete or altered."""
    path = folder / _name(shard)
    try:
        index = parse_json((path / INDEX).read_bytes())
        digest = index.pop("digest")
        if digest != digest_of(index) or (path / PIXELS).stat().st_size != index["bytes"]:
            return None
        if check_pixels and sha256_file(path / PIXELS) != index["sha256"]:
            return None
    # Whatever is wrong, the answer is the same: the shard is built again, from images that are still there.
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return index


def _build_shard(folder: Path, shard: int, pool: Pool, preprocess: Preprocess, workers: int) -> None:
    entries: list[dict[str, Any]] = []
    size = 0
    refs = list(pool.rows(_rows(len(pool), shard)))
    with staged_folder(folder / _name(shard)) as staged:
        with open(staged / PIXELS, "wb") as file:
            for entry, pixels in _decoded(refs, pool, preprocess, workers):
                entries.append(entry)
                if pixels is not None:
                    file.write(pixels.data)
                    size += pixels.nbytes
        # The file is closed here: before, its end could still be in a buffer, and missing from the digest.
        index = {
            "rows": entries,
            "failed": sum(bool(entry["reason"]) for entry in entries),
            "bytes": size,
            "sha256": sha256_file(staged / PIXELS),
        }
        (staged / INDEX).write_bytes(canonical_json(index | {"digest": digest_of(index)}))


def _decoded(refs: Sequence[ImageRef], pool: Pool, preprocess: Preprocess, workers: int) -> Iterator[Decoded]:
    """Decode in order with a bounded number of images in flight; Pillow decodes outside Python's lock."""
    return in_order(lambda ref: _decode(ref, pool, preprocess), refs, workers, ahead=workers + 1)


def _decode(ref: ImageRef, pool: Pool, preprocess: Preprocess) -> Decoded:
    # The pool has its reason. Without one here it does not count as failed, and is not tried again.
    if ref.status != Status.OK:
        return {"size": [0, 0], "status": "", "reason": ""}, None
    try:
        pixels = preprocess.resize(pool.load(ref))
    except ImageError as error:
        return {"size": [0, 0], "status": error.status.value, "reason": error.reason}, None
    return {"size": list(pixels.shape[:2]), "status": Status.OK.value, "reason": ""}, pixels
