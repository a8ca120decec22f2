"""``pocketiqa score``: rows of the CPU runtime as a table, CSV, JSON lines or Parquet. Base install only."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rich.console import Group
from rich.table import Table
from rich.text import Text

from distill.terminal import console
from pseudo_labels.defaults import MAX_PIXELS
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import DecodeLimits
from pseudo_labels.outputs import refuse_existing
from pseudo_labels.records import Status
from students.paths import find_images
from students.runtime import Row, Scorer

FORMATS = ("table", "csv", "jsonl", "parquet")


def score_paths(
    paths: Sequence[Path],
    model: str | None,
    *,
    recursive: bool,
    workers: int,
    file_format: str,
    out: Path | None,
    overwrite: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> "Tally":
    """Score images and folders and write one record each; arguments as for ``pocketiqa score``.

    Returns:
        The number of rows, of scores, and of folders without images, each of which was named in a note.

    Raises:
        PocketiqaError: no such model, no images at all, or a format that cannot be written here.
        OutputConflictError: ``out`` exists already.
    """
    if out is not None:
        refuse_existing(out, overwrite=overwrite)
    scorer = Scorer(model, limits=DecodeLimits(max_pixels=max_pixels))
    images = find_images(paths, recursive=recursive, warn=console.warn)
    empty = empty_folders(paths, images, recursive=recursive)
    if not images:
        raise PocketiqaError("; ".join(empty) or "no images were named: name files and folders")
    for words in empty:
        console.warn(words)
    name = scorer.contract.name
    with console.progress(f"score ({name})", visible=out is not None) as report:
        rows = scorer.score_many(images, workers=workers, progress=report)
        tally = write_rows(rows, file_format, out, heading=f"scores of {name}, 0 worst, 1 best")
    tally.empty_folders = len(empty)
    return tally


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


_NAMES = "names of images end in .jpg, .png and so on; a file of another name is scored if it is named itself"


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


def write_rows(rows: Iterable[Row], file_format: str, out: Path | None, *, heading: str = "") -> Tally:
    """Write one record a row as it arrives (the table and Parquet: at the end).

    Args:
        rows: results in the order of the paths.
        file_format: one of ``FORMATS``.
        out: file to write; None is standard output.
        heading: a line above the table; the other formats, which programs read, hold nothing but records.

    Raises:
        PocketiqaError: unknown format, or Parquet without a file.
    """
    if file_format not in FORMATS:
        raise PocketiqaError(f"unknown format {file_format!r}: choose one of {', '.join(FORMATS)}")
    if file_format == "parquet" and out is None:
        raise PocketiqaError("parquet is a binary file: name it with --out FILE.parquet")
    if file_format == "parquet":
        _require_pyarrow()
    tally = Tally()
    if file_format == "table":
        _write_table(tally.count(rows), out, heading)
    else:
        _WRITERS[file_format](tally.count(rows), out)
    return tally


def _require_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401 - asked for before hours of scoring, not after
    except ModuleNotFoundError as error:
        raise PocketiqaError("parquet needs pyarrow: pip install pyarrow, or use --format csv or jsonl") from error


def _fields(row: Row) -> tuple[str, float | None, str, str]:
    # A name that is not UTF-8 is written with the replacement character: the files must stay readable anywhere.
    path = str(row.path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return path, row.score, str(row.status), row.reason


_COLUMNS = ("path", "score", "status", "reason")


@contextmanager
def _opened(out: Path | None) -> Iterator[IO[str]]:
    if out is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    # Written beside and renamed: an interrupted run leaves no half file under the final name.
    beside = out.with_name(f".{out.name}.part")
    with open(beside, "w", encoding="utf-8", newline="") as file:
        yield file
    beside.replace(out)


def _write_csv(rows: Iterable[Row], out: Path | None) -> None:
    with _opened(out) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for row in rows:
            path, score, status, reason = _fields(row)
            writer.writerow((path, "" if score is None else f"{score:.6f}", status, reason))


def _write_jsonl(rows: Iterable[Row], out: Path | None) -> None:
    with _opened(out) as file:
        for row in rows:
            file.write(json.dumps(dict(zip(_COLUMNS, _fields(row), strict=True)), ensure_ascii=False) + "\n")


def _write_parquet(rows: Iterable[Row], out: Path | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert out is not None  # checked by write_rows
    types = (pa.string(), pa.float64(), pa.string(), pa.string())
    schema = pa.schema(list(zip(_COLUMNS, types, strict=True)))
    columns = [list(column) for column in zip(*map(_fields, rows), strict=True)] or [[], [], [], []]
    pq.write_table(pa.table(columns, schema=schema), out)


def _write_table(rows: Iterable[Row], out: Path | None, heading: str) -> None:
    table = Table("image", "score", "status", "reason", box=None, header_style="bold", pad_edge=False)
    for row in rows:
        path, score, status, reason = _fields(row)
        rounded = "" if score is None else f"{score:.3f}"
        table.add_row(*(_plain(text) for text in (path, rounded, status, reason)))
    # A line of its own: a table folds its title to its own width.
    shown = Group(*([Text(heading.replace("\n", " "))] if heading else []), table)
    if out is None:
        console.out.print(shown)
        return
    text = io.StringIO()
    console.Console(file=text, width=160, highlight=False).print(shown)
    with _opened(out) as file:
        file.write(text.getvalue())


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text.replace("\n", "\\n"))


_WRITERS: dict[str, Callable[[Iterable[Row], Path | None], None]] = {
    "csv": _write_csv,
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
}
