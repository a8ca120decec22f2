"""Records of a run: a history that is the same however often it was interrupted, and timings that are not."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pseudo_labels.errors import IntegrityError
from pseudo_labels.files import checksummed_line, explain_write_errors, read_lines

HISTORY, TIMINGS = "history.jsonl", "timings.jsonl"


class History:
    """JSON lines, appended; cut back to the length in the checkpoint when a run is resumed."""

    def __init__(self, path: Path, length: int = 0):
        """Open the file and drop everything after ``length`` bytes.

        Raises:
            IntegrityError: the file is shorter than that.
        """
        self._path = path
        written = path.stat().st_size if path.exists() else 0
        if written < length:
            raise IntegrityError(
                f"{path} has {written} bytes, but the checkpoint has {length}: restore it, "
                "or add --overwrite to start over"
            )
        with explain_write_errors(path), open(path, "ab") as file:
            file.truncate(length)

    @property
    def length(self) -> int:
        """Bytes written so far."""
        return self._path.stat().st_size

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line."""
        append_line(self._path, record)

    def commit(self) -> None:
        """Make sure that what was appended survives a crash of the machine."""
        with explain_write_errors(self._path), open(self._path, "ab") as file:
            os.fsync(file.fileno())


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append one JSON line with its checksum in one write."""
    line = checksummed_line(record)
    # Buffered: an unbuffered write may end in the middle of the line where the disk is full, without an error.
    with explain_write_errors(path), open(path, "ab") as file:
        file.write(line)


def read_history(path: Path) -> list[dict[str, Any]]:
    """The records of a run's ``history.jsonl``, in order; none if the file is missing.

    Raises:
        IntegrityError: a line was altered.
    """
    return read_lines(path, what="history") if path.exists() else []


class Mean:
    """Running means of named values, that survive a checkpoint to the last bit."""

    def __init__(self, state: Mapping[str, float] | None = None):
        self._sums = dict(state or {})

    def add(self, values: Mapping[str, float]) -> None:
        """Add the values of one step."""
        for name, value in {**values, "": 1.0}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def state(self) -> dict[str, float]:
        """The sums, for a checkpoint."""
        return dict(self._sums)

    def take(self) -> dict[str, float]:
        """The means since the last call."""
        count = self._sums.pop("", math.nan)
        means = {name: total / count for name, total in self._sums.items()}
        self._sums = {}
        return means
