"""Label files of all kinds as lists of dictionaries, with errors that name the file, the row and the column."""

import codecs
import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pseudo_labels.errors import PocketiqaError, install_command
from pseudo_labels.foreign import foreign_format

Row = dict[str, str]

_SEPARATORS = (",", ";", "\t", "|")
_HEADER_LETTERS = 4
# Letters of what a file says, or of another's complaint, that a message repeats.
_LONGEST_REASON = 200
# Letters of a value: far above any name of an image. Messages repeat values.
_LONGEST_VALUE = 1000
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?(?:[eE][+-]?\d+)?")
_WITH_COMMA = re.compile(r"[+-]?\d+(?:,\d+)?(?:[eE][+-]?\d+)?")
_MAYBE_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")


def find_file(root: Path, names: Sequence[str], *, benchmark: str, source: str) -> Path:
    """The first of ``names`` (paths below ``root``) that exists.

    Args:
        root: folder of the benchmark.
        names: file names, the preferred one first.
        benchmark: name of the benchmark, for the error.
        source: where to get the data set, for the error.

    Raises:
        PocketiqaError: none exists.
    """
    for name in names:
        if (root / name).is_file():
            return root / name
    listed = " or ".join(repr(name) for name in names)
    raise PocketiqaError(
        f"benchmark {benchmark}: no {listed} in {root}; get the data set from {source} and unpack it there"
    )


def find_folder(root: Path, names: Sequence[str], *, benchmark: str) -> Path:
    """The first of the folders ``names`` below ``root`` that exists.

    Raises:
        PocketiqaError: none exists.
    """
    for name in names:
        if (root / name).is_dir():
            return root / name
    listed = " or ".join(repr(name) for name in names)
    raise PocketiqaError(f"benchmark {benchmark}: no folder {listed} in {root}; the images belong there")


def read_text(path: Path) -> str:
    """The text of a label file: UTF-8, or UTF-16 and UTF-32 as spreadsheets write them; without a byte order mark.

    Raises:
        PocketiqaError: the file cannot be read or is no such text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PocketiqaError(f"{path} cannot be read: {error.strerror}") from error
    is_zip = content.startswith(b"PK\x03\x04")
    foreign = "an Excel file, it seems: save its sheet as CSV in UTF-8" if is_zip else foreign_format(content)
    if foreign:
        raise PocketiqaError(f"{path} is no table of text but {foreign}")
    try:
        return content.decode(_encoding(content))
    except UnicodeDecodeError as error:
        raise PocketiqaError(
            f"{path} cannot be read as text: byte {error.start} ({content[error.start]:#x}) is not {error.encoding}; "
            "save the file as CSV in UTF-8"
        ) from error


def _encoding(content: bytes) -> str:
    marks = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"))
    marks += ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
    for mark, encoding in marks:
        if content.startswith(mark):
            return encoding
    # Without a mark: the letters of a header are ASCII, so every other byte is zero.
    begin = content[: 2 * _HEADER_LETTERS]
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(begin) == 2 * _HEADER_LETTERS and not any(begin[first::2]) and all(begin[1 - first :: 2]):
            return encoding
    return "utf-8"


def read_csv(path: Path, columns: Iterable[str], optional: Iterable[str] = ()) -> list[Row]:
    """Rows of a CSV file with a header; empty lines are left out, names and values stripped.

    The separator is the one that Excel's line ``sep=;`` names, else that of comma, semicolon, tab and bar by which the
    header has the columns. Names of columns match in any case, and with spaces or hyphens for underscores. A column of
    numbers that are all written with a decimal comma is given with points.

    Args:
        path: see ``read_text``.
        columns: names of the columns that are required; rows have them as written here.
        optional: names of further columns that are looked for in the same way.

    Raises:
        PocketiqaError: the file cannot be read, lacks a column or has it twice, or a row has more values than the
            header.
    """
    columns, lines = list(columns), list(io.StringIO(read_text(path), newline=""))
    while lines and not lines[0].strip():
        del lines[0]
    declared = re.fullmatch(r"\s*\"?sep=(.)\"?\s*", lines[0], re.IGNORECASE) if lines else None
    if declared:
        del lines[0]
    separators = (declared[1],) if declared else _SEPARATORS
    records: list[list[str]] = []
    try:
        separator = next((own for own in separators if _has(_header(lines, own), columns)), separators[0])
        # Strict, or a quotation mark that is never closed would take all further rows into one value.
        for record in csv.reader(lines, delimiter=separator, strict=True):
            records.append(record)
    except (csv.Error, TypeError, ValueError) as error:
        row = f"row {len(records) + 1}, counted with the header"
        raise PocketiqaError(f"{path} cannot be read as CSV: {row}: {error}; is a quotation mark lost?") from error
    return _rows(path, records, columns, optional) if records else _require(path, [], columns)


def _header(lines: Sequence[str], separator: str) -> list[str]:
    return next(csv.reader(lines, delimiter=separator), [])


def _has(header: Iterable[str], columns: Iterable[str]) -> bool:
    return {_normal(name) for name in columns} <= {_normal(name) for name in header}


def _normal(name: str) -> str:
    """A column's name as it is compared."""
    return re.sub(r"[\s_-]+", "_", name.strip()).casefold()


def _rows(
    path: Path, records: Sequence[Sequence[str]], columns: Sequence[str], optional: Iterable[str] = ()
) -> list[Row]:
    """The rows below the header, which is the first record."""
    header = [name.strip() for name in records[0]]
    _require(path, header, columns)
    wanted = {_normal(name): name for name in (*optional, *columns)}
    for normal, name in wanted.items():
        positions = [position for position, own in enumerate(header, start=1) if _normal(own) == normal]
        if len(positions) > 1:
            both = " and ".join(map(str, positions))
            raise PocketiqaError(f"{path} has {name!r} as columns {both}: rename or remove all but one")
    keys = [wanted.get(_normal(name), name) for name in header]
    rows = []
    for record in records[1:]:
        values = [value.strip() for value in record]
        row = {key: value for key, value in zip_longest(keys, values[: len(keys)], fillvalue="") if key}
        if any(row.values()):
            rows.append(row)
            long = next((key for key in wanted.values() if len(row.get(key, "")) > _LONGEST_VALUE), None)
            if long is not None:
                raise PocketiqaError(
                    f"{path}, data row {len(rows)}: {long} has {len(row[long])} letters, but at most {_LONGEST_VALUE} "
                    "are read: is a quotation mark or a line end lost?"
                )
            if any(values[len(keys) :]):
                raise PocketiqaError(
                    f"{path}, data row {len(rows)}: {len(values)} values for {len(keys)} columns; put values that "
                    "contain the separator, such as numbers with a decimal comma, in quotation marks"
                )
    for column in columns:
        _with_points(path, rows, column)
    return rows


def _with_points(path: Path, rows: Sequence[Row], column: str) -> None:
    """Write the numbers of a column with decimal points, where all of them are written with commas."""
    values = [row[column] for row in rows if row[column]]
    if not any("," in value for value in values) or not all(map(_WITH_COMMA.fullmatch, values)):
        return
    unclear = [value for value in values if "," in value]
    if all(map(_MAYBE_THOUSANDS.fullmatch, unclear)):
        raise PocketiqaError(
            f"{path}: {column} {unclear[0]!r} may be {unclear[0].replace(',', '.')} or {unclear[0].replace(',', '')}: "
            "write decimals with a point, and thousands without a mark"
        )
    for row in rows:
        row[column] = row[column].replace(",", ".")


def read_sheet(path: Path, sheet: str | None, columns: Iterable[str]) -> list[Row]:
    """Rows of one sheet of an Excel file, below the first row that holds all ``columns``.

    Args:
        path: path of an .xlsx file.
        sheet: name of the sheet; the first sheet if None.
        columns: names of the columns that are required.

    Raises:
        PocketiqaError: openpyxl is not installed, or the file has no such sheet or header.
    """
    try:
        import openpyxl  # only the two benchmarks that are published as sheets need it
    except ImportError as error:
        raise PocketiqaError(
            f"reading {path.name} needs openpyxl: {install_command('train')}, or save the sheet as CSV"
        ) from error
    try:
        workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            if sheet is not None and sheet not in workbook.sheetnames:
                raise PocketiqaError(f"{path} has no sheet {sheet!r}: it has {', '.join(workbook.sheetnames)}")
            cells = workbook[sheet] if sheet is not None else workbook.worksheets[0]
            # Read here: of a corrupt file openpyxl complains only when it comes to its cells.
            table = [[_text(value) for value in row] for row in cells.iter_rows(values_only=True)]
        finally:
            workbook.close()
    except PocketiqaError:
        raise
    except Exception as error:  # of zip, zlib, XML and openpyxl itself, which share no base class
        reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
        raise PocketiqaError(
            f"{path} cannot be read as an Excel file: {reason}; get it again, or save its sheet as CSV"
        ) from error
    return _below_header(path, table, columns)


def _text(value: Any) -> str:
    # Excel stores the image name 1600 as the number 1600.0.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()


def _below_header(path: Path, table: list[list[str]], columns: Iterable[str]) -> list[Row]:
    columns = list(columns)
    # Published sheets have titles and empty rows above the table: its header is the first row with all names.
    for position, cells in enumerate(table):
        if _has(cells, columns):
            return [row for row in _rows(path, table[position:], columns) if any(row[column] for column in columns)]
    raise PocketiqaError(f"{path} has no row with the column names {', '.join(sorted(columns))}")


def _require(path: Path, header: Sequence[str], columns: Iterable[str]) -> list[Row]:
    """No rows, if the header has all columns."""
    missing = [column for column in columns if not _has(header, [column])]
    if missing:
        given = ", ".join(name for name in header if name) or "none"
        given = given if len(given) <= _LONGEST_VALUE else given[:_LONGEST_VALUE] + "..."
        hint = "; its first line must name the columns" if any(map(_NUMBER.fullmatch, header)) else ""
        raise PocketiqaError(f"{path} lacks the column {missing[0]!r}: it has {given}{hint}")
    return []


def number(row: Mapping[str, str], column: str, *, path: Path, position: int) -> float:
    """The finite number in ``column``.

    Args:
        row: row of the table.
        column: name of the column.
        path: path of the table, for the error.
        position: index of the row, counted from 0, for the error.

    Raises:
        PocketiqaError: it is not a number, or not finite.
    """
    text = row[column]
    try:
        value = float("" if "_" in text else text)  # Python alone takes 1_0 for 10
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        hint = "; write all decimals of a column with points, or all with commas" if "," in text else ""
        shown = repr(text[:_LONGEST_REASON]) + ("..." if len(text) > _LONGEST_REASON else "")
        raise PocketiqaError(f"{path}, data row {position + 1}: {column} is {shown}, but a number is needed{hint}")
    return value
