"""``pocketiqa score``: rows of the CPU runtime as table, CSV, JSON, JSON lines or Parquet. Base install only."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from distill.commands.resuming import RowRecord, state_of
from distill.terminal import console
from distill.terminal.console import shown
from pseudo_labels.defaults import MAX_PIXELS
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import checksummed_json, csv_line, explain_write_errors, utf8_path
from pseudo_labels.images import DecodeLimits
from pseudo_labels.outputs import NewFile, new_file
from pseudo_labels.parallel import Progress
from pseudo_labels.records import Status
from students.paths import find_images
from students.runtime import Row, Scorer

FORMATS = ("table", "csv", "jsonl", "json", "parquet")
_ENDINGS = {".txt": "table", ".csv": "csv", ".jsonl": "jsonl", ".json": "json", ".parquet": "parquet"}
_NAMES = "names of images end in .jpg, .png and so on; a file of another name is scored if it is named itself"
# Spreadsheets take a cell that begins with one of these for a formula (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


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

    Returns:
        The number of rows, of scores, and of folders without images, each of which was named in a note.

    Raises:
        PocketiqaError: no such model, no images at all, or a format that cannot be written here or is not that of the
            ending.
        OutputConflictError: ``out`` exists already, or is being written by another process.
        WriteError: ``out`` cannot be written; this is tried before the first image is scored.
    """
    limits = DecodeLimits(max_pixels=max_pixels)
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
        write = partial(
            write_rows,
            file_format=file_format,
            heading=f"scores of {name}, 0 worst, 1 best",
            excel_safe=excel_safe,
            about={"model": {"name": name, "sha256": scorer.digest}},
        )
        report = stack.enter_context(console.progress(f"score ({name})", visible=out is not None))
        if file is None or out is None:
            tally = write(scorer.score_many(images, workers=workers, progress=report), out=None)
            tally.empty_folders = len(empty)
            return tally
        record = RowRecord(out, scorer.digest, limits)
        record_left = resume
        try:
            record.resume() if resume and not overwrite else record.start()
            tally = write(_resumed(scorer, images, record, workers=workers, report=report), out=file)
            record.written(_digest(file))
            tally.empty_folders = len(empty)
            return tally
        except KeyboardInterrupt:
            record_left = True
            raise
        finally:
            record.close(keep=record_left)


def _resumed(
    scorer: Scorer, images: Sequence[Path], record: RowRecord, *, workers: int, report: Progress
) -> Iterator[Row]:
    """Rows of all images in their order, those of the record without scoring them; each new one is recorded."""
    # The state is taken before an image is read: one that changes later is scored again by the next run.
    states = [state_of(image) for image in images]
    known = [record.known(image, state) for image, state in zip(images, states, strict=True)]
    unknown = [image for image, row in zip(images, known, strict=True) if row is None]
    if len(unknown) < len(images):
        console.warn(f"{len(images) - len(unknown)} of {len(images)} images were scored by an earlier run")
    fresh = scorer.score_many(unknown, workers=workers, progress=report)
    for image, state, row in zip(images, states, known, strict=True):
        if row is None:
            row = next(fresh)
            record.add(row, state)
        yield Row(str(image), row.score, row.status, row.reason)
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
    """How many rows were written, how many of them have a score, and how many folders held no image."""

    rows: int = 0
    scored: int = 0
    empty_folders: int = 0

    def count(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Count rows on their way through."""
        for row in rows:
            self.rows += 1
            self.scored += row.status == Status.OK
            yield row


def write_rows(
    rows: Iterable[Row],
    file_format: str,
    out: NewFile | Path | None,
    *,
    heading: str = "",
    excel_safe: bool = False,
    about: dict[str, Any] | None = None,
) -> Tally:
    """Write one record a row; CSV and JSON lines as they arrive, the others at the end.

    Args:
        rows: results in the order of the paths.
        file_format: one of ``FORMATS``.
        out: file that is claimed, or a path, of which an earlier file is replaced; None is standard output.
        heading: a line above the table; the other formats, which programs read, hold nothing but records.
        excel_safe: write CSV in which no cell is a formula for a spreadsheet.
        about: facts for the head of a JSON file.

    Raises:
        PocketiqaError: unknown format, or Parquet without a file.
        WriteError: the file cannot be written.
    """
    choose_format(file_format, None)
    path = out.path if isinstance(out, NewFile) else out
    _check_format(file_format, path, excel_safe=excel_safe, resume=False)
    if isinstance(out, Path):
        with new_file(out, overwrite=True) as file:
            return write_rows(rows, file_format, file, heading=heading, excel_safe=excel_safe, about=about)
    tally = Tally()
    counted = tally.count(rows)
    if file_format == "table" and out is None:
        console.out.print(_table(counted, heading))
        return tally
    parts = _parts(counted, file_format, heading=heading, excel_safe=excel_safe, about=about or {})
    if out is not None:
        for part in parts:
            out.write(part)
        return tally
    with explain_write_errors(Path("standard output")):
        for part in parts:
            sys.stdout.write(part.decode())
        sys.stdout.flush()
    return tally


def _parts(
    rows: Iterable[Row], file_format: str, *, heading: str, excel_safe: bool, about: dict[str, Any]
) -> Iterator[bytes]:
    """The bytes of a file, part by part."""
    whole: dict[str, Callable[[], bytes]] = {
        "table": lambda: console.as_text(_table(rows, heading)).encode(),
        "json": lambda: _json(rows, about),
        "parquet": lambda: _parquet(rows),
    }
    if file_format in whole:
        yield whole[file_format]()
    elif file_format == "jsonl":
        for row in rows:
            yield (json.dumps(dict(zip(_COLUMNS, _fields(row), strict=True)), ensure_ascii=False) + "\n").encode()
    else:
        yield csv_line(_COLUMNS).encode()
        for row in rows:
            path, score, status, reason = _fields(row)
            cells = (path, "" if score is None else f"{score:.6f}", status, reason)
            yield csv_line(map(_no_formula, cells) if excel_safe else cells).encode()


def _require_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401 - asked for before hours of scoring, not after
    except ModuleNotFoundError as error:
        raise PocketiqaError("parquet needs pyarrow: pip install pyarrow, or use --format csv or jsonl") from error


_COLUMNS = ("path", "score", "status", "reason")


def _fields(row: Row) -> tuple[str, float | None, str, str]:
    # What the system says of a name may repeat its bytes that are not UTF-8.
    reason = row.reason.encode("utf-8", "backslashreplace").decode()
    return utf8_path(row.path), row.score, str(row.status), reason


def _no_formula(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _json(rows: Iterable[Row], about: dict[str, Any]) -> bytes:
    records = [dict(zip(_COLUMNS, _fields(row), strict=True)) for row in rows]
    return checksummed_json({"format": 1, "kind": "scores", **about, "rows": records})


def _parquet(rows: Iterable[Row]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = (pa.string(), pa.float64(), pa.string(), pa.string())
    schema = pa.schema(list(zip(_COLUMNS, types, strict=True)))
    columns = [list(column) for column in zip(*map(_fields, rows), strict=True)] or [[], [], [], []]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=schema), sink)
    return sink.getvalue().to_pybytes()


def _table(rows: Iterable[Row], heading: str) -> Group:
    table = Table("image", "score", "status", "reason", box=None, header_style="bold", pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"  # never cut: a name that is not whole names nothing
    for row in rows:
        # Bytes that are not UTF-8 are escaped here, as control characters are: a person reads this.
        rounded = "" if row.score is None else f"{row.score:.3f}"
        table.add_row(*(shown(text) for text in (row.path, rounded, str(row.status), row.reason)))
    # A line of its own: a table folds its title to its own width.
    return Group(*([Text(shown(heading))] if heading else []), table)
