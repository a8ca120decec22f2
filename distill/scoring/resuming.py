"""Rows of ``pocketiqa score --out FILE`` as they are made, so that ``--resume`` need not score an image again.

The hidden file ``.FILE.rows`` beside ``FILE`` holds one JSON record a line, each with a checksum: first the model and
the limits of decoding, then a row for each image that was scored, with the size and time of its file; and, before
``FILE`` is written, its SHA-256. A killed run leaves it. A run that ends removes it, unless it was called with
``--resume``.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from distill.scoring.inputs import ImageSource
from pseudo_labels.errors import OutputConflictError
from pseudo_labels.files import (
    checksummed_line,
    explain_write_errors,
    private_file,
    private_name,
    read_lines,
    remove_leftovers,
    sha256_file,
)
from pseudo_labels.images import DecodeLimits
from pseudo_labels.parallel import Progress
from pseudo_labels.records import Status
from students.damage import Damage
from students.regions import RegionResult
from students.runtime import Row

FORMAT = 1
_WHAT = "record of an earlier run"


@dataclass(frozen=True)
class FileState:
    """Size in bytes and time of the last change in nanoseconds: other content nearly always has another of these."""

    size: int
    time_ns: int


def state_of(path: str | os.PathLike[str]) -> FileState | None:
    """State of an image file; None if there is no such file."""
    try:
        there = os.stat(path)
    except (OSError, ValueError):
        return None
    return FileState(there.st_size, there.st_mtime_ns)


class RowRecord:
    """The record of one output file, whose lock the caller holds (``outputs.new_file``).

    Args:
        out: output file.
        model: SHA-256 of the model that scores.
        limits: what is decoded: rows that were made under other limits are not used again.
        regions: what determines the regions of a row, as JSON values; None where there are none.
        look: see ``Scorer``.
    """

    def __init__(
        self,
        out: Path,
        model: str,
        limits: DecodeLimits,
        regions: Mapping[str, Any] | None = None,
        *,
        look: str = "quick",
    ):
        self.path = out.with_name(private_name(out.name, ".rows"))
        self._out = out
        # A list, as it is read back: the head is compared with what a file holds.
        decoded = {**asdict(limits), "background": list(limits.background)}
        self._head = {
            "format": FORMAT, "kind": "scored rows", "model": model, "limits": decoded, "version": _version(),
        }  # fmt: skip
        if look != "quick":
            self._head["look"] = look
        if regions is not None:
            self._head["regions"] = json.loads(json.dumps(regions))
        # By absolute path or address: the row, and which file was in which state.
        self._rows: dict[str, tuple[Row, FileState, str]] = {}
        self._file: IO[bytes] | None = None

    def resume(self) -> None:
        """Read the rows of earlier runs and continue their record.

        Raises:
            OutputConflictError: the output file exists, but is not what such a run wrote, or is of another model
                or other limits.
        """
        lines = read_lines(self.path, what=_WHAT, torn=True) if self.path.is_file() else []
        fits = bool(lines) and lines[0] == self._head
        if self._out.exists():
            written = [line["written"] for line in lines[1:] if "written" in line] if fits else []
            if sha256_file(self._out) not in written:
                raise OutputConflictError(
                    f"{self._out} cannot be resumed: {self._why(lines)}; choose another --out, or add --overwrite to "
                    "score all images again"
                )
        lines = lines if fits else []
        for line in lines[1:]:
            if "row" in line:
                row = Row(
                    **{
                        **line["row"],
                        "status": Status(line["row"]["status"]),
                        "regions": _regions(line),
                        "damage": Damage(**line["damage"]) if "damage" in line else None,
                    }
                )
                state = FileState(**line["state"])
                self._rows[line["file"]] = row, state, line.get("archive", line["file"])
        self._begin(lines[1:])

    def start(self) -> None:
        """Begin an empty record in the place of any earlier one."""
        self._rows.clear()
        self._begin([])

    def _why(self, lines: Sequence[Mapping[str, Any]]) -> str:
        if not lines:
            return "it was written without --resume, so the files and the model of its rows are not known"
        if lines[0].get("model") != self._head["model"]:
            return "its rows are of another model"
        if lines[0].get("limits") != self._head["limits"]:
            return "its rows were made with other limits (--max-pixels)"
        if lines[0].get("look") != self._head.get("look"):
            return "its rows were made with another look (--look)"
        if lines[0].get("regions") != self._head.get("regions"):
            return "its rows were made with other regions (--regions)"
        return "it was made by another version" if lines[0] != self._head else "it was changed since"

    def _begin(self, lines: Sequence[Mapping[str, Any]]) -> None:
        # Written anew rather than appended to: the last line of a killed run may be cut.
        # The error names the output that the user knows, and not this record of it.
        with explain_write_errors(self._out):
            remove_leftovers(self.path.parent, self.path.name)
            with private_file(self.path) as (beside, file):
                file.writelines(map(checksummed_line, (self._head, *lines)))
                file.flush()
                os.replace(beside, self.path)
            self._file = open(self.path, "ab")  # noqa: SIM115 - closed by ``close``

    def known(self, image: ImageSource, state: FileState | None) -> Row | None:
        """The row of an image whose file is as it was when it was scored; None if it must be scored."""
        row, then, _ = self._rows.get(_key(image), (None, None, ""))
        return row if state is not None and then == state else None

    def others(self, images: Sequence[ImageSource]) -> list[Row]:
        """Rows of earlier runs whose images are not named now, but whose files are as they were when scored."""
        named = set(map(_key, images))
        others = ((row, then, file) for key, (row, then, file) in self._rows.items() if key not in named)
        return [row for row, then, file in others if state_of(file) == then]

    def add(self, row: Row, image: ImageSource, state: FileState | None) -> None:
        """Record a row that was just made; one without a score is made again by the next run.

        Args:
            row: result.
            image: its image.
            state: of ``image.file`` before it was read; None where there is none, as on the web: then nothing is
                recorded, for nobody knows whether the image is the same next time.
        """
        if row.status == Status.OK and state is not None:
            stored = asdict(row)
            # NaN is no JSON. A row without regions or damage is stored as in earlier versions.
            regions = [{name: _finite(value) for name, value in one.items()} for one in stored.pop("regions")]
            more: dict[str, Any] = {"regions": regions} if regions else {}
            damage = stored.pop("damage")
            more |= {"damage": damage} if damage is not None else {}
            if not image.is_file and image.file is not None:
                more["archive"] = os.path.abspath(image.file)
            self._write({"file": _key(image), "state": asdict(state), "row": stored, **more})

    def written(self, digest: str) -> None:
        """Record the SHA-256 of the output file that is about to appear."""
        self._write({"written": digest})

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None  # ``resume`` or ``start`` was called
        with explain_write_errors(self._out):
            self._file.write(checksummed_line(line))
            self._file.flush()  # what the system has survives a kill of this process

    def close(self, *, keep: bool) -> None:
        """End the record, and remove it unless ``keep``."""
        if self._file is not None:
            with suppress(OSError):  # what could not be written was reported by ``add``
                self._file.close()
            self._file = None
        if not keep:
            self.path.unlink(missing_ok=True)


def resumed_rows(
    many: Callable[..., Iterator[Row]],
    images: Sequence[ImageSource],
    record: RowRecord,
    *,
    workers: int,
    report: Progress,
    warn: Callable[[str], None],
) -> Iterator[Row]:
    """Rows of all images in their order, those of the record without scoring them; each new one is recorded.

    Args:
        many: as ``Scorer.score_many``.
        images: images.
        record: record that was started or resumed.
        workers: images scored at a time.
        report: called with images scored and to be scored.
        warn: told how many rows are those of an earlier run.
    """
    # The state is taken before an image is read: one that changes later is scored again by the next run.
    states = [None if image.file is None else state_of(image.file) for image in images]
    known = [record.known(image, state) for image, state in zip(images, states, strict=True)]
    unknown = [image for image, row in zip(images, known, strict=True) if row is None]
    if len(unknown) < len(images):
        warn(f"{len(images) - len(unknown)} of {len(images)} images were scored by an earlier run")
    fresh = iter(many(unknown, workers=workers, progress=report))
    for image, state, row in zip(images, states, known, strict=True):
        if row is None:
            row = next(fresh)
            record.add(row, image, state)
        yield replace(row, path=image.name)


def _key(image: ImageSource) -> str:
    return os.path.abspath(image.name) if image.is_file else image.name


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _regions(line: Mapping[str, Any]) -> tuple[RegionResult, ...]:
    regions: list[RegionResult] = []
    for one in line.get("regions", ()):
        values: dict[str, Any] = {name: math.nan if value is None else value for name, value in one.items()}
        regions.append(RegionResult(**{**values, "box": tuple(one["box"]), "status": Status(one["status"])}))
    return tuple(regions)


def _version() -> str:
    try:
        return version("pocketiqa")
    except PackageNotFoundError:
        return "unknown"
