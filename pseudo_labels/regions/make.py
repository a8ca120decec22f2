"""The region manifest of a pool: proposals of a source, limited, in shards that resume; and a preview of them."""

import io
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pseudo_labels import outputs
from pseudo_labels.defaults import (
    DECODE_WORKERS,
    MAX_REGION_AREA,
    MAX_REGION_OVERLAP,
    MAX_REGIONS,
    MIN_REGION_AREA,
)
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import write_atomic
from pseudo_labels.images import DEFAULT_LIMITS, DecodeLimits, ImageError
from pseudo_labels.parallel import Progress, in_order
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef, Status
from pseudo_labels.regions.masks import (
    Box,
    RegionError,
    box_of,
    check_counts,
    outline,
    outline_colours,
    overlap,
)
from pseudo_labels.regions.sources import Proposal, RegionSource
from pseudo_labels.regions.store import Region, RegionSet, region_id
from pseudo_labels.remote import Address, location
from pseudo_labels.store import shard_count

Warn = Callable[[str], None]
PREVIEW = "preview.png"
_PIXELS_AHEAD = 64_000_000  # of decoded images in work
_SCRATCH = ".scratch-"


@dataclass(frozen=True)
class Limits:
    """Which proposals become regions.

    Attributes:
        min_area: least fraction of the image; 0 lets single pixels pass.
        max_area: greatest fraction.
        max_overlap: greatest intersection over union with an earlier region of the image; 1 drops only equal ones.
        max_regions: most regions of an image; the first ones stay.

    Raises:
        PocketiqaError: out of range.
    """

    min_area: float = MIN_REGION_AREA
    max_area: float = MAX_REGION_AREA
    max_overlap: float = MAX_REGION_OVERLAP
    max_regions: int = MAX_REGIONS

    def __post_init__(self) -> None:
        if not 0 <= self.min_area <= self.max_area <= 1 or not 0 <= self.max_overlap <= 1:
            raise PocketiqaError(
                f"min_area {self.min_area}, max_area {self.max_area}, max_overlap {self.max_overlap}: give fractions "
                "from 0 to 1, the smaller area first"
            )
        if not isinstance(self.max_regions, int) or self.max_regions < 1:
            raise PocketiqaError(f"max_regions is {self.max_regions!r}, but must be a whole number of at least 1")


def limited(proposals: Iterable[Proposal], ref: ImageRef, source: str, limits: Limits) -> list[Region]:
    """Rows of an image: each proposal becomes a region, or a row that says why not; an image without any, one row."""
    rows: list[Region] = []
    good = _Accepted(ref, limits)
    for proposal in proposals:
        row = Region(ref.id, height=ref.height, width=ref.width, source=source, level=proposal.level)
        if proposal.status == Status.OK:
            row = replace(
                row, quality=proposal.quality, importance=proposal.importance, severity=proposal.severity,
                distortion=proposal.distortion,
            )  # fmt: skip
            try:
                rows.append(good.add(row, proposal.counts))
                continue
            except RegionError as error:
                rows.append(replace(row, status=error.status, reason=error.reason))
        else:
            rows.append(replace(row, status=proposal.status, reason=proposal.reason))
    if not rows:
        rows.append(Region(ref.id, status=Status.MISSING, reason="the source gives no region", source=source))
    return rows


class _Accepted:
    """The regions of an image so far."""

    def __init__(self, ref: ImageRef, limits: Limits):
        self._ref, self._limits = ref, limits
        self._counts: list[str] = []
        # Left, top, right and bottom, one column a region; twice as many columns whenever they are full.
        self._edges = np.zeros((4, 64), np.int64)

    def add(self, row: Region, counts: str) -> Region:
        """The row with its mask.

        Raises:
            RegionError: it is empty, corrupt, or dropped by a limit.
        """
        limits, height, width = self._limits, self._ref.height, self._ref.width
        pixels = check_counts(counts, height, width)
        area = pixels / (height * width)
        if not pixels:
            raise RegionError(Status.EMPTY, "the mask has no pixel")
        if not limits.min_area <= area <= limits.max_area:
            raise RegionError(
                Status.DROPPED,
                f"{pixels} pixels, a fraction {area:.4g} of the image: outside {limits.min_area:g} to "
                f"{limits.max_area:g}",
            )
        if len(self._counts) >= limits.max_regions:
            raise RegionError(Status.DROPPED, f"the image has {limits.max_regions} regions already")
        box = box_of(counts, height, width)
        # Only masks whose boxes meet can overlap: with thousands of regions, few are compared.
        near = self._meeting(box)
        overlaps = overlap(counts, [self._counts[index] for index in near], height, width)
        if len(near) and (overlaps.max() > limits.max_overlap or overlaps.max() == 1):
            earlier = near[int(overlaps.argmax())]
            other = region_id(self._counts[earlier], height, width)
            raise RegionError(Status.DROPPED, f"overlap of {overlaps.max():.3f} with the earlier region {other}")
        left, top, wide, tall = box
        if len(self._counts) == self._edges.shape[1]:
            self._edges = np.hstack([self._edges, np.zeros_like(self._edges)])
        self._edges[:, len(self._counts)] = left, top, left + wide, top + tall
        self._counts.append(counts)
        return replace(
            row, region=region_id(counts, height, width), counts=counts, left=left, top=top, box_width=wide,
            box_height=tall, area=area,
        )  # fmt: skip

    def _meeting(self, box: Box) -> list[int]:
        left, top, right, bottom = self._edges[:, : len(self._counts)]
        across = (left < box[0] + box[2]) & (box[0] < right)
        return np.flatnonzero(across & (top < box[1] + box[3]) & (box[1] < bottom)).tolist()


def build_regions(
    pool: Pool,
    source: RegionSource,
    out: Path | str,
    *,
    limits: Limits | None = None,
    shards: int | None = None,
    decode_limits: DecodeLimits = DEFAULT_LIMITS,
    workers: int = DECODE_WORKERS,
    preview: int = 12,
    overwrite: bool = False,
    progress: Progress | None = None,
    warn: Warn | None = None,
) -> RegionSet:
    """Make the region manifest of a pool, or finish what an earlier call began.

    A shard is the unit of resuming; an interrupted run goes on where it was and ends with the same bytes. Every image
    of the pool has at least one row.

    Args:
        pool: pool of the images.
        source: gives the regions.
        out: folder of the manifest, or its address.
        limits: which proposals become regions; None takes the defaults.
        shards: how many; None means about 256 images each but at least 8, or those of the manifest in ``out``.
        decode_limits: limits of decoding, for sources that need pixels.
        workers: threads that decode and, where the source allows it, propose.
        preview: images on the sheet ``preview.png`` in ``out``; 0 draws none.
        overwrite: replace an earlier manifest that was made differently.
        progress: called with images done and in total.
        warn: called with a sentence on corrupt shards, and on what the source left over.

    Raises:
        PocketiqaError: the pool is empty, or the source cannot be read; what was committed stays valid.
        OutputConflictError: ``out`` holds something else, or another process works on it.
        StorageFullError: the disk is full.
    """
    if not len(pool):
        raise PocketiqaError(f"the pool {pool.folder} has no rows: there are no images with regions")
    out, limits, warn = location(out), limits or Limits(), warn or (lambda _text: None)
    count = shard_count(out, RegionSet.kind, len(pool), overwrite=overwrite) if shards is None else shards
    if not 1 <= count <= len(pool):
        raise PocketiqaError(f"{count} shards for a pool of {len(pool)} images: choose from 1 to {len(pool)}")
    spec = {
        "pool": pool.digest,
        "rows": len(pool),
        "shards": count,
        "source": source.name,
        "options": source.spec(),
        "limits": asdict(limits),
    }
    if source.needs_pixels:
        spec["decode"] = {**asdict(decode_limits), "background": list(decode_limits.background)}
    with ExitStack() as stack:
        # Before the claim: with ``overwrite`` it removes what another process may be writing.
        stack.enter_context(outputs.exclusively(out))
        store = RegionSet.claim(out, spec, pool_path=pool.folder, overwrite=overwrite)
        pending = _pending(store, warn)
        rows_of = [len(store.shard_rows(index)) for index in range(store.shard_count)]
        done = sum(rows_of) - sum(rows_of[index] for index in pending)
        if progress:
            progress(done, sum(rows_of))
        if pending:
            stack.enter_context(source.opened(pool.ok(), _scratch(out, stack)))
        work = _Proposer(pool, source, limits, decode_limits)
        refs = (ref for index in pending for ref in pool.rows(store.shard_rows(index)))
        # One stream for all shards: between two shards the threads go on.
        per_image = in_order(
            work.prepare, refs, workers, size=lambda ref: ref.width * ref.height, size_ahead=64_000_000
        )
        try:
            for index in pending:
                rows: list[Region] = []
                for _ in range(rows_of[index]):
                    rows += work.finished(next(per_image))
                    done += 1
                    if progress:
                        progress(done, sum(rows_of))
                store.write_rows(index, rows)
        finally:
            per_image.close()
        if pending:
            _note(store, source.notes(), warn)
        if pending or not store.manifest.complete:
            store.finish()
    if preview and (pending or not (out / PREVIEW).is_file()):
        write_preview(store, pool, out / PREVIEW, images=preview, decode_limits=decode_limits)
    return store


def _pixels(ref: ImageRef) -> int:
    return ref.width * ref.height


def _pending(store: RegionSet, warn: Warn) -> list[int]:
    for fault in store.verify():
        warn(f"shard {fault.index} is made again: {fault.reason}")
        store.discard(fault.index)
    return store.missing()


def _scratch(out: Path, stack: ExitStack) -> Path:
    """A temporary folder inside ``out``, where there is room for what becomes ``out``; those of killed runs go.

    Of an address, a folder where this machine keeps temporary files.
    """
    if isinstance(out, Address):
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pocketiqa-regions-")))
    for leftover in out.glob(f"{_SCRATCH}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=out)))


def _note(store: RegionSet, notes: Mapping[str, Any], warn: Warn) -> None:
    if notes:
        store.manifest = replace(store.manifest, notes={**store.manifest.notes, **notes})
        outputs.write_manifest(store.folder, store.manifest)
    if notes.get("unmatched_records"):
        names = ", ".join(notes["unmatched_images"][:3])
        warn(
            f"{notes['unmatched_records']} records name no image of the pool, or one that several images have, such as "
            f"{names}: see the notes in {store.folder / outputs.MANIFEST}"
        )


@dataclass(frozen=True)
class _Proposer:
    """Rows of an image, in two steps: what threads may do, and what the main thread does."""

    pool: Pool
    source: RegionSource
    limits: Limits
    decode_limits: DecodeLimits

    def prepare(self, ref: ImageRef) -> tuple[ImageRef, np.ndarray | None, list[Region] | None]:
        """Pixels, if they are needed, and the rows, if threads may make them."""
        if ref.status != Status.OK:
            return ref, None, [self._none(ref, ref.status, ref.reason)]
        try:
            rgb = self.pool.load(ref, self.decode_limits) if self.source.needs_pixels else None
        except ImageError as error:
            return ref, None, [self._none(ref, error.status, error.reason)]
        except MemoryError:
            return ref, None, [self._none(ref, Status.FAILED, "out of memory while decoding")]
        return (ref, None, self._rows(ref, rgb)) if self.source.in_threads else (ref, rgb, None)

    def finished(self, prepared: tuple[ImageRef, np.ndarray | None, list[Region] | None]) -> list[Region]:
        """All rows of the image."""
        ref, rgb, rows = prepared
        return self._rows(ref, rgb) if rows is None else rows

    def _rows(self, ref: ImageRef, rgb: np.ndarray | None) -> list[Region]:
        try:
            return limited(self.source.propose(ref, rgb), ref, self.source.name, self.limits)
        except RegionError as error:
            return [self._none(ref, error.status, error.reason)]
        except PocketiqaError as error:
            return [self._none(ref, Status.FAILED, str(error))]

    def _none(self, ref: ImageRef, status: Status, reason: str) -> Region:
        return Region(ref.id, status=status, reason=reason, source=self.source.name)


_TILE_PX, _GAP_PX, _COLUMNS = 320, 8, 4
_PAPER = (255, 255, 255)


def write_preview(
    regions: RegionSet, pool: Pool, path: Path, *, images: int = 12, decode_limits: DecodeLimits = DEFAULT_LIMITS
) -> None:
    """Draw the regions of the first images that have any, as outlines with numbers, into one PNG file.

    Raises:
        StorageFullError: the disk is full.
    """
    tiles: list[Image.Image] = []
    for ref in pool:
        own = regions.regions_of(ref.id) if ref.status == Status.OK else []
        if own:
            try:
                tiles.append(_tile(pool.load(ref, decode_limits), own))
            except ImageError:
                continue
        if len(tiles) == images:
            break
    columns = min(_COLUMNS, max(1, len(tiles)))
    rows = max(1, -(-len(tiles) // columns))
    step = _TILE_PX + _GAP_PX
    sheet = Image.new("RGB", (columns * step + _GAP_PX, rows * step + _GAP_PX), _PAPER)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        sheet.paste(tile, (_GAP_PX + column * step, _GAP_PX + row * step))
    data = io.BytesIO()
    sheet.save(data, "PNG", compress_level=1)
    write_atomic(path, data.getvalue())


def _tile(rgb: np.ndarray, regions: Iterable[Region]) -> Image.Image:
    scale = _TILE_PX / max(rgb.shape[:2])
    size = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
    tile = np.array(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))
    labels: list[tuple[tuple[int, int], str, tuple[int, int, int]]] = []
    for number, (region, colour) in enumerate(zip(regions, outline_colours(), strict=False)):
        mask = np.array(Image.fromarray(region.mask()).resize(size, Image.Resampling.NEAREST))
        tile[outline(mask)] = colour
        rows, columns = np.nonzero(mask)
        if len(rows):  # a region of a few pixels may vanish in a small tile
            middle = len(rows) // 2  # a pixel of the region itself, which the mean need not be
            labels.append(((int(columns[middle]), int(rows[middle])), str(number), colour))
    image = Image.fromarray(tile)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    for (x, y), text, colour in labels:
        draw.text((x, y), text, colour, font, anchor="mm", stroke_width=1, stroke_fill=(0, 0, 0))
    return image
