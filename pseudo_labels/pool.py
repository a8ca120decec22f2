"""Pools: tables of images with their identity, what is wrong with the bad ones, and which show the same scene.

A pool is a folder with ``manifest.json`` and ``pool.parquet``, one row an image (``records.ImageRef``); the images stay
where they are. A bad image is a row with a status and a reason. Building is not resumed but repeated: an interrupted
build leaves a folder without the mark of completeness, and the same command makes it anew.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache, cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pseudo_labels import object_cache, outputs
from pseudo_labels.defaults import MAX_BAD_FRACTION, NEAR_DUPLICATE_DISTANCE
from pseudo_labels.duplicates import MAX_DISTANCE
from pseudo_labels.errors import IntegrityError, PocketiqaError
from pseudo_labels.files import remove_leftovers, sha256_bytes, write_atomic
from pseudo_labels.images import DEFAULT_LIMITS, DecodeLimits, ImageError, decode
from pseudo_labels.measuring import measure_all
from pseudo_labels.parallel import Progress
from pseudo_labels.records import ImageRef, Status
from pseudo_labels.ref_tables import PLAIN_SCHEMA, REGION, ROWS_AT_ONCE, SCHEMA, refs_of, table_of
from pseudo_labels.remote import Address, location
from pseudo_labels.sources import Listing, list_sources

KIND = "pool"
TABLE = "pool.parquet"
# What makes two pools the same to everything downstream: not where the images lie.
_IDENTITY = ("id", "group", "ref_id", "distortion", "level", "status")


class Pool:
    """A finished pool. Rows are made on demand; all methods may be called from many threads."""

    def __init__(self, folder: Path, manifest: outputs.Manifest, table: pa.Table):
        self.folder = folder
        self.manifest = manifest
        self._table = table

    @classmethod
    def open(cls, folder: Path | str) -> "Pool":
        """Open a pool that ``build_pool`` or ``write_pool`` finished.

        Raises:
            PocketiqaError: there is no pool, or an unfinished one.
            IntegrityError: the table is not the one that was written.
        """
        folder = location(folder)
        manifest = outputs.read_manifest(folder, KIND)
        if not manifest.complete:
            raise PocketiqaError(f"the pool in {folder} is unfinished: run the command that makes it again")
        lacking = [name for name in ("sha256", "digest") if not isinstance(manifest.content.get(name), str)]
        if lacking:
            raise IntegrityError(
                f"{folder / outputs.MANIFEST} does not say the {lacking[0]} of its table: restore it, or make the pool "
                "again with --overwrite"
            )
        path = folder / TABLE
        if not path.is_file():
            raise PocketiqaError(f"{path} is missing: restore it, or make the pool again with --overwrite")
        data = path.read_bytes()
        if sha256_bytes(data) != manifest.content["sha256"]:
            raise IntegrityError(
                f"{path} was altered since it was written: restore it, or make it anew with --overwrite"
            )
        return cls(folder, manifest, _parsed(data))

    @property
    def digest(self) -> str:
        """Identity of the content: ids, groups, references, distortions, levels and statuses, in order."""
        return self.manifest.content["digest"]

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: int) -> ImageRef:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of a pool of {len(self)} rows")
        return next(refs_of(self._table.slice(index % len(self), 1)))

    def __iter__(self) -> Iterator[ImageRef]:
        return refs_of(self._table)

    def rows(self, span: range) -> Iterator[ImageRef]:
        """The rows at positions that follow each other; one by one, each would be looked for in the whole pool."""
        return refs_of(self._table.slice(span.start, len(span)))

    def take(self, rows: np.ndarray) -> Iterator[ImageRef]:
        """Some rows by their positions [n], in that order."""
        if len(rows):
            # Cut out first: pyarrow joins all blocks of a column to take a few of its rows.
            least = int(rows.min())
            yield from refs_of(self._table.slice(least, int(rows.max()) + 1 - least).take(rows - least))

    def columns(self, *names: str) -> pa.Table:
        """Some fields of ``ImageRef`` of all rows, for what many rows are asked at once; ``status`` as its words."""
        return self._table.select(names)

    @cached_property
    def reference_ids(self) -> frozenset[str]:
        """Ids of the clean images that others of the pool were made of; empty where there are no distorted ones."""
        return frozenset(self._table["ref_id"].unique().to_pylist()) - {""}

    @property
    def good(self) -> np.ndarray:
        """Which rows have status ``ok``, bool [rows]."""
        return np.array([status == Status.OK for status in self._table["status"].to_pylist()], dtype=bool)

    def ok(self) -> list[ImageRef]:
        """The rows with status ``ok``, in order."""
        return [ref for ref in self if ref.status == Status.OK]

    def by_id(self, id: str) -> ImageRef:
        """The row with this id: the ``ok`` one, rather than its duplicates.

        Raises:
            PocketiqaError: there is none.
        """
        order, ids = self._by_id
        at = int(np.searchsorted(ids, id.encode()))
        if at == len(ids) or ids[at] != id.encode():
            raise PocketiqaError(f"no image {id!r} in the pool {self.folder}")
        return self[int(order[at])]

    @cached_property
    def _by_id(self) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers sorted by id, ``ok`` rows first among equal ids, and those ids."""
        ids = np.array(self._table.column("id").to_pylist(), dtype=bytes)
        order = np.lexsort((~self.good, ids))
        return order, ids[order]

    def read(self, ref: ImageRef) -> bytes:
        """The encoded image, verified against the pool.

        Raises:
            ImageError: it cannot be read, or is CHANGED since the pool was made.
        """
        data = object_cache.read_image(ref.uri, self.folder, ref.sha256)
        if ref.sha256 and sha256_bytes(data) != ref.sha256:
            raise ImageError(Status.CHANGED, "the content is not the one that entered the pool: build the pool again")
        return data

    def load(self, ref: ImageRef, limits: DecodeLimits | None = None) -> np.ndarray:
        """The decoded image, uint8 HxWx3 RGB.

        Args:
            ref: row of this pool.
            limits: for decoding; None accepts the size that the image had when it entered the pool, whatever the limits
                were then.

        Raises:
            ImageError: as ``read`` and ``images.decode``; for a row that is not ``ok``, its own status and reason.
        """
        if ref.status != Status.OK:
            raise ImageError(Status(ref.status), ref.reason)
        return decode(self.read(ref), limits or _accepting(ref))


def _accepting(ref: ImageRef) -> DecodeLimits:
    """The usual limits, widened to the size of an image; of rows that others wrote, the size may not be known."""
    if not ref.width * ref.height:
        return DEFAULT_LIMITS
    largest = max(DEFAULT_LIMITS.max_pixels, ref.width * ref.height)
    return replace(DEFAULT_LIMITS, max_pixels=largest, min_side=min(DEFAULT_LIMITS.min_side, ref.width, ref.height))


def write_pool(
    out: Path,
    refs: Iterable[ImageRef],
    *,
    spec: dict[str, Any],
    notes: dict[str, Any] | None = None,
    regions: bool = False,
    overwrite: bool = False,
) -> Pool:
    """Write rows as a pool.

    Args:
        out: the pool's folder; relative addresses start from it.
        refs: taken in order, and only once; not at all if the same pool is there already.
        spec: everything that determines the rows, as JSON values.
        notes: see ``outputs.Manifest``.
        regions: whether rows may name the region that is distorted; else ``ImageRef.region`` is not stored.
        overwrite: replace an earlier pool that was made differently.

    Raises:
        OutputConflictError: ``out`` holds something else.
        StorageFullError: the disk is full.
    """
    out = location(out)
    with outputs.exclusively(out):
        if outputs.claim(out, KIND, spec, overwrite=overwrite, notes=notes) != outputs.Claim.DONE:
            outputs.finish(out, _write_table(out, refs, regions=regions))
    return Pool.open(out)


def build_pool(
    sources: Sequence[str],
    out: Path,
    *,
    limits: DecodeLimits = DEFAULT_LIMITS,
    near_duplicate_distance: int = NEAR_DUPLICATE_DISTANCE,
    max_bad_fraction: float = MAX_BAD_FRACTION,
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> Pool:
    """Read every image of ``sources`` once and write the pool.

    A pool made by the same call from the same files (names, sizes, times) is returned as it is. Where sizes or times
    differ, the files are read again: if they were only touched or copied, the pool stays; if files have come, gone or
    changed, it is in the way and the error says so.

    Args:
        sources: see ``sources``.
        out: the pool's folder.
        limits: images outside are bad rows.
        near_duplicate_distance: see ``duplicates.group_near_duplicates``.
        max_bad_fraction: above this fraction of bad rows the pool is not finished; its rows are written, so that
            they can be examined. Duplicates are not bad.
        workers: threads; Pillow decodes outside Python's lock. The pool does not depend on it.
        overwrite: replace an earlier pool that was made differently.
        progress: called with images done and in total.
        warn: called with each of the notes of ``sources.Listing``.

    Raises:
        PocketiqaError: no images, too many bad ones, or an argument out of range.
        OutputConflictError: ``out`` holds something else.
        StorageFullError: the disk is full.
    """
    _check_arguments(near_duplicate_distance, max_bad_fraction, workers)
    out, listing = location(out), list_sources(sources)
    if warn is not None:
        for note in listing.notes:
            warn(note)
    spec = _spec(listing, limits, near_duplicate_distance)
    measure = cache(
        partial(measure_all, listing.entries, limits, near_duplicate_distance, workers=workers, progress=progress)
    )
    with outputs.exclusively(out):
        done = keep_touched(out, spec, measure)
        if not done and outputs.claim(out, KIND, spec, overwrite=overwrite) != outputs.Claim.DONE:
            content = _write_table(out, measure())
            _refuse_bad(measure(), max_bad_fraction, out)
            outputs.finish(out, content)
    # The list of files and the rows as measured would take more than the pool that is opened.
    del listing, measure
    return Pool.open(out)


def keep_touched(folder: Path, spec: Mapping[str, Any], measure: Callable[[], Collection[ImageRef]]) -> bool:
    """Keep a finished pool whose files have other times, but the content that they had: days of work may rest on it.

    Args:
        folder: folder of the pool.
        spec: as the files are now; only its ``files_digest`` may differ from the pool's.
        measure: gives the rows that the files make now; asked only if that differs.

    Returns:
        Whether there is such a pool; its manifest then states the files as they are now. A corrupt one is none: who
        claims the folder next says so, or starts over.
    """
    try:
        pool = Pool.open(folder)
    except PocketiqaError:
        return False
    manifest = pool.manifest
    changed = {name for name in {*manifest.spec, *spec} if manifest.spec.get(name) != spec.get(name)}
    if changed != {"files_digest"}:
        return False
    rows = measure()
    if len(pool) != len(rows) or any(own != row for own, row in zip(pool, rows, strict=True)):
        return False
    outputs.write_manifest(folder, replace(manifest, spec=dict(spec)))
    return True


def _check_arguments(near_duplicate_distance: int, max_bad_fraction: float, workers: int) -> None:
    if not 0 <= near_duplicate_distance <= MAX_DISTANCE:
        raise PocketiqaError(f"near_duplicate_distance is {near_duplicate_distance}, but must be 0 to {MAX_DISTANCE}")
    if not 0 <= max_bad_fraction <= 1:
        raise PocketiqaError(f"max_bad_fraction is {max_bad_fraction}, but must be 0 to 1")
    if workers < 1:
        raise PocketiqaError(f"workers is {workers}, but must be at least 1")


def _spec(listing: Listing, limits: DecodeLimits, near_duplicate_distance: int) -> dict[str, Any]:
    return {
        "sources": list(listing.sources),
        "images": len(listing.entries),
        "files_digest": listing.digest,
        "limits": {**asdict(limits), "background": list(limits.background)},
        "near_distance": near_duplicate_distance,
    }


def _refuse_bad(refs: Collection[ImageRef], max_bad_fraction: float, out: Path) -> None:
    """Fail loudly when too little is left."""
    counts, examples = Counter[Status](), dict[Status, str]()
    for ref in refs:
        if ref.status not in (Status.OK, Status.DUPLICATE):
            counts[ref.status] += 1
            examples.setdefault(ref.status, ref.reason)
    bad = counts.total()
    if bad < len(refs) and bad <= max_bad_fraction * len(refs):
        return
    common = counts.most_common(3)
    shown = "; ".join(f"{count} {status} (such as: {examples[status]})" for status, count in common)
    raise PocketiqaError(
        f"{bad} of {len(refs)} images are bad, above the limit of {max_bad_fraction:.0%}: {shown}. Every row with "
        f"its reason is in {out / TABLE}: mend the sources and run again with --overwrite, or raise --max-bad-fraction"
    )


def _write_table(out: Path, refs: Iterable[ImageRef], *, regions: bool = False) -> dict[str, Any]:
    """Write the rows; returns what the manifest says of them."""
    schema = SCHEMA if regions else PLAIN_SCHEMA
    names = (*_IDENTITY, REGION) if regions else _IDENTITY
    identity, statuses, groups = hashlib.sha256(), Counter[str](), set[str]()
    source, sink = iter(refs), pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema) as writer:
        while block := list(islice(source, ROWS_AT_ONCE)):
            for ref in block:
                identity.update(json.dumps([getattr(ref, name) for name in names]).encode())
                statuses[ref.status] += 1
                # A bad image is a group of its own, but shows no scene that anybody could use.
                if ref.status in (Status.OK, Status.DUPLICATE):
                    groups.add(ref.group)
            writer.write_table(table_of(block, schema))
    data = sink.getvalue().to_pybytes()
    if not isinstance(out, Address):
        remove_leftovers(out)
    write_atomic(out / TABLE, data)
    return {
        "digest": identity.hexdigest(),
        "sha256": sha256_bytes(data),
        "rows": statuses.total(),
        "groups": len(groups),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
    }


def _parsed(data: bytes) -> pa.Table:
    """The table of a Parquet file.

    Not by ``pq.read_table``: its threads may let go of ``data`` while Python is ending, which aborts the process.
    """
    table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    return table.cast(SCHEMA if REGION in table.column_names else PLAIN_SCHEMA)
