"""``pocketiqa score``: rows of the CPU runtime as table, CSV, JSON, JSON lines or Parquet. Base install only."""

import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from distill.commands.resuming import RowRecord, state_of
from distill.commands.scored_regions import Drawings, RegionScorer
from distill.terminal import console
from distill.terminal.console import shown
from pseudo_labels.defaults import MAX_PIXELS
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import checksummed_json, csv_line, explain_write_errors, utf8_path
from pseudo_labels.images import DecodeLimits
from pseudo_labels.outputs import NewFile, new_file
from pseudo_labels.parallel import Progress
from pseudo_labels.records import Status
from pseudo_labels.regions.sources import RegionSource
from students.paths import find_images
from students.regions import RegionResult
from students.runtime import Row, Scorer

FORMATS = ("table", "csv", "jsonl", "json", "parquet")
_ENDINGS = {".txt": "table", ".csv": "csv", ".jsonl": "jsonl", ".json": "json", ".parquet": "parquet"}
_NAMES = "names of images end in .jpg, .png and so on; a file of another name is scored if it is named itself"
# Spreadsheets take a cell that begins with one of these for a formula (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


ScoreMany = Callable[..., Iterator[Row]]
"""As ``Scorer.score_many``."""


def score_paths(
    paths: Sequence[Path],
    model: str | None,
    *,
    recursive: bool,
    workers: int,
    file_format: str | None = None,
    out: Path | None,
    overwrite: bool = False,
    resume: bool = False,
    excel_safe: bool = False,
    max_pixels: int = MAX_PIXELS,
    regions: RegionSource | None = None,
    drawings: Drawings | None = None,
) -> "Tally":
    """Score images and folders and write one record each; arguments as for ``pocketiqa score``.

    Args:
        paths: images and folders.
        model: see ``Scorer``.
        recursive: look into the folders below too.
        workers: images scored at a time.
        file_format: one of ``FORMATS``; None follows the ending of ``out``.
        out: file to write; None is standard output.
        overwrite: replace an earlier file.
        resume: keep rows of an earlier run of the same model and limits whose image files have the same size and time.
        excel_safe: write CSV in which no cell is a formula for a spreadsheet.
        max_pixels: see ``DecodeLimits``.
        regions: gives the regions of each image: each becomes a row below the image's.
        drawings: pictures and heat maps to draw.

    Returns:
        The number of rows, of scores, of regions, and of folders without images, each of which was named in a note.

    Raises:
        PocketiqaError: no such model, no images at all, a format that cannot be written here or is not that of the
            ending, or drawings of a run that resumes.
        OutputConflictError: ``out`` exists already, or is being written by another process.
        WriteError: ``out`` cannot be written; this is tried before the first image is scored.
    """
    limits, drawings = DecodeLimits(max_pixels=max_pixels), drawings or Drawings()
    if resume and drawings:
        raise PocketiqaError("--picture and --map draw what is scored now, and --resume skips images: leave one out")
    file_format = choose_format(file_format, out)
    _check_format(file_format, out, excel_safe=excel_safe, resume=resume)
    with ExitStack() as stack:
        file = None if out is None else stack.enter_context(new_file(out, overwrite=overwrite or resume))
        scorer = Scorer(model, limits=limits)
        images = find_images(paths, recursive=recursive, warn=console.warn)
        empty = empty_folders(paths, images, recursive=recursive)
        if not images:
            raise PocketiqaError("; ".join(empty) or "no images were named: name files and folders")
        for words in empty:
            console.warn(words)
        name = scorer.contract.name
        spec = None if regions is None else {"source": regions.name, **regions.spec()}
        write = partial(
            write_rows,
            file_format=file_format,
            heading=f"scores of {name}, 0 worst, 1 best",
            excel_safe=excel_safe,
            about={"model": {"name": name, "sha256": scorer.digest}, **({"regions": spec} if spec else {})},
            with_regions=regions is not None,
        )
        many: ScoreMany = scorer.score_many
        if regions is not None or drawings:
            by_region = RegionScorer(scorer, regions, drawings, limits)
            stack.enter_context(by_region.opened(images, console.warn))
            many = by_region.score_many
        report = stack.enter_context(console.progress(f"score ({name})", visible=out is not None))
        if file is None or out is None:
            tally = write(many(images, workers=workers, progress=report), out=None)
            tally.empty_folders = len(empty)
            return tally
        record = RowRecord(out, scorer.digest, limits, spec)
        record_left = resume
        try:
            record.resume() if resume and not overwrite else record.start()
            tally = write(_resumed(many, images, record, workers=workers, report=report), out=file)
            record.written(_digest(file))
            tally.empty_folders = len(empty)
            return tally
        except KeyboardInterrupt:
            record_left = True
            raise
        finally:
            record.close(keep=record_left)


def _resumed(
    many: ScoreMany, images: Sequence[Path], record: RowRecord, *, workers: int, report: Progress
) -> Iterator[Row]:
    """Rows of all images in their order, those of the record without scoring them; each new one is recorded."""
    # The state is taken before an image is read: one that changes later is scored again by the next run.
    states = [state_of(image) for image in images]
    known = [record.known(image, state) for image, state in zip(images, states, strict=True)]
    unknown = [image for image, row in zip(images, known, strict=True) if row is None]
    if len(unknown) < len(images):
        console.warn(f"{len(images) - len(unknown)} of {len(images)} images were scored by an earlier run")
    fresh = iter(many(unknown, workers=workers, progress=report))
    for image, state, row in zip(images, states, known, strict=True):
        if row is None:
            row = next(fresh)
            record.add(row, state)
        yield replace(row, path=str(image))
    yield from record.others(images)


def _digest(file: NewFile) -> str:
    with explain_write_errors(file.path or Path()):
        file.file.flush()
        file.file.seek(0)
        return hashlib.file_digest(file.file, "sha256").hexdigest()  # type: ignore[arg-type]


def choose_format(file_format: str | None, out: Path | None) -> str:
    """The format to write: the one that was named, else that of the ending, else the table.

    Raises:
        PocketiqaError: unknown format or ending, or the two contradict each other.
    """
    if file_format is not None and file_format not in FORMATS:
        raise PocketiqaError(f"unknown format {file_format!r}: choose one of {', '.join(FORMATS)}")
    if out is None:
        return file_format or "table"
    by_ending = _ENDINGS.get(out.suffix.lower())
    if file_format is None and by_ending is None:
        raise PocketiqaError(
            f"the ending of {out} names no format: use {', '.join(_ENDINGS)}, or add --format {'|'.join(FORMATS)}"
        )
    if file_format is not None and by_ending not in (None, file_format):
        raise PocketiqaError(
            f"--format {file_format} contradicts the ending of {out}, which is that of {by_ending}: change one of them"
        )
    return file_format or str(by_ending)


def _check_format(file_format: str, out: Path | None, *, excel_safe: bool, resume: bool) -> None:
    if excel_safe and file_format != "csv":
        raise PocketiqaError(f"--excel-safe is for csv and not for {file_format}: leave it out, or write csv")
    if resume and out is None:
        raise PocketiqaError("--resume continues a file: name it with --out FILE")
    if file_format == "parquet" and out is None:
        raise PocketiqaError("parquet is a binary file: name it with --out FILE.parquet")
    if file_format == "parquet":
        _require_pyarrow()


def empty_folders(paths: Sequence[Path], images: Sequence[Path], *, recursive: bool) -> list[str]:
    """Words for each folder among ``paths`` that holds no image, with what to do.

    Args:
        paths: files and folders that a user named.
        images: ``find_images(paths, recursive)``.
        recursive: whether subfolders were entered.
    """
    lines = []
    for folder in paths:
        # An image that another path led to first is not listed below this folder: then it is listed once more.
        if not folder.is_dir() or any(folder in image.parents for image in images) or find_images([folder], recursive):
            continue
        below = 0 if recursive else len(find_images([folder], recursive=True))
        hint = f"but {below} in its subfolders: add --recursive, or name these" if below else "or below it: " + _NAMES
        lines.append(f"no images in {folder} {hint}")
    return lines


@dataclass
class Tally:
    """How many images and regions were written, how many of them have a score, and how many folders held no image."""

    rows: int = 0
    scored: int = 0
    regions: int = 0
    scored_regions: int = 0
    empty_folders: int = 0

    def count(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Count rows on their way through."""
        for row in rows:
            self.rows += 1
            self.scored += row.status == Status.OK
            self.regions += len(row.regions)
            self.scored_regions += sum(region.status == Status.OK for region in row.regions)
            yield row


def write_rows(
    rows: Iterable[Row],
    file_format: str,
    out: NewFile | Path | None,
    *,
    heading: str = "",
    excel_safe: bool = False,
    about: dict[str, Any] | None = None,
    with_regions: bool = False,
) -> Tally:
    """Write a record for each row and each of its regions; CSV and JSON lines as they arrive, the others at the end.

    Args:
        rows: results in the order of the paths.
        file_format: one of ``FORMATS``.
        out: file that is claimed, or a path, of which an earlier file is replaced; None is standard output.
        heading: a line above the table; the other formats, which programs read, hold nothing but records.
        excel_safe: write CSV in which no cell is a formula for a spreadsheet.
        about: facts for the head of a JSON file.
        with_regions: write the columns of regions, see ``_REGION_COLUMNS``.

    Raises:
        PocketiqaError: unknown format, or Parquet without a file.
        WriteError: the file cannot be written.
    """
    choose_format(file_format, None)
    path = out.path if isinstance(out, NewFile) else out
    _check_format(file_format, path, excel_safe=excel_safe, resume=False)
    if isinstance(out, Path):
        with new_file(out, overwrite=True) as file:
            return write_rows(
                rows, file_format, file, heading=heading, excel_safe=excel_safe, about=about, with_regions=with_regions
            )
    tally = Tally()
    counted = tally.count(rows)
    if file_format == "table" and out is None:
        console.out.print(_table(counted, heading, with_regions))
        return tally
    layout = _Layout(with_regions, excel_safe)
    parts = _parts(counted, file_format, layout, heading=heading, about=about or {})
    if out is not None:
        for part in parts:
            out.write(part)
        return tally
    with explain_write_errors(Path("standard output")):
        for part in parts:
            sys.stdout.write(part.decode())
        sys.stdout.flush()
    return tally


@dataclass(frozen=True)
class _Layout:
    """The records of a row, as all formats but the table have them."""

    with_regions: bool
    excel_safe: bool

    @property
    def columns(self) -> tuple[str, ...]:
        return (*_COLUMNS, *_REGION_COLUMNS) if self.with_regions else _COLUMNS

    def records(self, row: Row) -> Iterator[tuple[Any, ...]]:
        """Values of the columns: of the image, then of each of its regions, which have no score."""
        # What the system says of a name may repeat its bytes that are not UTF-8.
        reason = row.reason.encode("utf-8", "backslashreplace").decode()
        path = utf8_path(row.path)
        values = path, row.score, str(row.status), reason
        yield (*values, *[None] * len(_REGION_COLUMNS)) if self.with_regions else values
        for number, region in enumerate(row.regions if self.with_regions else ()):
            reason = region.reason.encode("utf-8", "backslashreplace").decode()
            yield path, None, str(region.status), reason, number, *_values(region)

    def dicts(self, rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
        for row in rows:
            for record in self.records(row):
                yield dict(zip(self.columns, record, strict=True))

    def cells(self, record: Sequence[Any]) -> Iterator[str]:
        """Texts of a record in CSV."""
        for value in record:
            if isinstance(value, list):
                cell = " ".join(map(str, value))
            else:
                cell = "" if value is None else f"{value:.6f}" if isinstance(value, float) else str(value)
            yield _no_formula(cell) if self.excel_safe else cell


def _values(region: RegionResult) -> tuple[float | None, float | None, list[int] | None, float | None]:
    """Quality, importance, box and area of a region; None for what it does not have."""
    numbers = (None if math.isnan(one) else one for one in (region.quality, region.importance, region.area))
    quality, importance, area = numbers
    return quality, importance, list(region.box) if any(region.box) else None, area


def _parts(
    rows: Iterable[Row], file_format: str, layout: _Layout, *, heading: str, about: dict[str, Any]
) -> Iterator[bytes]:
    """The bytes of a file, part by part."""
    whole: dict[str, Callable[[], bytes]] = {
        "table": lambda: console.as_text(_table(rows, heading, layout.with_regions)).encode(),
        "json": lambda: _json(rows, layout, about),
        "parquet": lambda: _parquet(rows, layout),
    }
    if file_format in whole:
        yield whole[file_format]()
    elif file_format == "jsonl":
        for record in layout.dicts(rows):
            yield (json.dumps(record, ensure_ascii=False) + "\n").encode()
    else:
        yield csv_line(layout.columns).encode()
        for row in rows:
            for record in layout.records(row):
                yield csv_line(layout.cells(record)).encode()


def _require_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401 - asked for before hours of scoring, not after
    except ModuleNotFoundError as error:
        raise PocketiqaError("parquet needs pyarrow: pip install pyarrow, or use --format csv or jsonl") from error


_COLUMNS = ("path", "score", "status", "reason")
# Number from 0 within the image; quality; importance; left, top, width and height in pixels; fraction of the image.
_REGION_COLUMNS = ("region", "quality", "importance", "box", "area")


def _no_formula(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _json(rows: Iterable[Row], layout: _Layout, about: dict[str, Any]) -> bytes:
    return checksummed_json({"format": 1, "kind": "scores", **about, "rows": list(layout.dicts(rows))})


def _parquet(rows: Iterable[Row], layout: _Layout) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = pa.float64()
    types = (pa.string(), number, pa.string(), pa.string(), pa.int64(), number, number, pa.list_(pa.int64()), number)
    schema = pa.schema(list(zip(layout.columns, types, strict=False)))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(layout.dicts(rows)), schema), sink)
    return sink.getvalue().to_pybytes()


def _table(rows: Iterable[Row], heading: str, with_regions: bool = False) -> Group:
    more = _REGION_COLUMNS if with_regions else ()
    table = Table("image", "score", *more, "status", "reason", box=None, header_style="bold", pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"  # never cut: a name that is not whole names nothing
    for row in rows:
        # Bytes that are not UTF-8 are escaped here, as control characters are: a person reads this.
        rounded = "" if row.score is None else f"{row.score:.3f}"
        texts = (row.path, rounded, *[""] * len(more), str(row.status), row.reason)
        table.add_row(*(shown(text) for text in texts))
        for number, region in enumerate(row.regions if with_regions else ()):
            quality, importance, box, area = _values(region)
            numbers = ("" if one is None else f"{one:.3f}" for one in (quality, importance))
            texts = (
                "",
                "",
                str(number),
                *numbers,
                " ".join(map(str, box or ())),
                "" if area is None else f"{area:.3f}",
            )
            table.add_row(*(shown(text) for text in (*texts, str(region.status), region.reason)))
    # A line of its own: a table folds its title to its own width.
    return Group(*([Text(shown(heading))] if heading else []), table)
