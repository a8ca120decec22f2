"""Records of a run: a history that is the same however often it was interrupted, and timings that are not."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from pseudo_labels.errors import IntegrityError
from pseudo_labels.files import checksummed_line, explain_write_errors, read_lines

HISTORY, TIMINGS = "history.jsonl", "timings.jsonl"
Batch = TypeVar("Batch")

# The first step is slow everywhere (memory is set aside, kernels are chosen); those after it say what a step costs.
_FIRST_STEPS = range(2, 7)
_SLOW = 10.0
# Below, a step is a hiccup that costs nobody anything.
_LEAST_SLOW_S = 1.0
_SAY_AGAIN_S = 600.0


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
        # fsync acts on the file, not on the descriptor: it flushes what earlier calls wrote as well.
        with explain_write_errors(self._path), open(self._path, "ab") as file:
            os.fsync(file.fileno())


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append one JSON line with its checksum in one write."""
    line = checksummed_line(record)
    # Buffered: an unbuffered write may end in the middle of the line where the disk is full, without an error. What was
    # written of the line by then is cut off by the next resume.
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


class Clock:
    """Seconds of the steps (validation and checkpoints apart), how long they waited for batches, and which are slow.

    Args:
        now: seconds from any beginning.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._seconds, self._steps, self._waited = 0.0, 0, 0.0
        self._last_s, self._last_waited_s = 0.0, 0.0
        self._first: list[float] = []
        self._number, self._said_s = 0, -math.inf

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time one optimiser step."""
        start, waited = self._now(), self._waited
        yield
        self._last_s, self._last_waited_s = self._now() - start, self._waited - waited
        self._seconds += self._last_s
        self._steps += 1
        self._number += 1
        if self._number in _FIRST_STEPS:
            self._first.append(self._last_s)

    def waiting(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches, while the time it takes to get each is counted."""
        while True:
            start = self._now()
            batch = next(batches)
            self._waited += self._now() - start
            yield batch

    def slow_step(self) -> str:
        """Why the last step took far longer than the first ones of this process, with what to do; at most now and then.

        Returns:
            Words that follow the number of the step; empty if it was not slow, or that was said a moment ago.
        """
        if self._number < _FIRST_STEPS.stop or self._now() - self._said_s < _SAY_AGAIN_S:
            return ""
        usual_s = median(self._first)
        if self._last_s < max(_LEAST_SLOW_S, _SLOW * usual_s):
            return ""
        self._said_s = self._now()
        if self._last_waited_s > self._last_s / 2:
            cause = f"{self._last_waited_s:.3g} s of it waiting for images: another program uses the disk or the memory"
        else:
            cause = "other programs use the processor (or the GPU)"
        return (
            f"took {self._last_s:.3g} s, {self._last_s / usual_s:.0f} times as long as the first ones "
            f"({usual_s:.2g} s): {cause}; end them, or press Ctrl-C (a checkpoint is written) and repeat the command "
            "when they are done, or with 'threads: 1' for this training, which suffers least and rounds otherwise"
        )

    def take(self, batch_size: int) -> dict[str, float]:
        """Seconds, images a second and seconds of waiting since the last call."""
        numbers = {
            "seconds": round(self._seconds, 4),
            "images_per_s": round(self._steps * batch_size / self._seconds, 3),
            "waited_s": round(self._waited, 4),
        }
        self._seconds, self._steps, self._waited = 0.0, 0, 0.0
        return numbers
