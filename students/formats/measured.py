"""What was measured of the forms of a student."""

from dataclasses import dataclass

from students.formats.agreement import Agreement
from students.formats.timing import Timed


@dataclass(frozen=True)
class Row:
    """One form, run by one engine.

    Attributes:
        name: format, such as ``onnx-int8``.
        engine: what ran it.
        size_bytes: size of the file; 0 if there is none.
        agreement: how its scores follow those of the float file in ONNX Runtime.
        network: processor time of the network alone, on a square of the student's largest side.
        whole: processor time from the bytes of a JPEG of 512x512 pixels to its score.
        missing: why it could not be made or run here; empty if it was.
    """

    name: str
    engine: str
    size_bytes: int = 0
    agreement: Agreement | None = None
    network: Timed | None = None
    whole: Timed | None = None
    missing: str = ""


@dataclass(frozen=True)
class Measured:
    """All forms of one student.

    Attributes:
        model: its name.
        digest: hex SHA-256 of the float model.
        rows: the float file in ONNX Runtime first.
        machine: processor, and its instructions that matter here.
        load: processes that wanted to run in the last minute, for each core; above 1, times of the clock mean little.
    """

    model: str
    digest: str
    rows: tuple[Row, ...]
    machine: str
    load: float
