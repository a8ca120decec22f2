"""The rated image set that every benchmark reader returns: rows with scores on one scale, and their origin."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from unicodedata import normalize

from pseudo_labels.errors import PocketiqaError

Best = Literal["high", "low"]
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Scale:
    """The scale on which a benchmark publishes its ratings.

    Attributes:
        low: lower end of the scale (not the lowest rating that occurs).
        high: upper end of the scale.
        best: which end is the best quality: ``low`` for difference scores (DMOS).
    """

    low: float
    high: float
    best: Best = "high"

    def score(self, native: float, where: str) -> float:
        """``native`` mapped linearly to [0, 1] with 1 best.

        Args:
            native: a rating on this scale.
            where: file and row of the rating, for the error.

        Raises:
            PocketiqaError: the value lies outside the scale, so the file is not what the reader takes it for.
        """
        if not self.low <= native <= self.high:
            limits = f"outside the scale {self.low:g} to {self.high:g}"
            raise PocketiqaError(f"{where}: rating {native:g} lies {limits}; is it the published file?")
        # The ends of the scale, not of the ratings: a score must not depend on which other images are in the file.
        fraction = (native - self.low) / (self.high - self.low)
        return fraction if self.best == "high" else 1.0 - fraction

    def describe(self) -> str:
        """The scale in words, for people."""
        return f"{self.low:g} to {self.high:g}, {'highest' if self.best == 'high' else 'lowest'} is best"


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """One rated image.

    Attributes:
        id: path of the image below its folder, with forward slashes; unique in the benchmark.
        path: path of the image file (a missing file is reported when the image is scored, not here).
        mos_native: published rating (MOS or DMOS), on the published scale.
        score: published rating mapped to [0, 1], 1 best.
        group: name of the scene, reference or prompt; resampling and splits keep a group whole.
        split: ``train``, ``validation`` or ``test``; empty if the source names none.
        subset: part of the benchmark to report separately (distortion, camera set, generator); empty if there is none.
        ref: path of the clean reference; empty without one.
        near_training: whether the benchmark marks the image as showing the scene of a training image; headline figures
            leave it out.
        near_duplicate: whether ``pocketiqa overlap`` detected that by features of a model; headline figures leave it
            out too.
    """

    id: str
    path: str
    mos_native: float
    score: float
    group: str
    split: str = ""
    subset: str = ""
    ref: str = ""
    near_training: bool = False
    near_duplicate: bool = False


@dataclass(frozen=True)
class Benchmark:
    """A rated set of images.

    Attributes:
        name: name in the registry, or of the CSV file.
        rows: one row per rated image, in the order of the published file.
        scale: published range, and which end is best.
        citation: paper that published the ratings.
        licence: terms of use, as far as they are known.
        split_origin: ``published``, ``derived`` (by hash of the group, 70/10/20) or ``none``.
        notes: facts that a reader of the figures should know.
    """

    name: str
    rows: tuple[BenchmarkRow, ...]
    scale: Scale
    citation: str
    licence: str
    split_origin: Literal["published", "derived", "none"]
    notes: tuple[str, ...] = ()

    def select(self, split: str | None) -> "Benchmark":
        """Only the rows of one split; all rows if ``split`` is None.

        Raises:
            PocketiqaError: there is no such split.
        """
        if split is None:
            return self
        rows = tuple(row for row in self.rows if row.split == split)
        if not rows:
            known = ", ".join(sorted({row.split for row in self.rows if row.split})) or "none"
            raise PocketiqaError(f"benchmark {self.name} has no split {split!r}: known splits: {known}")
        return replace(self, rows=rows)

    def usual(self, split: str) -> "Benchmark":
        """Only the rows of one split, or all of a benchmark without splits."""
        return self.select(split if any(row.split for row in self.rows) else None)

    def as_dict(self) -> dict[str, Any]:
        """JSON facts for a report: everything but the rows, which are counted."""
        return {
            "name": self.name,
            "images": len(self.rows),
            "groups": len({row.group for row in self.rows}),
            "splits": {name: sum(row.split == name for row in self.rows) for name in SPLITS},
            "split_origin": self.split_origin,
            "scale": self.scale.describe(),
            "citation": self.citation,
            "licence": self.licence,
            "notes": list(self.notes),
        }


def check_rows(name: str, rows: Sequence[BenchmarkRow]) -> tuple[BenchmarkRow, ...]:
    """The rows as a tuple, with paths as they are on the disk, after a check that every image occurs once.

    A label file and a disk may spell one name differently: in another Unicode form (Linux keeps what a Mac wrote in
    NFD), or with backslashes. And one label file may list one image in two spellings.

    Raises:
        PocketiqaError: there is no row, or one image occurs twice.
    """
    if not rows:
        raise PocketiqaError(f"benchmark {name}: the label file lists no images")
    # Predictions are matched by id, so two rows with one id would get the same score.
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise PocketiqaError(f"benchmark {name}: {row.id!r} is listed twice; remove one of the two rows")
        seen.add(row.id)
    spellings = _Spellings()
    rows = [replace(row, path=spellings.on_disk(row.path), ref=spellings.on_disk(row.ref)) for row in rows]
    alike: dict[str, list[BenchmarkRow]] = {}
    for row in rows:
        others = alike.setdefault(_spelled_alike(row.path), [])
        for other in others:
            if _is_same_file(row.path, other.path):
                raise PocketiqaError(
                    f"benchmark {name}: one image is listed twice, as {other.id!r} and {row.id!r}; remove one of the "
                    "two rows"
                )
        others.append(row)
    return tuple(rows)


def _spelled_alike(path: str) -> str:
    """The same for all spellings that may mean one file: other slashes, dots, case, Unicode form."""
    return normalize("NFC", os.path.normpath(path)).casefold()


def _is_same_file(one: str, other: str) -> bool:
    try:
        # Says what the disk takes for the same, in case and in Unicode form.
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return os.path.normpath(one) == os.path.normpath(other)


class _Spellings:
    """Paths under which files exist; remembers the folders that it has listed."""

    def __init__(self):
        self._names: dict[str, dict[str, str]] = {}

    def on_disk(self, path: str) -> str:
        """``path``, or its other spelling under which there is a file."""
        if (path.isascii() and "\\" not in path) or os.path.lexists(path):
            return path
        for spelling in dict.fromkeys((path, path.replace("\\", "/"))):
            current = "/" if spelling.startswith("/") else ""
            for part in filter(None, spelling.split("/")):
                exact = os.path.join(current, part)
                current = exact if os.path.lexists(exact) else os.path.join(current, self._spelled(current, part))
            if os.path.lexists(current):
                return current
        return path

    def _spelled(self, folder: str, name: str) -> str:
        if folder not in self._names:
            try:
                listed = sorted(os.listdir(folder or "."))
            except OSError:
                listed = []
            self._names[folder] = {normalize("NFC", own): own for own in listed}
        return self._names[folder].get(normalize("NFC", name), name)
