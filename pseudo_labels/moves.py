"""Files that are moved for a user: none is ever lost or replaced, and all can be moved back.

The folder that takes them holds a journal, ``pocketiqa-undo.jsonl``, one JSON record a line with a checksum. The line
of a move is on the disk before the move begins. A move within a file system is a hard link and the removal of the old
name, so that the file has at least one of its names at any moment; to another file system it is copied, flushed and
named whole before the old one is removed. A killed process leaves a file under both names at worst, which the next run
or ``undo`` finishes.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pseudo_labels.errors import OutputConflictError, PocketiqaError, shown, system_words
from pseudo_labels.files import (
    checksummed_line,
    explain_write_errors,
    from_utf8_path,
    fsync,
    private_file,
    read_lines,
    utf8_path,
    write_atomic,
)
from pseudo_labels.outputs import exclusively
from pseudo_labels.parallel import Progress

JOURNAL = "pocketiqa-undo.jsonl"
FORMAT = 1
_HEAD = {"format": FORMAT, "kind": "moves"}
_WHAT = "undo file"
_BLOCK = 1 << 20
# What a file system without hard links says, and one that does not let us link a file of another user.
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}


@dataclass(frozen=True)
class Move:
    """A file that was moved, or shall be.

    Attributes:
        source: absolute path that it has, or had.
        target: absolute path that it gets, or got.
    """

    source: Path
    target: Path


def move(source: Path, target: Path) -> None:
    """Give a regular file another name, which must be free; also one in another file system.

    Raises:
        OutputConflictError: something has the name ``target``.
        PocketiqaError: ``source`` is no regular file, or changed while it was copied.
        StorageFullError: the disk is full.
        WriteError: the system refuses it for another reason.
    """
    with explain_write_errors(target):
        there = os.lstat(source)
        if not stat.S_ISREG(there.st_mode):
            kind = "a symbolic link" if stat.S_ISLNK(there.st_mode) else "no regular file"
            raise PocketiqaError(f"{source} is {kind}, which is not moved: copy or link it")
        try:
            os.link(source, target, follow_symlinks=False)
        except FileExistsError:
            # What a killed move leaves: two names of one file.
            if not os.path.samestat(there, os.lstat(target)):
                raise _taken(target) from None
        except OSError as error:
            if error.errno == errno.EXDEV:
                _copy_over(source, target, there)
            elif error.errno in _NO_LINKS:
                _rename(source, target)
                return
            else:
                raise
        _remove_old(source, target)


def _remove_old(source: Path, target: Path) -> None:
    # The new name is on the disk before the old one goes.
    fsync(target.parent)
    try:
        os.unlink(source)
    except OSError as error:
        os.unlink(target)  # else the file would be in two places
        refused, step = system_words(error)
        raise PocketiqaError(f"{source} cannot be taken out of its folder: {refused}; {step}") from error
    fsync(source.parent)


def _taken(target: Path) -> OutputConflictError:
    return OutputConflictError(f"{target} exists already, so nothing is moved there: choose another folder")


def _rename(source: Path, target: Path) -> None:
    # Between the look and the rename another program could take the name; our own are kept out by the folder's lock.
    if os.path.lexists(target):
        raise _taken(target)
    os.rename(source, target)
    fsync(target.parent)


def _copy_over(source: Path, target: Path, before: os.stat_result) -> None:
    with open(source, "rb") as original, private_file(target) as (temporary, copied):
        shutil.copyfileobj(original, copied, _BLOCK)
        copied.flush()
        shutil.copystat(source, temporary)
        os.fsync(copied.fileno())
        after = os.lstat(source)
        if (after.st_size, after.st_mtime_ns, after.st_ino) != (before.st_size, before.st_mtime_ns, before.st_ino):
            raise PocketiqaError(f"{source} changed while it was copied, so it was left where it is")
        place_new(temporary, target)


def place_new(temporary: Path, target: Path) -> None:
    """Give a finished private file (``files.private_file``) its name, which must be free.

    Raises:
        OutputConflictError: something has this name.
    """
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise _taken(target) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename(temporary, target)


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two regular files have the same content; false if one is missing or something else."""
    try:
        first, second = os.lstat(one), os.lstat(other)
        if not (stat.S_ISREG(first.st_mode) and stat.S_ISREG(second.st_mode)) or first.st_size != second.st_size:
            return False
        if os.path.samestat(first, second):
            return True
        with open(one, "rb") as left, open(other, "rb") as right:
            while (block := left.read(_BLOCK)) == right.read(len(block) or 1):
                if not block:
                    return True
        return False
    except OSError:
        return False


class Journal:
    """The journal of one folder, open for more moves; see ``journal_in``."""

    def __init__(self, path: Path, file: IO[bytes], moves: Sequence[Move], run: int):
        self.path = path
        self._file, self._run = file, run
        self._earlier = set(moves)
        self.moved = 0

    def is_unfinished(self, wanted: Move) -> bool:
        """Whether an earlier, killed run has copied this file, but not removed the old name."""
        return wanted in self._earlier and same_bytes(wanted.source, wanted.target)

    def move(self, wanted: Move) -> None:
        """Write the line of a move, then do it.

        Raises:
            OutputConflictError: the name is taken.
            PocketiqaError: it cannot be moved, see ``move``.
        """
        if self.is_unfinished(wanted):
            os.unlink(wanted.source)
            return
        self._write(_record(wanted, self._run))
        self.moved += 1
        move(wanted.source, wanted.target)

    def end(self) -> None:
        """Note that this run has done what it wanted; a killed one has no such line, see ``was_stopped``."""
        self._write({"run": self._run, "ended": True})

    def _write(self, record: dict[str, Any]) -> None:
        with explain_write_errors(self.path):
            self._file.write(checksummed_line(record))
            self._file.flush()
            os.fsync(self._file.fileno())


def _record(one: Move, run: int) -> dict[str, Any]:
    return {"run": run, "from": utf8_path(one.source), "to": utf8_path(one.target)}


@contextmanager
def journal_in(folder: Path) -> Iterator[Journal]:
    """Open the journal of a folder, which is made if needed; no other process of ours moves into it meanwhile.

    Raises:
        OutputConflictError: another process does.
        IntegrityError: there is a journal, but it was altered.
        WriteError: it cannot be written.
    """
    with exclusively(folder):
        path = folder / JOURNAL
        records = _read(path)
        run = max((record["run"] for record in records), default=0) + 1
        with explain_write_errors(path):
            file = open(path, "ab")  # noqa: SIM115 - closed below
        try:
            with explain_write_errors(path):
                if file.tell() == 0:
                    file.write(checksummed_line(_HEAD))
                    file.flush()
                    fsync(folder)
            journal = Journal(path, file, [_move_of(record) for record in records if "from" in record], run)
            yield journal
            if journal.moved:
                journal.end()
        finally:
            file.close()
            # Nothing was moved: nothing is to be undone.
            if path.stat().st_size <= len(checksummed_line(_HEAD)):
                path.unlink()


def was_stopped(folder: Path) -> bool:
    """Whether the last run that moved files into a folder was killed on its way, and not undone since.

    Raises:
        PocketiqaError: the journal cannot be read.
    """
    path = folder / JOURNAL
    lines = read_lines(path, what=_WHAT, torn=True)[1:] if path.is_file() else []
    return bool(lines) and "ended" not in lines[-1]


def recorded(folder: Path) -> frozenset[Move]:
    """The moves in the journal of a folder; none if there is no journal.

    Raises:
        PocketiqaError: the journal cannot be read.
    """
    path = folder / JOURNAL
    lines = read_lines(path, what=_WHAT, torn=True) if path.is_file() else []
    return frozenset(_move_of(line) for line in lines if "from" in line)


def _move_of(record: dict[str, Any]) -> Move:
    return Move(Path(from_utf8_path(record["from"])), Path(from_utf8_path(record["to"])))


def _read(path: Path) -> list[dict[str, Any]]:
    """The moves of a journal; a last line that a killed process left in part is removed, its move never began."""
    if not path.exists():
        return []
    with explain_write_errors(path):
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)
    lines = read_lines(path, what=_WHAT)
    if not lines:
        return []
    if not isinstance(lines[0], dict) or {**lines[0], "format": FORMAT} != _HEAD:
        raise PocketiqaError(f"{path} is no undo file of pocketiqa: it begins with {shown(lines[0])}")
    if lines[0] != _HEAD:
        raise PocketiqaError(
            f"{path} has format {shown(lines[0]['format'])}, but this pocketiqa reads {FORMAT}: upgrade"
        )
    return lines[1:]


@dataclass(frozen=True)
class Undone:
    """What became of the moves of a journal.

    Attributes:
        back: files that were moved back, or would be.
        refused: moves that stay in the journal, each with the reason.
    """

    back: tuple[Move, ...]
    refused: tuple[tuple[Move, str], ...]


def journal_of(path: Path) -> Path:
    """The journal that a user names by itself or by its folder.

    Raises:
        PocketiqaError: there is none.
    """
    file = path / JOURNAL if path.is_dir() else path
    if not file.is_file():
        raise PocketiqaError(
            f"no undo file at {file}: name the folder that files were moved to, or the file {JOURNAL} in it"
        )
    return file


def undo(path: Path, *, last: bool = False, dry_run: bool = False, progress: Progress | None = None) -> Undone:
    """Move the files of a journal back, the last one first; what is back leaves the journal.

    Args:
        path: a journal, or its folder.
        last: only those of the last run.
        dry_run: move nothing, and say what would be moved.
        progress: called with (done, total).

    Raises:
        PocketiqaError: there is no such journal.
        IntegrityError: it was altered.
        OutputConflictError: another process moves files into its folder.
    """
    journal = journal_of(path)
    with exclusively(journal.parent):
        records = [record for record in _read(journal) if "from" in record]
        final_run = max((record["run"] for record in records), default=0)
        wanted = [number for number, record in enumerate(records) if not last or record["run"] == final_run]
        back: list[Move] = []
        refused: list[tuple[Move, str]] = []
        kept = set(range(len(records))) - set(wanted)
        for done, number in enumerate(reversed(wanted), start=1):
            one = _move_of(records[number])
            reason = _move_back(one, dry_run)
            if reason:
                refused.append((one, reason))
                kept.add(number)
            elif reason is not None:
                back.append(one)
            if progress is not None:
                progress(done, len(wanted))
        if not dry_run:
            _rewrite(journal, [records[number] for number in sorted(kept)])
    return Undone(tuple(back), tuple(refused))


def _move_back(one: Move, dry_run: bool) -> str | None:
    """Move a file back; the reason why not, empty if it was, None if there was nothing to do any more."""
    if not os.path.lexists(one.target):
        return None if os.path.lexists(one.source) else "it is in neither place any more"
    if os.path.lexists(one.source) and not same_bytes(one.source, one.target):
        return "another file has its old name now"
    if dry_run:
        return ""
    try:
        with explain_write_errors(one.source):
            one.source.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(one.source):
            os.unlink(one.target)  # a killed undo or move left both
        else:
            move(one.target, one.source)
    except PocketiqaError as error:
        return str(error)
    return ""


def _rewrite(journal: Path, records: Iterable[dict[str, Any]]) -> None:
    lines = [checksummed_line(record) for record in records]
    if lines:
        ended = checksummed_line({"run": 0, "ended": True})
        write_atomic(journal, b"".join([checksummed_line(_HEAD), *lines, ended]))
    else:
        with explain_write_errors(journal):
            journal.unlink()
