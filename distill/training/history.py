"""Records of a run: a history that is the same however often it was interrupted, and timings that are not."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pseudo_labels.errors import IntegrityError
from pseudo_labels.files import explain_full_disk

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
        # A longer file is usual after a kill, a shorter one is not: ``commit`` precedes each checkpoint.
        if written < length:
            raise IntegrityError(
                f"{path} has {written} bytes, but the checkpoint has {length}: restore it, "
                "or add --overwrite to start over"
            )
        # The steps of the lines beyond are done again, and write them again.
        with explain_full_disk(path), open(path, "ab") as file:
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
        # fsync acts on the file, not on the descriptor: it flushes what earlier calls wrote as well.
        with explain_full_disk(self._path), open(self._path, "ab") as file:
            os.fsync(file.fileno())


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append one JSON line in one write."""
    # NaN is no JSON: readers in other languages would refuse the whole line.
    line = json.dumps(record, sort_keys=True, allow_nan=False) + "\n"
    # Without a buffer, a killed process leaves the whole line or none. A full disk may leave half of one, which the
    # next resume cuts off.
    with explain_full_disk(path), open(path, "ab", buffering=0) as file:
        file.write(line.encode())


def read_history(path: Path) -> list[dict[str, Any]]:
    """The records of a run's ``history.jsonl``, in order; none if the file is missing."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Mean:
    """Running means of named values, that survive a checkpoint to the last bit."""

    def __init__(self, state: Mapping[str, float] | None = None):
        # Sums and a count, not means: a checkpoint writes float64 with all digits, so adding goes on from the same
        # bits.
        self._sums = dict(state or {})

    def add(self, values: Mapping[str, float]) -> None:
        """Add the values of one step; a value that is not finite is left out of its mean."""
        # One infinite gradient, which fp16 skips, would spoil the mean of all steps, and JSON has no name for it.
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        # The empty name, which no value has, counts the steps; one with a minus sign, the values left out.
        left_out = {_left_out(name): 1.0 for name in values.keys() - finite.keys()}
        for name, value in {**finite, **left_out, "": 1.0}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def state(self) -> dict[str, float]:
        """The sums, for a checkpoint."""
        return dict(self._sums)

    def take(self) -> dict[str, float]:
        """The means since the last call; a value that was finite in no step has none."""
        sums, self._sums = self._sums, {}
        count = sums.pop("", math.nan)
        without = {name: sums.pop(_left_out(name), 0.0) for name in list(sums) if not name.startswith("-")}
        return {name: sums[name] / (count - missing) for name, missing in without.items()}


def _left_out(name: str) -> str:
    return f"-{name}"
