"""What a row of ``pocketiqa score`` says, column by column, for every format: a further column is one entry here.

Columns keep their order and names; new ones come after all others, so that readers by name or by position go on.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from distill.terminal.console import shown
from pseudo_labels.files import utf8_path
from students.contract import StudentContract
from students.regions import RegionResult
from students.runtime import Row

# Spreadsheets take a cell that begins with one of these for a formula (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class Kind(Enum):
    """What the values of a column are; each may be None."""

    PATH = auto()  # of a file, or an address
    TEXT = auto()
    NUMBER = auto()  # float
    WHOLE = auto()  # int
    WHOLES = auto()  # list of int


def _nothing(*_: Any) -> None:
    return None


@dataclass(frozen=True)
class Column:
    """A column of the records.

    Attributes:
        name: in all formats.
        kind: of its values.
        of_image: value in the record of an image.
        of_region: value in the record of a region of it, given its number from 0 as well.
        heading: in the table for persons; empty leaves it out there.
        last: whether it stands behind all others there, as words of any length do.
    """

    name: str
    kind: Kind
    of_image: Callable[[Row], Any] = _nothing
    of_region: Callable[[Row, RegionResult, int], Any] = _nothing
    heading: str = ""
    last: bool = False


IMAGE_COLUMNS = (
    Column("path", Kind.PATH, lambda row: row.path, lambda row, region, number: row.path, heading="image"),
    Column("score", Kind.NUMBER, lambda row: row.score, heading="score"),
    Column(
        "status",
        Kind.TEXT,
        lambda row: str(row.status),
        lambda row, region, number: str(region.status),
        heading="status",
        last=True,
    ),
    Column(
        "reason",
        Kind.TEXT,
        lambda row: row.reason,
        lambda row, region, number: region.reason,
        heading="reason",
        last=True,
    ),
)
"""Of every row."""


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value


# Number from 0 within the image; quality; importance; left, top, width and height in pixels; fraction of the image.
REGION_COLUMNS = (
    Column("region", Kind.WHOLE, of_region=lambda row, region, number: number, heading="region"),
    Column("quality", Kind.NUMBER, of_region=lambda row, region, number: _finite(region.quality), heading="quality"),
    Column(
        "importance",
        Kind.NUMBER,
        of_region=lambda row, region, number: _finite(region.importance),
        heading="importance",
    ),
    Column(
        "box",
        Kind.WHOLES,
        of_region=lambda row, region, number: list(region.box) if any(region.box) else None,
        heading="box",
    ),
    Column("area", Kind.NUMBER, of_region=lambda row, region, number: _finite(region.area), heading="area"),
)
"""Of rows with regions; empty in the record of the image itself."""


def model_columns(name: str, digest: str) -> tuple[Column, ...]:
    """Which model scored, so that a score can be traced; the table says it once, in its heading.

    Args:
        name: of the model, as its contract has it.
        digest: its verified checksum, hex SHA-256 (``Scorer.digest``).
    """

    def constant(column: str, value: str) -> Column:
        return Column(column, Kind.TEXT, lambda row: value, lambda row, region, number: value)

    return constant("model", name), constant("model_sha256", digest)


TYPE_COLUMNS = (
    Column("type", Kind.TEXT, lambda row: None if row.damage is None else row.damage.type, heading="type"),
    Column(
        "strength", Kind.NUMBER, lambda row: None if row.damage is None else row.damage.strength, heading="strength"
    ),
)
"""What is wrong with the image, of models whose file has a head that says it (``students.damage``)."""


def type_columns(wanted: bool, contract: StudentContract) -> tuple[Column, ...]:
    """``TYPE_COLUMNS`` where they are wanted and the model has a head for them; behind all others.

    Args:
        wanted: whether they are.
        contract: of the model.
    """
    return TYPE_COLUMNS if wanted and contract.types is not None else ()


@dataclass(frozen=True)
class Layout:
    """The records of rows, as all formats have them.

    Attributes:
        columns: in the order of the files.
        excel_safe: cells of CSV are no formula for a spreadsheet.
    """

    columns: Sequence[Column] = IMAGE_COLUMNS
    excel_safe: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns."""
        return tuple(column.name for column in self.columns)

    @property
    def _with_regions(self) -> bool:
        return REGION_COLUMNS[0] in self.columns

    def records(self, row: Row) -> Iterator[tuple[Any, ...]]:
        """Values of the columns: of the image, then of each of its regions; texts are valid UTF-8."""
        yield tuple(_stored(column, column.of_image(row)) for column in self.columns)
        for number, region in enumerate(row.regions if self._with_regions else ()):
            yield tuple(_stored(column, column.of_region(row, region, number)) for column in self.columns)

    def dicts(self, row: Row) -> Iterator[dict[str, Any]]:
        """The same, by name."""
        for record in self.records(row):
            yield dict(zip(self.names, record, strict=True))

    def cells(self, record: Sequence[Any]) -> Iterator[str]:
        """Texts of a record in CSV."""
        for value in record:
            if isinstance(value, list):
                cell = " ".join(map(str, value))
            else:
                cell = "" if value is None else f"{value:.6f}" if isinstance(value, float) else str(value)
            # A number below 0 is no formula.
            unsafe = isinstance(value, str) and cell.startswith(_FORMULA)
            yield f"'{cell}" if self.excel_safe and unsafe else cell

    @property
    def shown_columns(self) -> list[Column]:
        """Those of the table for persons, in its order."""
        return sorted((column for column in self.columns if column.heading), key=lambda column: column.last)

    def lines(self, row: Row) -> Iterator[list[str]]:
        """Texts of ``shown_columns``: of the image, then of each region, which does not repeat the name."""
        yield [seen(column, column.of_image(row)) for column in self.shown_columns]
        for number, region in enumerate(row.regions if self._with_regions else ()):
            values = ((column, column.of_region(row, region, number)) for column in self.shown_columns)
            yield ["" if column.kind is Kind.PATH else seen(column, value) for column, value in values]


def _stored(column: Column, value: Any) -> Any:
    if value is not None and column.kind is Kind.PATH:
        return utf8_path(value)
    if value is not None and column.kind is Kind.TEXT:
        # What the system says of a name may repeat its bytes that are not UTF-8.
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def seen(column: Column, value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return ""
    if column.kind is Kind.NUMBER:
        return f"{value:.3f}"
    if column.kind is Kind.WHOLES:
        return " ".join(map(str, value))
    # Bytes that are not UTF-8 are escaped here, as control characters are: a person reads this.
    return shown(str(value))
