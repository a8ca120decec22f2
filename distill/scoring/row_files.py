"""Rows of ``pocketiqa score`` as table, CSV, JSON, JSON lines or Parquet, in a file or on standard output.

Base install only; Parquet needs pyarrow.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from distill.scoring.columns import Kind, Layout
from distill.terminal import console
from distill.terminal.console import shown
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import checksummed_json, csv_line, explain_write_errors
from pseudo_labels.outputs import NewFile, new_file
from pseudo_labels.records import Status
from students.runtime import Row

FORMATS = ("table", "csv", "jsonl", "json", "parquet")
_ENDINGS = {".txt": "table", ".csv": "csv", ".jsonl": "jsonl", ".json": "json", ".parquet": "parquet"}


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


def check_format(file_format: str, out: Path | None, *, excel_safe: bool = False) -> None:
    """Refuse what cannot be written, before anything is scored.

    Raises:
        PocketiqaError: ``excel_safe`` for another format than CSV, Parquet on standard output or without pyarrow.
    """
    if excel_safe and file_format != "csv":
        raise PocketiqaError(f"--excel-safe is for csv and not for {file_format}: leave it out, or write csv")
    if file_format == "parquet" and out is None:
        raise PocketiqaError("parquet is a binary file: name it with --out FILE.parquet")
    if file_format == "parquet":
        _require_pyarrow()


def _require_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401 - asked for before hours of scoring, not after
    except ModuleNotFoundError as error:
        raise PocketiqaError("parquet needs pyarrow: pip install pyarrow, or use --format csv or jsonl") from error


@dataclass
class Tally:
    """What was counted on the way.

    Attributes:
        rows: images that were scored or tried.
        scored: of them, those with a score.
        regions: their regions.
        scored_regions: of them, those with a quality.
        empty_folders: folders, patterns and lists without an image.
        chosen: images whose rows were written.
        all_given: whether all that was asked for besides the rows could be done.
    """

    rows: int = 0
    scored: int = 0
    regions: int = 0
    scored_regions: int = 0
    empty_folders: int = 0
    chosen: int = 0
    all_given: bool = True

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
    layout: Layout | None = None,
    heading: str = "",
    about: dict[str, Any] | None = None,
) -> Tally:
    """Write a record for each row and each of its regions; CSV and JSON lines as they arrive, the others at the end.

    Args:
        rows: results in the order of the paths.
        file_format: one of ``FORMATS``.
        out: file that is claimed, or a path, of which an earlier file is replaced; None is standard output.
        layout: columns; None is those of every row.
        heading: a line above the table; the other formats, which programs read, hold nothing but records.
        about: facts for the head of a JSON file.

    Raises:
        PocketiqaError: unknown format, or Parquet without a file.
        WriteError: the file cannot be written.
    """
    layout = layout or Layout()
    choose_format(file_format, None)
    path = out.path if isinstance(out, NewFile) else out
    check_format(file_format, path, excel_safe=layout.excel_safe)
    if isinstance(out, Path):
        with new_file(out, overwrite=True) as file:
            return write_rows(rows, file_format, file, layout=layout, heading=heading, about=about)
    tally = Tally()
    counted = tally.count(rows)
    if file_format == "table" and out is None:
        console.out.print(_table(counted, layout, heading))
        return tally
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


def _parts(
    rows: Iterable[Row], file_format: str, layout: Layout, *, heading: str, about: dict[str, Any]
) -> Iterator[bytes]:
    """The bytes of a file, part by part."""
    whole: dict[str, Callable[[], bytes]] = {
        "table": lambda: console.as_text(_table(rows, layout, heading)).encode(),
        "json": lambda: _json(rows, layout, about),
        "parquet": lambda: _parquet(rows, layout),
    }
    if file_format in whole:
        yield whole[file_format]()
    elif file_format == "jsonl":
        for row in rows:
            for record in layout.dicts(row):
                yield (json.dumps(record, ensure_ascii=False) + "\n").encode()
    else:
        yield csv_line(layout.names).encode()
        for row in rows:
            for record in layout.records(row):
                yield csv_line(layout.cells(record)).encode()


def _dicts(rows: Iterable[Row], layout: Layout) -> list[dict[str, Any]]:
    return [record for row in rows for record in layout.dicts(row)]


def _json(rows: Iterable[Row], layout: Layout, about: dict[str, Any]) -> bytes:
    return checksummed_json({"format": 1, "kind": "scores", **about, "rows": _dicts(rows, layout)})


def _parquet(rows: Iterable[Row], layout: Layout) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        Kind.PATH: pa.string(),
        Kind.TEXT: pa.string(),
        Kind.NUMBER: pa.float64(),
        Kind.WHOLE: pa.int64(),
        Kind.WHOLES: pa.list_(pa.int64()),
    }
    schema = pa.schema([(column.name, types[column.kind]) for column in layout.columns])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(_dicts(rows, layout), schema), sink)
    return sink.getvalue().to_pybytes()


def _table(rows: Iterable[Row], layout: Layout, heading: str) -> Group:
    headings = [column.heading for column in layout.shown_columns]
    table = Table(*headings, box=None, header_style="bold", pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"  # never cut: a name that is not whole names nothing
    for row in rows:
        for texts in layout.lines(row):
            table.add_row(*texts)
    # A line of its own: a table folds its title to its own width.
    return Group(*([Text(shown(heading))] if heading else []), table)
