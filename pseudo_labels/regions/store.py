"""What is stored of regions: the manifest of the regions of a pool, and labels of regions; both in shards.

Shards, resume, locks and checksums are those of label stores (``pseudo_labels.store``). A shard is of a block of the
pool's rows and holds any number of rows itself: one a region, and one for each region that was refused or image without
any, with the reason. Nothing that a source gave goes missing without a row.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pseudo_labels import outputs, shards
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import canonical_json, sha256_bytes
from pseudo_labels.records import Status
from pseudo_labels.regions.masks import Box, decode
from pseudo_labels.store import ShardStore

NAN = float("nan")
_ID_DIGITS = 16


def region_id(counts: str, height: int, width: int) -> str:
    """Id of a region in every manifest: the first digits of the SHA-256 of size and run lengths."""
    return sha256_bytes(f"{width}x{height}:{counts}".encode())[:_ID_DIGITS]


@dataclass(frozen=True, slots=True)
class Region:
    """One row of a region manifest.

    Attributes:
        image: id of the image in its pool.
        region: id of the region, see ``region_id``; empty for a row without a mask.
        status: ``ok``, or why there is no region: ``dropped`` by a limit, ``corrupt`` or ``empty`` mask, or what is
            wrong with the image.
        reason: words for a person; empty if ``ok``.
        height: of the image and the mask, pixels.
        width: of the image and the mask, pixels.
        counts: COCO's compressed run lengths; empty unless ``ok``.
        left: of the box around the mask, pixels.
        top: of the box.
        box_width: of the box, at least 1.
        box_height: of the box, at least 1.
        area: fraction of the image's pixels, in (0, 1].
        source: ``sam``, ``slic``, ``grid``, ``boxes``, ``masks``, ``bsds``, ``table`` or ``seagull``.
        level: ``object`` or ``part``.
        quality: as the source states it, in [0, 1], 1 best; NaN where it states none.
        importance: as the source states it, in [0, 1]; NaN where it states none.
        severity: of the distortion, as the source states it, in [0, 1], 1 worst; NaN where it states none.
        distortion: its type as the source names it; empty where it names none.
    """

    image: str
    region: str = ""
    status: Status = Status.OK
    reason: str = ""
    height: int = 0
    width: int = 0
    counts: str = ""
    left: int = 0
    top: int = 0
    box_width: int = 0
    box_height: int = 0
    area: float = 0.0
    source: str = ""
    level: str = ""
    quality: float = NAN
    importance: float = NAN
    severity: float = NAN
    distortion: str = ""

    @property
    def box(self) -> Box:
        """Left, top, width and height in pixels."""
        return self.left, self.top, self.box_width, self.box_height

    def mask(self) -> np.ndarray:
        """The mask, bool [height, width]."""
        return decode(self.counts, self.height, self.width)


@dataclass(frozen=True, slots=True)
class RegionLabel:
    """One row of a store of region labels.

    Attributes:
        image: id of the labelled image in its pool.
        region: id of the region; empty for an image without any.
        status: see ``records.Status``.
        reason: words for a person; empty if ``ok``.
        quality: of the region, in [0, 1], 1 best; NaN unless ``ok``.
        quality_std: spread of it, in its units; NaN where the teacher gives none.
        importance: of the region for the whole image, in [0, 1]; NaN where the teacher gives none.
        importance_std: spread of it.
        type: distortion in the region; empty where there is none, or it is not known.
        severity: of the distortion, in [0, 1], 1 worst; NaN where it is not known.
        severity_std: spread of it.
        confidence: weight in distillation, in [0, 1], by ``records.confidence`` of ``quality_std``.
        batch: number of crops that the teacher scored together with that of the region, itself included (where a region
            has two, the smaller number); 0 where it has no score, and in stores that do not say.
    """

    image: str
    region: str = ""
    status: Status = Status.OK
    reason: str = ""
    quality: float = NAN
    quality_std: float = NAN
    importance: float = NAN
    importance_std: float = NAN
    type: str = ""
    severity: float = NAN
    severity_std: float = NAN
    confidence: float = 1.0
    batch: int = 0


_TYPES = {str: pa.string(), Status: pa.string(), int: pa.int32(), float: pa.float32()}
_BATCH = "batch"  # a column of stores whose spec says a batch size
Row = TypeVar("Row", Region, RegionLabel)


def _schema(kind: type[Any], *, batches: bool) -> pa.Schema:
    columns = [field for field in fields(kind) if batches or field.name != _BATCH]
    return pa.schema([(field.name, _TYPES[field.type]) for field in columns])


def _plain(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


class _RowStore(ShardStore, Generic[Row]):
    """A store whose shards hold rows of one dataclass."""

    row_type: ClassVar[type[Any]]
    file: ClassVar[str]
    statistics: ClassVar[tuple[str, ...]]
    """Columns whose mean and range are in the statistics of a shard."""

    def file_names(self) -> set[str]:
        """Table and statistics."""
        return {self.file, shards.STATS}

    def write_rows(self, index: int, rows: Sequence[Row]) -> None:
        """Commit a shard: all rows of its images, in the pool's order.

        Raises:
            PocketiqaError: a value is out of range.
            OutputConflictError: see ``commit``.
            StorageFullError: the disk is full; nothing of this shard is left.
        """
        for row in rows:
            _check_row(row)
        schema = self._schema
        # In the order of the fields, which is that of the columns.
        table = pa.table({name: [_plain(getattr(row, name)) for row in rows] for name in schema.names}, schema=schema)
        files = {self.file: shards.parquet_bytes(table), shards.STATS: canonical_json(self._stats(table))}
        self.commit(index, self.marked(index, files))

    @property
    def _schema(self) -> pa.Schema:
        return _schema(self.row_type, batches="batch_size" in self.manifest.spec)

    def _stats(self, table: pa.Table) -> dict[str, Any]:
        statuses = Counter(table["status"].to_pylist())
        summary = {}
        for name in self.statistics:
            values = table[name].to_numpy().astype(np.float64)
            values = values[np.isfinite(values)]
            if values.size:
                numbers = {"mean": values.mean(), "min": values.min(), "max": values.max(), "n": values.size}
                summary[name] = {key: round(float(number), 6) for key, number in numbers.items()}
        return {"rows": table.num_rows, "status": dict(sorted(statuses.items())), **summary}

    def shard_table(self, index: int) -> pa.Table:
        """Rows of one committed shard, verified, as they were written."""
        with self.opened(index) as folder:
            return pq.read_table(folder / self.file, schema=self._schema, use_threads=False)

    def shard_rows_of(self, index: int) -> list[Row]:
        """The same as objects."""
        return list(self._rows_of(self.shard_table(index)))

    def rows(self) -> Iterator[Row]:
        """All rows in the pool's order, verified shard by shard.

        Raises:
            PocketiqaError: the store is not finished.
            IntegrityError: a shard was altered.
        """
        self._require_complete()
        for index in range(self.shard_count):
            yield from self.shard_rows_of(index)

    def of_image(self, image: str) -> list[Row]:
        """Rows of one image, none for an image that the store does not know.

        Raises:
            PocketiqaError: the store is not finished.
        """
        index = self._shard_of.get(image)
        if index is None:
            return []
        if index not in self._recent:
            # A few shards: images come in the order of a pool, and a pool of distorted copies repeats them.
            if len(self._recent) >= 4:
                self._recent.pop(next(iter(self._recent)))
            grouped: dict[str, list[Row]] = {}
            for row in self._rows_of(self.shard_table(index)):
                grouped.setdefault(row.image, []).append(row)
            self._recent[index] = grouped
        return self._recent[index].get(image, [])

    @cached_property
    def _recent(self) -> dict[int, dict[str, list[Row]]]:
        return {}

    @cached_property
    def _shard_of(self) -> dict[str, int]:
        self._require_complete()
        # Duplicates have the id of the image that they repeat; that image comes first and has the regions.
        known: dict[str, int] = {}
        for index in range(self.shard_count):
            table = self.shard_table(index)
            for image in dict.fromkeys(table["image"].to_pylist()):
                known.setdefault(image, index)
        return known

    def _rows_of(self, table: pa.Table) -> Iterator[Row]:
        names = table.schema.names
        for values in zip(*(table[name].to_pylist() for name in names), strict=True):
            row = dict(zip(names, values, strict=True))
            yield self.row_type(**{**row, "status": Status(row["status"])})


def _check_row(row: Region | RegionLabel) -> None:
    names = {"quality", "importance", "severity"}
    scores = [getattr(row, name) for name in names] + ([row.confidence] if isinstance(row, RegionLabel) else [])
    spreads = [row.quality_std, row.importance_std, row.severity_std] if isinstance(row, RegionLabel) else []
    what = f"region {row.region or '(none)'} of image {row.image}"
    if any(not (math.isnan(score) or 0 <= score <= 1) for score in scores):
        raise PocketiqaError(f"{what} has a value outside [0, 1]: {scores}")
    if any(not (math.isnan(spread) or 0 <= spread < math.inf) for spread in spreads):
        raise PocketiqaError(f"{what} has a spread that is not finite and at least 0: {spreads}")
    if (row.status == Status.OK) == bool(row.reason):
        raise PocketiqaError(f"{what} has status {row.status} and reason {row.reason!r}: only others than ok have one")
    if isinstance(row, RegionLabel) and row.status == Status.OK and math.isnan(row.quality):
        raise PocketiqaError(f"{what} is ok, but has no quality")


class RegionSet(_RowStore[Region]):
    """The regions of a pool."""

    kind = "regions"
    command = "regions"
    row_type = Region
    file = "regions.parquet"
    statistics = ("area", "quality", "importance", "severity")

    def regions_of(self, image: str) -> list[Region]:
        """The regions of an image that can be used, in order."""
        return [region for region in self.of_image(image) if region.status == Status.OK]

    def summary(self) -> dict[str, Any]:
        """Regions and images that have any."""
        regions, images = 0, set[str]()
        for index in range(self.shard_count):
            table = self.shard_table(index)
            columns = table["image"].to_pylist(), table["status"].to_pylist()
            good = [image for image, status in zip(*columns, strict=True) if status == Status.OK]
            regions += len(good)
            images.update(good)
        return {"regions": regions, "images": len(images)}


class RegionLabelStore(_RowStore[RegionLabel]):
    """Labels of the regions of a pool by one teacher.

    Importance by comparison is the loss that one region causes, a small number that depends on the metric. The shards
    hold it as measured. What is read from a finished store is scaled so that the least of the pool becomes 0 and the
    greatest 1 (``importance_range`` in the manifest); a teacher that gives importance on its own scale is left alone.
    """

    kind = "region-labels"
    command = "label-regions"
    row_type = RegionLabel
    file = "labels.parquet"
    statistics = ("quality", "importance", "severity")

    def __init__(self, folder: Path, manifest: outputs.Manifest) -> None:
        super().__init__(folder, manifest)
        self.teacher: dict[str, Any] = manifest.spec["teacher"]

    def summary(self) -> dict[str, Any]:
        """Range of the measured importance, where it is to be scaled, and the regions that were labelled."""
        least, greatest, labelled = math.inf, -math.inf, 0
        for index in range(self.shard_count):
            table = super().shard_table(index)
            labelled += sum(status == Status.OK for status in table["status"].to_pylist())
            values = table["importance"].to_numpy()
            values = values[np.isfinite(values)]
            if values.size:
                least, greatest = min(least, float(values.min())), max(greatest, float(values.max()))
        scaled = bool(self.manifest.spec.get("scale_importance")) and greatest > least
        return {"labelled": labelled, "importance_range": [least, greatest] if scaled else None}

    def shard_table(self, index: int) -> pa.Table:
        """Rows of one shard, verified; of a finished store with importance on its scale (see the class)."""
        table = super().shard_table(index)
        bounds: Sequence[float] | None = self.manifest.content.get("importance_range")
        if not self.manifest.complete or not bounds:
            return table
        low, high = bounds
        scaled = (table["importance"].to_numpy() - low) / (high - low)
        columns: Mapping[str, np.ndarray] = {
            "importance": np.clip(scaled, 0, 1),
            "importance_std": table["importance_std"].to_numpy() / (high - low),
        }
        for name, values in columns.items():
            position = table.schema.get_field_index(name)
            table = table.set_column(position, table.schema.field(name), pa.array(values.astype(np.float32)))
        return table
