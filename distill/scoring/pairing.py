"""Photographs before and after something was done to them, in pairs by name or by a table. Base install only."""

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.scoring.inputs import empty_folders
from pseudo_labels.errors import PocketiqaError, shown
from students.paths import find_images
from students.runtime import Row

_HEADER = ("before", "after", "group")


@dataclass(frozen=True)
class Pair:
    """Two files, one of which may be missing.

    Attributes:
        name: for rows: the name below its folder, or as the table has it.
        before: the photograph as it was; None where only the other one exists.
        after: what was made of it; None likewise.
        group: pairs of one scene have the same.
        problem: why it is no pair; empty if it is one.
    """

    name: str
    before: Path | None
    after: Path | None
    group: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PairRow(Row):
    """The result of a pair: ``path`` is its name, ``score`` the change, after minus before.

    Attributes:
        before: score of the photograph before, in [0, 1]; None where it has none.
        after: that of the photograph after.
        files: both files, empty where there is none.
        group: scene of the pair.
    """

    before: float | None = None
    after: float | None = None
    files: tuple[str, str] = ("", "")
    group: str = ""

    @property
    def before_path(self) -> str | None:
        """Of the photograph before; None if there is none."""
        return self.files[0] or None

    @property
    def after_path(self) -> str | None:
        """Of the photograph after; None if there is none."""
        return self.files[1] or None


def pairs_by_name(before: Path, after: Path, *, recursive: bool, warn: Callable[[str], None]) -> list[Pair]:
    """Images of two folders that have one name: with the same suffix, else with another one.

    Args:
        before: folder.
        after: folder.
        recursive: look into the folders below as well; names are then those below the two folders.
        warn: called with a sentence on what was left out.

    Returns:
        All pairs by name, then what has no partner: images of ``before``, then of ``after``.

    Raises:
        PocketiqaError: no folders, the same folder twice, or no image in one of them.
    """
    for folder in (before, after):
        if not folder.is_dir():
            raise PocketiqaError(f"{folder} is no folder: name two folders, or files by --pairs FILE.csv")
    if os.path.samefile(before, after):
        raise PocketiqaError(f"{before} and {after} are one folder: name that of the photographs before, and the other")
    sides = []
    for folder in (before, after):
        images = find_images([folder], recursive, warn)
        if not images:
            raise PocketiqaError(empty_folders([folder], [], recursive=recursive)[0])
        sides.append({os.path.relpath(image, folder): image for image in images})
    first, second = sides
    pairs = [Pair(name, first[name], second[name], name) for name in first if name in second]
    left, right = ({name: file for name, file in one.items() if name not in other} for one, other in
                   ((first, second), (second, first)))  # fmt: skip
    stems, others = _by_stem(left), _by_stem(right)
    unpaired: list[Pair] = []
    for stem, names in stems.items():
        partners = others.get(stem, [])
        if len(names) == len(partners) == 1:
            pairs.append(Pair(names[0], left[names[0]], right[partners[0]], names[0]))
        else:
            reason = _why_alone(names, partners, after)
            unpaired += [Pair(name, left[name], None, name, reason) for name in names]
    for stem, names in others.items():
        partners = stems.get(stem, [])
        if len(names) != 1 or len(partners) != 1:
            reason = _why_alone(names, partners, before)
            unpaired += [Pair(name, None, right[name], name, reason) for name in names]
    return sorted(pairs, key=lambda pair: pair.name) + unpaired


def _by_stem(files: dict[str, Path]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name in files:
        names.setdefault(os.path.splitext(name)[0], []).append(name)
    return names


def _why_alone(names: Sequence[str], partners: Sequence[str], folder: Path) -> str:
    if not partners:
        return f"no file of this name in {folder}"
    several = ", ".join([*names, *partners][:4])
    return f"more than two files may belong together ({several}): pair them by --pairs FILE.csv"


def pairs_of_table(file: Path, before: Path, after: Path) -> list[Pair]:
    """Pairs of a CSV with two columns, and a third one with the scene of the pair where there is one.

    A first line ``before,after`` or ``before,after,group`` is a header. Names are those below the two folders, or
    absolute. Without the third column, pairs of one photograph before are one scene.

    Args:
        file: the CSV, UTF-8.
        before: folder of the names in the first column.
        after: folder of those in the second.

    Raises:
        PocketiqaError: it cannot be read, is empty, or a line has not two or three fields.
    """
    try:
        with open(file, newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    except OSError as error:
        raise PocketiqaError(f"{file} cannot be read: {error.strerror}; check --pairs") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise PocketiqaError(f"{file} is no CSV of text in UTF-8 ({error}): save it as such") from error
    if rows and tuple(cell.lower() for cell in rows[0][1]) in (_HEADER, _HEADER[:2]):
        del rows[0]
    if not rows:
        raise PocketiqaError(f"{file} has no pairs: a line is BEFORE,AFTER or BEFORE,AFTER,GROUP")
    pairs, seen = list[Pair](), set[tuple[str, ...]]()
    for line, cells in rows:
        if len(cells) not in (2, 3) or not all(cells[:2]):
            raise PocketiqaError(
                f"line {line} of {file} is {shown(','.join(cells))[:80]!r}: a line is BEFORE,AFTER or "
                "BEFORE,AFTER,GROUP"
            )
        if tuple(cells[:2]) in seen:
            raise PocketiqaError(f"{file}: {cells[0]},{cells[1]} is listed twice; remove one of the two rows")
        seen.add(tuple(cells[:2]))
        group = cells[2] if len(cells) == 3 and cells[2] else cells[0]
        pairs.append(Pair(cells[1], before / cells[0], after / cells[1], group))
    return pairs
