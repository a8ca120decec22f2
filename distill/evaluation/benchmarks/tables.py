"""Label files of all kinds as lists of dictionaries, with errors that name the file, the row and the column."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from pseudo_labels.errors import PocketiqaError, install_command

Row = dict[str, str]


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


def read_csv(path: Path, columns: Iterable[str]) -> list[Row]:
    """Rows of a CSV file with a header; empty lines are left out, names and values stripped.

    Args:
        path: UTF-8 text, with or without a byte order mark.
        columns: names of the columns that are required.

    Raises:
        PocketiqaError: the file cannot be read or lacks a column.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = [name.strip() for name in reader.fieldnames or () if name]
            records = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PocketiqaError(f"{path} cannot be read as CSV: {error}") from error
    _require(path, header, columns)
    # The key None collects values beyond the header; the value None stands for those that a short row lacks.
    rows = [{key.strip(): (value or "").strip() for key, value in record.items() if key} for record in records]
    return [row for row in rows if any(row.values())]


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
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError as error:
        raise PocketiqaError(
            f"reading {path.name} needs openpyxl: {install_command('train')}, or save the sheet as CSV"
        ) from error
    try:
        workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (OSError, ValueError, KeyError, BadZipFile, InvalidFileException) as error:
        raise PocketiqaError(f"{path} cannot be read as an Excel file: {error}") from error
    try:
        if sheet is not None and sheet not in workbook.sheetnames:
            raise PocketiqaError(f"{path} has no sheet {sheet!r}: it has {', '.join(workbook.sheetnames)}")
        cells = workbook[sheet] if sheet is not None else workbook.worksheets[0]
        table = [[_text(value) for value in row] for row in cells.iter_rows(values_only=True)]
    finally:
        workbook.close()
    return _below_header(path, table, columns)


def _text(value: Any) -> str:
    # Excel stores the image name 1600 as the number 1600.0.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()


def _below_header(path: Path, table: list[list[str]], columns: Iterable[str]) -> list[Row]:
    wanted = set(columns)
    # Published sheets have titles and empty rows above the table: its header is the first row with all names.
    for position, cells in enumerate(table):
        if wanted <= set(cells):
            rows = (
                {key: value for key, value in zip(cells, row, strict=False) if key} for row in table[position + 1 :]
            )
            return [row for row in rows if any(row[column] for column in wanted)]
    raise PocketiqaError(f"{path} has no row with the column names {', '.join(sorted(wanted))}")


def _require(path: Path, header: Sequence[str], columns: Iterable[str]) -> None:
    missing = [column for column in columns if column not in header]
    if missing:
        given = ", ".join(header) or "none"
        raise PocketiqaError(f"{path} lacks the column {missing[0]!r}: it has {given}")


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
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise PocketiqaError(f"{path}, data row {position + 1}: {column} is {row[column]!r}, but a number is needed")
    return value
