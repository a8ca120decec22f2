"""Records that belong to one model: JSON with a checksum that names the model, and is refused for any other."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pseudo_labels.errors import PocketiqaError, shown
from pseudo_labels.files import checksummed_json, read_record
from students.fields import check_fields

FORMAT = 1
_DIGEST_HEX = 64


@dataclass(frozen=True)
class ModelName:
    """Which model gave the scores of a record.

    Attributes:
        name: as its contract states it, for people.
        sha256: hex SHA-256 of the model (``Scorer.digest``), which decides.
    """

    name: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} ({self.sha256[:12]}...)"

    def as_dict(self) -> dict[str, str]:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Any) -> "ModelName":
        """Inverse of ``as_dict``.

        Raises:
            PocketiqaError: a field is missing or is no text.
        """
        record = check_fields(record, ("name", "sha256"), "model of the record")
        if not all(isinstance(value, str) for value in record.values()) or len(record["sha256"]) != _DIGEST_HEX:
            raise PocketiqaError(f"the model of the record is {shown(record)}: a name and a SHA-256 are needed")
        return cls(**record)

    def check(self, scorer: "ModelName", what: str, command: str) -> None:
        """Refuse a record for scores of another model, whose scale and errors are others.

        Args:
            scorer: the model that scores.
            what: names the record.
            command: the command that makes one for the model that scores, for the error.

        Raises:
            PocketiqaError: they are two models.
        """
        if self.sha256 != scorer.sha256:
            raise PocketiqaError(f"{what} is of model {self} and not of {scorer}, which scores here: {command}")


def record_bytes(kind: str, fields: Mapping[str, Any]) -> bytes:
    """A record as the content of a file, with format version and checksum."""
    return checksummed_json({"format": FORMAT, "kind": kind, **fields})


def read_fields(path: Path, kind: str, names: Collection[str]) -> dict[str, Any]:
    """The fields of a record, verified against its checksum.

    Args:
        path: file.
        kind: kind of the record, as ``record_bytes`` wrote it.
        names: fields that it must have, and has alone.

    Raises:
        PocketiqaError: there is no such file, it is another kind of record or of another format, or has other fields.
        IntegrityError: it is no JSON, or was altered.
    """
    record = read_record(path, what=kind)
    if not isinstance(record, Mapping) or record.get("kind") != kind:
        there = record.get("kind") if isinstance(record, Mapping) else type(record).__name__
        raise PocketiqaError(f"{path} is no {kind}, but {shown(there)}: name a file that pocketiqa wrote as a {kind}")
    if record.get("format") != FORMAT:
        raise PocketiqaError(
            f"the {kind} at {path} has format version {shown(record.get('format'))}, but this pocketiqa reads "
            f"{FORMAT}: upgrade pocketiqa or make it anew"
        )
    return check_fields({key: value for key, value in record.items() if key not in ("format", "kind")}, names, kind)


def rising_numbers(values: Any, what: str, low: float, high: float, *, least: int = 1) -> tuple[float, ...]:
    """A list of JSON numbers that never fall, within bounds.

    Raises:
        PocketiqaError: it is something else; ``what`` names it.
    """
    numbers = [] if not isinstance(values, list) else values
    good = all(isinstance(value, int | float) and not isinstance(value, bool) for value in numbers)
    if not good or len(numbers) < least or not all(low <= one <= high for one in numbers):
        raise PocketiqaError(f"{what} is {shown(values)}: {least} or more numbers from {low:g} to {high:g} are needed")
    if any(one > other for one, other in pairwise(numbers)):
        raise PocketiqaError(f"{what} is {shown(values)}: numbers that do not fall are needed")
    return tuple(map(float, numbers))


def checked(value: Any, kind: type, what: str) -> Any:
    """A JSON value of this kind.

    Raises:
        PocketiqaError: it is of another; ``what`` names it.
    """
    if not isinstance(value, kind):
        raise PocketiqaError(f"{what} is {shown(value)}, but {kind.__name__} is needed: make the record anew")
    return value
