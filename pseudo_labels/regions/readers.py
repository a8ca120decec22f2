"""Regions from tables and JSON files of any size: boxes, a region benchmark, COCO's instances, SEAGULL-100w.

Files are streamed, record by record, into a temporary SQLite file beside the output, from which the regions of an image
are looked up; memory does not grow with the file (``ijson`` parses, Arrow reads Parquet in batches).

A record names its image and has a mask or a box; the rest may be missing:

    image, rle | box | x, y, width, height, quality, importance, type, severity, level

``rle`` is COCO's (object, text, or polygon), ``box`` is x, y, width, height in pixels. In CSV files ``rle`` and ``box``
are text, that of a box with spaces or commas between its numbers. JSON is a list of records, JSON lines, or an object
from image names to records, boxes or lists of them; ``{"images": ..., "annotations": ...}`` is COCO's form.
"""

import csv
import inspect
import json
import math
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

import ijson
import numpy as np

from pseudo_labels.errors import PocketiqaError, install_command
from pseudo_labels.files import local_path, name_of, sha256_file
from pseudo_labels.records import ImageRef, Status
from pseudo_labels.regions.masks import RegionError, from_box, from_coco
from pseudo_labels.regions.sources import (
    OBJECT,
    PART,
    SOURCES,
    Bsds,
    Grid,
    MaskFolder,
    Proposal,
    RegionSource,
    Slic,
)

# A record with more values than this is no record but a part of the file that holds them all: refused, not built.
MOST_VALUES = 2_000_000
_DEEPEST = 50  # of what is nested in a record; polygons need 3
# Bytes that are parsed at a time; the cost of lists in lists grows with its square.
_BUFFER = 1 << 14
_SHOWN = 20
_BATCH = 1000
_BY_NAME = "name of "  # key of records that belong to all images of a name; no id begins so
_ALL = "every image"
_NUMBERS = ("quality", "importance", "severity")


@dataclass(frozen=True)
class FieldNames:
    """Under which names a file holds the values of a record; dots lead into objects, such as ``bbox.value``.

    Attributes:
        image: name, path or id of the image; not needed where the records stand under their image's name.
        rle: mask.
        box: x, y, width and height.
        quality: in the range of ``TableSource``; so are ``importance`` and ``severity``.
        importance: see ``quality``.
        severity: see ``quality``.
        type: of the distortion.
        level: ``object`` or ``part``.
        region: id of the region, by which the records of two files are joined.
    """

    image: str = "image"
    rle: str = "rle"
    box: str = "box"
    quality: str = "quality"
    importance: str = "importance"
    severity: str = "severity"
    type: str = "type"
    level: str = "level"
    region: str = "region"


@dataclass
class _Unmatched:
    """Records whose image is not in the pool, or that name none."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.names) < _SHOWN and name not in self.names:
            self.names.append(name)


class TableSource:
    """Regions of a file, or of one with masks and one with scores.

    Args:
        file: .csv, .json, .jsonl or .parquet, see the module.
        name: of the source in the manifest.
        scores: second file with the scores of the same regions, joined by image and ``fields.region`` (where neither
            file has it, by their order within the image); None where ``file`` has all.
        names: see ``FieldNames``.
        path: where the records are in a JSON file, such as ``data.regions`` (dots between keys); "" is the top.
        by_name: regions of ``file`` whose image's name fits several images belong to all of them: distorted copies, in
            folders of their own, that are named as their reference.
        unnamed: records that name no image belong to every image, instead of to none.
        low: quality, importance and severity that mean 0.
        high: those that mean 1.

    Raises:
        PocketiqaError: a file is missing or of another kind, or the range is empty.
    """

    needs_pixels = False
    in_threads = False  # one connection to one file

    def __init__(
        self, file: Path | str, *, name: str = "boxes", scores: Path | str | None = None,
        names: FieldNames | Mapping[str, str] | None = None, path: str = "", by_name: bool = False,
        unnamed: bool = False, low: float = 0.0, high: float = 1.0,
    ):  # fmt: skip
        self.name = name
        self.file = _existing(file)
        self.scores = None if scores is None else _existing(scores)
        self.names = names if isinstance(names, FieldNames) else _field_names(names or {})
        self.path, self.by_name, self.low, self.high = path, bool(by_name), float(low), float(high)
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise PocketiqaError(f"values from {low} to {high}: give two finite numbers, the smaller first")
        self.unnamed = bool(unnamed)
        self._unmatched = _Unmatched()
        self._connection: sqlite3.Connection | None = None

    def spec(self) -> dict[str, Any]:
        """Digests of the files, and how they are read."""
        files = [sha256_file(path) for path in (self.file, self.scores) if path is not None]
        names = {one.name: getattr(self.names, one.name) for one in fields(FieldNames)}
        return {"files": files, "names": names, "path": self.path, "by_name": self.by_name} | {
            "range": [self.low, self.high],
            **({"unnamed": True} if self.unnamed else {}),  # manifests of earlier versions do not have it
        }

    def notes(self) -> dict[str, Any]:
        """How many records name no image of the pool, and some of the names."""
        unmatched = self._unmatched
        return {"unmatched_records": unmatched.count, "unmatched_images": unmatched.names} if unmatched.count else {}

    @contextmanager
    def opened(self, images: Iterable[ImageRef], scratch: Path) -> Iterator[None]:
        """Stream the files into a temporary file in ``scratch``, ordered by image; removed afterwards.

        Raises:
            PocketiqaError: a file is corrupt or not of a known form; its records so far are named.
        """
        names = ImageNames(images)
        self._unmatched = _Unmatched()
        spill = scratch / "records.sqlite"
        try:
            # Other threads may ask too, one at a time, which is up to the caller (``in_threads``).
            with closing(sqlite3.connect(spill, check_same_thread=False)) as connection:
                # It is thrown away whatever happens: nothing must be safe on the disk.
                connection.execute("PRAGMA journal_mode=OFF")
                connection.execute("PRAGMA synchronous=OFF")
                connection.execute("CREATE TABLE records (image TEXT, part INTEGER, record TEXT)")
                for part, path in enumerate(path for path in (self.file, self.scores) if path is not None):
                    connection.executemany("INSERT INTO records VALUES (?, ?, ?)", self._matched(path, part, names))
                connection.execute("CREATE INDEX by_image ON records (image, part)")
                connection.commit()
                self._connection = connection
                yield
        finally:
            self._connection = None
            spill.unlink(missing_ok=True)

    def _matched(self, path: Path, part: int, images: "ImageNames") -> Iterator[tuple[str, int, str]]:
        for key, record in records_of(path, self.path, self.names.image):
            name = str(_value(record, self.names.image) or key)
            image = _ALL if self.unnamed and not name else images.find(name)
            if image is None and part == 0 and self.by_name and images.has_stem(name):
                image = _BY_NAME + PurePosixPath(name).stem
            if image is None:
                self._unmatched.add(name)
            else:
                yield image, part, json.dumps(record, default=_plain)

    def propose(self, ref: ImageRef, rgb: np.ndarray | None) -> Iterator[Proposal]:
        """Regions of an image in the order of the file; those that cannot be read are refused one by one."""
        if self._connection is None:
            raise PocketiqaError("the source of regions is not open: use it within 'with source.opened(...)'")
        query = "SELECT part, record FROM records WHERE image IN (?, ?, ?) ORDER BY part, rowid"
        keys = ref.id, _BY_NAME + PurePosixPath(name_of(ref.uri)).stem, _ALL
        rows = ((part, json.loads(text)) for part, text in self._connection.execute(query, keys))
        if self.scores is None:  # one by one: one image may have all records of a large file
            records: Iterable[Mapping[str, Any]] = (record for _, record in rows)
        else:
            parts: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
            for part, record in rows:
                parts[part].append(record)
            records = [{**scored, **record} for record, scored in self._joined(*parts)]
        for record in records:
            yield self._proposal(record, ref)

    def _joined(
        self, regions: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]]
    ) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
        by_id = {_value(record, self.names.region): record for record in scores}
        by_order = all(_value(record, self.names.region) is None for record in [*regions, *scores])
        if by_order and scores and len(scores) != len(regions):
            raise RegionError(
                Status.CORRUPT,
                f"{len(regions)} masks, but {len(scores)} scores, and no ids to join them by: name the field of the id",
            )
        for number, record in enumerate(regions):
            if by_order:
                yield record, scores[number] if scores else {}
            else:
                yield record, by_id.get(_value(record, self.names.region), {})

    def _proposal(self, record: Mapping[str, Any], ref: ImageRef) -> Proposal:
        level = str(_value(record, self.names.level) or OBJECT)
        try:
            if level not in (OBJECT, PART):
                raise RegionError(Status.CORRUPT, f"level is {level!r}, but must be {OBJECT} or {PART}")
            values: dict[str, Any] = {name: self._number(record, name) for name in _NUMBERS}
            counts = self._mask(record, ref)
        except RegionError as error:
            return Proposal("", level if level in (OBJECT, PART) else PART, error.status, error.reason)
        return Proposal(counts, level, distortion=str(_value(record, self.names.type) or ""), **values)

    def _number(self, record: Mapping[str, Any], name: str) -> float:
        value = _value(record, getattr(self.names, name))
        if value is None or value == "":
            return math.nan
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise RegionError(Status.CORRUPT, f"{name} is {value!r}, but must be a number") from None
        if math.isnan(number):
            return number
        if not self.low <= number <= self.high:
            raise RegionError(Status.CORRUPT, f"{name} is {number:g}, outside {self.low:g} to {self.high:g}")
        return (number - self.low) / (self.high - self.low)

    def _mask(self, record: Mapping[str, Any], ref: ImageRef) -> str:
        mask, box = _value(record, self.names.rle), _value(record, self.names.box)
        if mask not in (None, "", []):  # an empty polygon is how tools write that there is only a box
            if isinstance(mask, str) and mask.lstrip().startswith(("{", "[")):
                mask = _json_text(mask)
            return from_coco(mask, ref.height, ref.width)
        if isinstance(box, str) and box:
            box = [_number_or_text(word) for word in box.strip("[]() ").replace(",", " ").split()]
        if not box and all(record.get(name) not in (None, "") for name in ("x", "y", "width", "height")):
            box = [_number_or_text(record[name]) for name in ("x", "y", "width", "height")]
        if not isinstance(box, Sequence) or not box:
            raise RegionError(
                Status.MISSING,
                f"no {self.names.rle!r}, {self.names.box!r} or x, y, width, height: it has {sorted(record)[:8]}",
            )
        return from_box(box, ref.height, ref.width)


def table_files(source: RegionSource) -> list[Path]:
    """The files that a source reads whole when it is opened; none of sources that read as they are asked."""
    if not isinstance(source, TableSource):
        return []
    return [path for path in (source.file, source.scores) if path is not None]


def _plain(value: Any) -> str:
    """What JSON does not know but Parquet holds: bytes (run lengths, mostly), times, decimals."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _json_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise RegionError(Status.CORRUPT, f"the mask is no JSON ({error})") from error


def _number_or_text(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def _value(record: Mapping[str, Any], name: str) -> Any:
    """Value under a name with dots; None if it is not there."""
    if name in record:
        return record[name]
    value: Any = record
    for key in name.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


def _field_names(names: Mapping[str, str]) -> FieldNames:
    known = {one.name for one in fields(FieldNames)}
    unknown = sorted(set(names) - known)
    if unknown:
        raise PocketiqaError(f"unknown fields {', '.join(unknown)}: known are {', '.join(sorted(known))}")
    return FieldNames(**names)


def _existing(file: Path | str) -> Path:
    path = Path(file).expanduser()
    if not path.is_file():
        raise PocketiqaError(f"{path} does not exist, or is no file: name the file with the regions")
    if path.suffix.lower() not in (".csv", ".json", ".jsonl", ".parquet"):
        raise PocketiqaError(f"{path} is none of .csv, .json, .jsonl and .parquet: name a file of these kinds")
    return path


class ImageNames:
    """Finds images by what other files call them: id, path or its end, file name, or name without suffix.

    A name that fits several images finds none: guessing would give regions to the wrong one.
    """

    def __init__(self, images: Iterable[ImageRef]):
        self._ids: set[str] = set()
        self._by_name: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        self._by_stem: dict[str, set[str]] = {}
        for ref in images:
            path = local_path(ref.uri)
            parts = PurePosixPath(path).parts if path is not None else (name_of(ref.uri),)
            self._ids.add(ref.id)
            self._by_name.setdefault(name_of(ref.uri), []).append((parts, ref.id))
            self._by_stem.setdefault(PurePosixPath(name_of(ref.uri)).stem, set()).add(ref.id)

    def has_stem(self, name: str) -> bool:
        """Whether an image has this name, suffixes aside."""
        return PurePosixPath(name).stem in self._by_stem

    def find(self, name: str) -> str | None:
        """Id of the image; None if no image, or more than one, fits."""
        if name in self._ids:
            return name
        parts = tuple(part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in (".", "/"))
        if not parts:
            return None
        same = self._by_name.get(parts[-1], [])
        # From the longest end on: "a/1.png" tells two files "1.png" apart; a name alone matches by itself.
        for length in range(len(parts), 0, -1):
            matches = {image for own, image in same if own[-length:] == parts[-length:]}
            if matches:
                return next(iter(matches)) if len(matches) == 1 else None
        stems = self._by_stem.get(parts[-1], set()) | self._by_stem.get(PurePosixPath(parts[-1]).stem, set())
        return next(iter(stems)) if len(stems) == 1 and not same else None


def records_of(path: Path, where: str = "", image_field: str = "image") -> Iterator[tuple[str, dict[str, Any]]]:
    """Records of a file, one at a time, each with the key that it stands under ("" in a list).

    Args:
        path: .csv, .json, .jsonl or .parquet.
        where: keys with dots that lead to the records in a JSON file.
        image_field: name of the image's field, which records of COCO's form are given.

    Raises:
        PocketiqaError: the file is corrupt, or its form is not known; says after how many records.
    """
    done = 0
    try:
        for key, record in _records(path, where, image_field):
            done += 1
            yield key, record
    except (ijson.JSONError, RecursionError, UnicodeDecodeError, ValueError, csv.Error, OSError) as error:
        if isinstance(error, PocketiqaError):
            raise
        where_to = f"behind its first {done} record{'s' if done > 1 else ''}" if done else "from its beginning"
        raise PocketiqaError(f"{path} is corrupt {where_to} ({_fault(error)}): fetch or make the file again") from error


def _fault(error: Exception) -> str:
    """What a reader says of a fault, on one line; of JSON with the text around it."""
    said, *around = str(error).strip().splitlines() or [type(error).__name__]
    near = around[0].strip() if around and isinstance(error, ijson.JSONError) else ""
    if not near:
        return said[:160]
    # Python and others write these, though JSON does not have them.
    hint = "; JSON has no NaN and no Infinity, write null" if re.search("NaN|Infinity", near) else ""
    return f"{said[:160]} near {near[-120:]!r}{hint}"


def _records(path: Path, where: str, image_field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    kind = path.suffix.lower()
    if kind == ".csv":
        # A run-length text may be longer than csv's usual limit of a field.
        csv.field_size_limit(1 << 30)
        with open(path, newline="", encoding="utf-8-sig") as file:
            for record in csv.DictReader(file):
                yield "", {name: value for name, value in record.items() if name is not None}
    elif kind == ".parquet":
        try:
            import pyarrow.parquet as pq
        except ModuleNotFoundError as error:
            raise PocketiqaError(f"{path} needs pyarrow: {install_command('train')}, or give JSON or CSV") from error
        for batch in pq.ParquetFile(path).iter_batches(batch_size=_BATCH, use_threads=False):
            for record in batch.to_pylist():
                yield "", record
    elif kind == ".jsonl":
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield from _as_records("", json.loads(line), f"line {number} of {path}")
    else:
        with open(path, "rb") as file:
            yield from json_records(file, where, image_field, str(path))


def json_records(file: Any, where: str, image_field: str, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Records of a JSON stream; its top, or what ``where`` leads to, is a list or an object.

    Args:
        file: open for reading bytes; a file that can seek where it may be of COCO's form.
        where: keys with dots.
        image_field: see ``records_of``.
        what: name of the stream in errors.

    Raises:
        PocketiqaError: nothing is there, or a record is as large as a file.
        ijson.JSONError: the stream is no JSON.
    """
    if not where and hasattr(file, "seek"):
        keys = _first_keys(file)
        if "annotations" in keys or ("images" in keys and "info" in keys):
            yield from _coco_records(file, image_field)
            return
    events = ijson.parse(file, buf_size=_BUFFER, use_float=True)
    start, single = "", True
    for prefix, event, _ in events:
        if prefix == where and event in ("start_array", "start_map"):
            start, single = event, False
            break
    if single:
        raise PocketiqaError(f"{what} has no list or object at {where or 'its top'!r}: name where the records are")
    key = ""
    for prefix, event, value in events:
        if prefix == where and event in ("end_array", "end_map"):
            return
        if start == "start_map" and prefix == where and event == "map_key":
            key = value
            continue
        yield from _as_records(key, _build(event, value, events, f"{what}, {key or 'a record'}"), what)


def _build(event: str, value: Any, events: Iterator[tuple[str, str, Any]], what: str) -> Any:
    """The value that begins with an event."""
    builder, depth, number = ijson.ObjectBuilder(), 0, 0
    while True:
        builder.event(event, value)
        depth += event.startswith("start_") - event.startswith("end_")
        number += 1
        if depth > _DEEPEST:
            raise PocketiqaError(f"{what}: objects or lists within each other more than {_DEEPEST} deep")
        if number > MOST_VALUES:
            raise PocketiqaError(
                f"{what}: one record has more than {MOST_VALUES} values, so it is not a record: say with path= where "
                "the list of records is"
            )
        if depth == 0:
            return builder.value
        _, event, value = next(events)


def _as_records(key: str, value: Any, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What stands under one key: a record, a box, or a list of either."""
    if isinstance(value, dict):
        yield key, value
    elif isinstance(value, list) and len(value) == 4 and all(isinstance(one, int | float) for one in value):
        yield key, {"box": value}
    elif isinstance(value, list):
        for one in value:
            yield from _as_records(key, one, what)
    elif isinstance(value, str):
        yield key, {"rle": value}
    else:
        raise PocketiqaError(f"{what} holds {value!r:.80} where a record, a box or run lengths are needed")


def _first_keys(file: Any) -> Counter[str]:
    """Keys at the top of an object, up to the first one whose value is large; the stream is rewound."""
    keys: Counter[str] = Counter()
    depth = 0
    for number, (prefix, event, value) in enumerate(ijson.parse(file, buf_size=_BUFFER, use_float=True)):
        if not number and event != "start_map":
            break
        if prefix == "" and event == "map_key":
            keys[value] += 1
        depth += event.startswith("start_") - event.startswith("end_")
        # COCO's files begin with small objects or with the list of images, whose first record tells it.
        if number > 10_000 or depth > _DEEPEST or "annotations" in keys:
            break
        if prefix == "images.item.file_name":
            keys["annotations"] += 1
    file.seek(0)
    return keys


def _coco_records(file: Any, image_field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Instances of COCO's form, with the name of their image; the file is read twice, for its parts have no order."""
    names = {
        image.get("id"): str(image.get("file_name", "")) for image in ijson.items(file, "images.item", use_float=True)
    }
    file.seek(0)
    for annotation in ijson.items(file, "annotations.item", use_float=True):
        image = annotation.get("image_id")
        record = {**annotation, image_field: names.get(image, str(image))}
        record.setdefault("rle", annotation.get("segmentation"))
        record.setdefault("box", annotation.get("bbox"))
        yield "", record


def seagull_100w(folder: Path | str, **options: Any) -> TableSource:
    """The regions and scores of SEAGULL-100w (Chen et al. 2024), from its two JSON files.

    Their field names are published nowhere; give them with ``names``, and where the records are with ``path``.

    Args:
        folder: the data set, or its folder ``Labels``; or the file of the masks alone.
        options: of ``TableSource``.

    Raises:
        PocketiqaError: the files are not there.
    """
    path = Path(folder).expanduser()
    if path.is_file():
        return TableSource(path, name="seagull", **options)
    stem = "SEAGULL-100w_mask-based-rois"
    for labels in (path, path / "Labels"):
        if (labels / f"{stem}.json").is_file():
            scores = sorted(labels.glob("SEAGULL-100w*_scores.json"))
            given: dict[str, Any] = {"scores": scores[0]} if scores else {}
            return TableSource(labels / f"{stem}.json", name="seagull", **{"by_name": True, **given, **options})
    raise PocketiqaError(f"{path} has no Labels/{stem}.json: name the folder of SEAGULL-100w")


def source_named(by: str, file: Path | str | None = None, options: Mapping[str, Any] | None = None) -> RegionSource:
    """A source as the command line names it; SAM's is ``teachers.sam_iqa.masks.SamSource``.

    Args:
        by: ``grid``, ``grid:4x3`` (columns x rows), ``slic``, ``slic:50``, ``boxes``, ``masks``, ``bsds`` or
            ``seagull``; the last four may hold their file, as in ``boxes:FILE``.
        file: file or folder of the last four.
        options: keyword arguments of the source.

    Raises:
        PocketiqaError: an unknown source or option, or a file that is missing or not wanted.
    """
    name, _, value = by.partition(":")
    given: dict[str, Any] = dict(options or {})
    if name in ("grid", "slic"):
        if file is not None:
            raise PocketiqaError(f"--by {name} reads no file, but {file} was given: leave it out")
        given |= _in_name(name, value)
        return called({"grid": Grid, "slic": Slic}[name], name, given)
    if name not in SOURCES or name == "sam":
        raise PocketiqaError(f"unknown source of regions {name!r}: choose {', '.join(SOURCES)}")
    if bool(value) == (file is not None):
        raise PocketiqaError(f"--by {name} needs one file or folder, as in --by {name}:PATH: {SOURCES[name]}")
    makers = {"boxes": TableSource, "masks": MaskFolder, "bsds": Bsds, "seagull": seagull_100w}
    return called(makers[name], name, given, value or file)


def _in_name(name: str, value: str) -> dict[str, Any]:
    parts = value.split("x") if value else []
    keys = ("columns", "rows") if name == "grid" else ("segments",)
    if parts and (len(parts) != len(keys) or not all(part.isdecimal() for part in parts)):
        raise PocketiqaError(f"{name}:{value} is not understood: give such as grid:4x3 (columns x rows) or slic:50")
    return dict(zip(keys, map(int, parts), strict=False))


def called(maker: Callable[..., Any], name: str, options: Mapping[str, Any], *arguments: Any) -> RegionSource:
    """The source that a class or function makes of options.

    Raises:
        PocketiqaError: an unknown option; the known ones are listed.
    """
    try:
        inspect.signature(maker).bind(*arguments, **options)
        return maker(*arguments, **options)
    except TypeError as error:
        known = [one for one in inspect.signature(maker).parameters if one not in ("file", "folder", "name", "options")]
        known += list(inspect.signature(TableSource).parameters)[2:] if name == "seagull" else []
        raise PocketiqaError(f"--by {name}: {error}; its options are: {', '.join(known)}") from error
