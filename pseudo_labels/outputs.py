"""Outputs of commands: folders that say what made them, and single files; neither is mixed nor replaced unasked.

Every folder a command writes holds ``manifest.json``: its kind, format version, the ``spec`` (everything that
determines the content, the digests of its inputs included) and, once finished, what was written. While a command works
in it, it holds the lock ``.lock`` too. A single file that a user names is written by ``new_file``.
"""

import errno
import json
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from pseudo_labels import remote
from pseudo_labels.errors import IntegrityError, OutputConflictError, PocketiqaError, WriteError
from pseudo_labels.files import (
    canonical_json,
    checksummed_json,
    digest_of,
    exclusive,
    explain_write_errors,
    fsync,
    is_leftover,
    private_file,
    private_name,
    read_json,
    refuse_irregular,
    remove_leftovers,
    verified,
    write_atomic,
)
from pseudo_labels.remote import Address, location

MANIFEST = "manifest.json"
LOCK = ".lock"
FORMAT = 1
_FIELDS = {"kind": str, "spec": dict, "complete": bool, "content": dict, "notes": dict}


class Claim(StrEnum):
    """What a command finds when it claims its output folder."""

    NEW = "new"
    RESUME = "resume"
    DONE = "done"


@dataclass(frozen=True)
class Manifest:
    """The head of an output folder.

    Attributes:
        kind: ``pool``, ``labels``, ``run``, ...
        spec: everything that determines the content, as JSON values.
        complete: whether the work was finished.
        content: what was written (counts, digests), set when complete.
        notes: facts for readers that do not determine the content (paths, host), never compared.
    """

    kind: str
    spec: dict[str, Any]
    complete: bool = False
    content: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Identity of the output: of what determines it and of what was written."""
        return digest_of({"kind": self.kind, "format": FORMAT, "spec": self.spec, "content": self.content})


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` in one step."""
    record = {
        "format": FORMAT,
        "kind": manifest.kind,
        "spec": manifest.spec,
        "complete": manifest.complete,
        "content": manifest.content,
        "notes": manifest.notes,
    }
    write_atomic(folder / MANIFEST, checksummed_json(record))


def read_manifest(folder: Path, kind: str | None = None) -> Manifest:
    """Read the head of an output folder.

    Raises:
        PocketiqaError: there is none, it is of another kind, or of a newer format.
        IntegrityError: it cannot be parsed, or was altered.
    """
    folder = location(folder)
    record = read_json(folder / MANIFEST, what=f"{kind or 'pocketiqa'} manifest")
    if not isinstance(record, dict) or "kind" not in record:
        raise PocketiqaError(f"{folder / MANIFEST} was not written by pocketiqa")
    if record.get("format") != FORMAT:
        raise PocketiqaError(
            f"{folder} has format version {_brief(record.get('format'))}, but this pocketiqa reads {FORMAT}: "
            "upgrade pocketiqa or make the folder anew"
        )
    record = verified(record, what=f"manifest {folder / MANIFEST}")
    if kind is not None and record["kind"] != kind:
        raise PocketiqaError(f"{folder} holds {_brief(record['kind'])}, but {kind!r} is needed here")
    for name, kind_of_value in _FIELDS.items():
        if name not in record:
            raise IntegrityError(f"{folder / MANIFEST} lacks {name!r}: restore it, or make the folder anew")
        if not isinstance(record[name], kind_of_value):
            raise IntegrityError(
                f"{folder / MANIFEST} has {name!r} of another type than it was written with: restore it, or make the "
                "folder anew"
            )
    return Manifest(record["kind"], record["spec"], record["complete"], record["content"], record["notes"])


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted names of the values that differ, each with old and new value."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(set(old) | set(new))
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{prefix}{key}.")]
    return [] if old == new else [f"{prefix.rstrip('.')}: {_brief(old)} -> {_brief(new)}"]


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def claim(
    folder: Path, kind: str, spec: dict[str, Any], *, overwrite: bool = False, notes: dict[str, Any] | None = None
) -> Claim:
    """Take ``folder`` for an output made by ``spec``, or refuse.

    Returns:
        NEW for a fresh folder, RESUME for unfinished work of the same spec, DONE for finished work of the same spec.

    Raises:
        OutputConflictError: the folder holds something else, or the same kind made differently.
    """
    _refuse_file(folder)
    if overwrite:
        start_over(folder)
    spec = json.loads(canonical_json(spec))  # as it will be read back: tuples become lists
    if _is_empty(folder):
        with explain_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_manifest(folder, Manifest(kind, spec, notes=notes or {}))
        return Claim.NEW
    if not (folder / MANIFEST).exists():
        raise OutputConflictError(f"{folder} is not empty and was not written by pocketiqa: choose another --out")
    manifest = read_manifest(folder)
    if manifest.kind != kind:
        raise OutputConflictError(f"{folder} already holds {_brief(manifest.kind)}, not {kind!r}: choose another --out")
    changed = differences(manifest.spec, spec)
    if changed:
        shown = "; ".join(changed[:3]) + ("; ..." if len(changed) > 3 else "")
        raise OutputConflictError(
            f"{folder} was made differently ({shown}): choose another --out, repeat the earlier settings "
            "to resume, or add --overwrite to start over"
        )
    return Claim.DONE if manifest.complete else Claim.RESUME


def finish(folder: Path, content: dict[str, Any]) -> Manifest:
    """Mark the work in ``folder`` as complete and record what was written; said twice, nothing is touched."""
    manifest = read_manifest(folder)
    if manifest.complete and manifest.content == content:
        return manifest
    done = Manifest(manifest.kind, manifest.spec, True, content, manifest.notes)
    write_manifest(folder, done)
    return done


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, without its lock and what a process killed while writing its manifest left there."""
    entries = folder.iterdir() if folder.exists() else ()
    return [entry for entry in entries if entry.name != LOCK and not is_leftover(entry)]


def _is_empty(folder: Path) -> bool:
    # A store of millions of objects is not listed to know that it is there.
    return not (isinstance(folder, Address) and (folder / MANIFEST).is_file()) and not _entries(folder)


def refuse_address(path: Path) -> None:
    """Refuse an address where only a local path can be written: of it a local folder ``s3:`` would be made.

    A file or folder of such a name that is there is a path.

    Raises:
        WriteError: it is an address.
    """
    address = location(path)
    if isinstance(address, Address):
        raise WriteError(
            f"{address} is an address, and only local paths can be written here: name one and copy it there; whoever "
            "means a folder of this name gives its absolute path"
        )


def _refuse_file(folder: Path) -> None:
    if isinstance(folder, Address):
        remote.refuse_unwritable(folder)
        return
    refuse_address(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputConflictError(f"{folder} is a file, but a folder is needed here: choose another --out")


@contextmanager
def exclusively(folder: Path) -> Iterator[None]:
    """Keep other processes from working in an output folder, from before it is claimed until the work is done.

    Leftovers of killed processes are removed, and a folder that was made for the lock alone is removed again. The
    thread that holds the lock may enter again: outputs are made of outputs.

    Raises:
        OutputConflictError: another living process works in it, or it is a file.
        WriteError: it cannot be written. A finished output that is only read, as on a read-only disk, needs no lock.
    """
    _refuse_file(folder)
    at = str(folder) if isinstance(folder, Address) else os.path.realpath(folder)
    key = (os.getpid(), threading.get_ident(), at)
    if key in _HELD:
        yield
        return
    with ExitStack() as stack:
        try:
            if not isinstance(folder, Address):
                with explain_write_errors(folder):
                    made = _make_folders(folder)
                stack.callback(_remove_empty, made)
            stack.enter_context(exclusive(folder / LOCK, what=str(folder)))
        except WriteError as error:
            refused = isinstance(error.__cause__, OSError) and error.__cause__.errno in _READ_ONLY
            if not (refused and (folder / MANIFEST).is_file()):
                raise
        else:
            _HELD.add(key)
            stack.callback(_HELD.discard, key)
            if not isinstance(folder, Address):
                remove_leftovers(folder)
        yield


# Process, thread and real path of the folders whose locks are held; a forked child inherits the set, not the right.
_HELD: set[tuple[int, int, str]] = set()
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


def refuse_shared(folder: Path) -> None:
    """Refuse to let several processes write a store that cannot keep them apart.

    Raises:
        PocketiqaError: it has an address, and the object store there has no conditional put.
    """
    if isinstance(folder, Address) and not remote.has_conditional_put(folder):
        raise PocketiqaError(
            f"{folder} is in a store that takes a second object of the same name (it has no conditional put), so one "
            "process alone may write it: run the command without --shard, --claim, --engine and launchers, or choose "
            "another store"
        )


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it; returns those that were missing, the deepest first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):  # one that holds something now stays, and so do those above it
        for folder in folders:
            folder.rmdir()


def refuse_existing(file: Path, *, overwrite: bool) -> None:
    """Keep a command that writes one file from replacing another's result unasked; ``new_file`` checks it too.

    Raises:
        OutputConflictError: ``file`` exists and ``overwrite`` was not given.
        WriteError: ``file`` is a folder, link, device or something else that is no regular file, or an address.
    """
    refuse_address(file)
    with explain_write_errors(file):
        there = refuse_irregular(file, links=False)
    if there is not None and not overwrite:
        raise OutputConflictError(f"{file} exists already: choose another name, or add --overwrite to replace it")


@dataclass(frozen=True)
class NewFile:
    """A file in work, see ``new_file``.

    Attributes:
        path: final name or address; None if nothing is to be written.
        file: where to write it, binary; under a private name until the work is done.
    """

    path: Path | None
    file: IO[bytes]

    def write(self, data: bytes) -> None:
        """Add bytes.

        Raises:
            StorageFullError: the disk is full.
            WriteError: the system refuses it for another reason.
        """
        with explain_write_errors(self.path or Path(os.devnull)):
            self.file.write(data)


@contextmanager
def new_file(path: Path | None, *, overwrite: bool = False, objects: bool = False) -> Iterator[NewFile]:
    """Claim the file that a command was asked to write, before its work; it appears whole when the block ends.

    The bytes go to a private file in the same folder, which is flushed to the disk and renamed. If the block fails,
    nothing is left behind and an earlier file stays as it was. Leftovers of killed runs of the same name are removed.

    Args:
        path: final name; its folder is made if needed. None takes the bytes and writes nothing.
        overwrite: whether an earlier regular file may be replaced.
        objects: whether ``path`` may be an address. The object is put when the block ends; without ``overwrite`` never
            over one that appeared meanwhile, if the store has conditional puts.

    Raises:
        OutputConflictError: the file exists, another process is writing it, or it appeared or changed meanwhile.
        StorageFullError: the disk is full.
        WriteError: it cannot be written for another reason, or something that is no regular file is there.
    """
    if path is None:
        with open(os.devnull, "wb") as nowhere:
            yield NewFile(None, nowhere)
        return
    if objects and isinstance(address := location(path), Address):
        with _new_object(address, overwrite=overwrite) as new:
            yield new
        return
    refuse_existing(path, overwrite=overwrite)
    with ExitStack() as stack:
        with explain_write_errors(path):
            stack.callback(_remove_empty, _make_folders(path.parent))
        stack.enter_context(exclusive(path.with_name(private_name(path.name, ".lock")), what=str(path)))
        remove_leftovers(path.parent, path.name)
        with explain_write_errors(path):
            before = _state(path, overwrite)
            temporary, file = stack.enter_context(private_file(path))
            if before is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
        yield NewFile(path, file)
        with explain_write_errors(path):
            file.flush()
            os.fsync(file.fileno())
            _publish(temporary, path, before, overwrite)
            fsync(path.parent)


@contextmanager
def _new_object(address: Address, *, overwrite: bool) -> Iterator[NewFile]:
    remote.refuse_unwritable(address)
    if address.is_dir() or (address.is_file() and not overwrite):
        raise OutputConflictError(
            f"{address} exists already: choose another name"
            + (", or add --overwrite to replace it" if address.is_file() else ", there are objects below it")
        )
    with tempfile.TemporaryFile() as file:
        yield NewFile(address, file)
        file.seek(0)
        data = file.read()
    if overwrite:
        remote.write(address, data)
    elif not remote.create(address, data):
        raise OutputConflictError(
            f"{address} appeared while this command was working, so it is left as it is: choose another name, or add "
            "--overwrite to replace it"
        )


def write_file(out: NewFile | Path | str, data: bytes) -> None:
    """Write a whole file: one that is claimed already, or one of this path, which may exist.

    Raises:
        OutputConflictError: another process is writing it.
        StorageFullError: the disk is full.
        WriteError: it cannot be written for another reason.
    """
    if isinstance(out, NewFile):
        out.write(data)
        return
    with new_file(Path(out), overwrite=True) as file:
        file.write(data)


def _state(path: Path, overwrite: bool) -> os.stat_result | None:
    refuse_existing(path, overwrite=overwrite)
    return refuse_irregular(path, links=False)


def _publish(temporary: Path, path: Path, before: os.stat_result | None, overwrite: bool) -> None:
    """Give a finished file its name, unless something else has taken the name since the work began."""
    appeared = OutputConflictError(
        f"{path} appeared or changed while this command was working, so it is left as it is: choose another name"
        + ("" if overwrite else ", or add --overwrite to replace it")
    )
    there = refuse_irregular(path, links=False)
    if _identity(there) != _identity(before):
        raise appeared
    if there is None:
        try:
            os.link(temporary, path)  # fails if the name is taken, which a rename does not
        except FileExistsError:
            raise appeared from None
        except OSError:  # a file system without hard links; the lock still keeps our own processes apart
            os.replace(temporary, path)
    else:
        os.replace(temporary, path)


def _identity(there: os.stat_result | None) -> tuple[int, ...] | None:
    return None if there is None else (there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns)


def start_over(folder: Path) -> None:
    """Remove an earlier output of ours; anything else is refused.

    Raises:
        OutputConflictError: the folder holds files but no manifest of ours.
    """
    _refuse_file(folder)
    if _is_empty(folder):
        return
    if not (folder / MANIFEST).exists():
        raise OutputConflictError(f"{folder} was not written by pocketiqa, so --overwrite will not remove it")
    if isinstance(folder, Address):
        remote.remove_all(folder, [name for name in remote.names_below(folder) if name not in (MANIFEST, LOCK)])
        (folder / MANIFEST).unlink(missing_ok=True)
        return
    # The manifest goes last: a removal that is interrupted can be repeated.
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name not in (MANIFEST, LOCK):  # the lock is held: removed, it would protect nothing
            entry.unlink()
    (folder / MANIFEST).unlink()
