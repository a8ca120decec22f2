"""Digests, canonical JSON with checksums, and writes that happen whole or not at all."""

import csv
import fcntl
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote_from_bytes, unquote, unquote_to_bytes

from pseudo_labels import claims, remote
from pseudo_labels.errors import (
    EXHAUSTED,
    FULL,
    IntegrityError,
    OutputConflictError,
    PocketiqaError,
    StorageFullError,
    WriteError,
    system_words,
)
from pseudo_labels.remote import Address

CHECKSUM = "checksum"
"""Key of a JSON record that holds the SHA-256 of the rest of it."""


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's content, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one JSON spelling of ``value``: sorted keys, UTF-8, no NaN, newline at the end.

    Raises:
        ValueError: ``value`` holds a NaN or an infinity, or is nested too deeply.
    """
    try:
        text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # Names of files may hold lone surrogates (bytes that are not UTF-8); they must survive a round trip.
    return (text + "\n").encode("utf-8", "surrogatepass")


def digest_of(value: Any) -> str:
    """SHA-256 of the canonical JSON of ``value``: equal values, equal digests."""
    return sha256_bytes(canonical_json(value))


MAX_JSON_BYTES = 256 << 20
"""Largest JSON file that is read."""
MAX_JSON_VALUES = 5_000_000
"""Values in a JSON text, at most: in memory each takes up to 200 bytes."""


def parse_json(text: str | bytes) -> Any:
    """``json.loads``, with one kind of error for whatever is wrong with the text.

    Raises:
        ValueError: not JSON, nested too deeply, with a number of thousands of digits, or above ``MAX_JSON_VALUES``.
    """
    marks = [",", "[", "{"] if isinstance(text, str) else [b",", b"[", b"{"]
    if sum(map(text.count, marks)) > MAX_JSON_VALUES:  # pyright: ignore[reportArgumentType] - both are of one kind
        raise ValueError(f"more than {MAX_JSON_VALUES} values")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path, *, what: str) -> Any:
    """Parse a JSON file that we wrote; ``what`` names it in the error.

    Raises:
        PocketiqaError: the file is missing, cannot be read, or has more than ``MAX_JSON_BYTES``.
        IntegrityError: the file is not JSON.
    """
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise PocketiqaError(
                f"the {what} at {path} has {size} bytes, above the limit of {MAX_JSON_BYTES}: restore it"
            )
        return parse_json(path.read_bytes().decode("utf-8", "surrogatepass"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PocketiqaError(f"no {what} at {path}: the file does not exist") from error
    except OSError as error:
        raise PocketiqaError(f"the {what} at {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise IntegrityError(f"the {what} at {path} is not valid JSON ({error}); restore it or start over") from error


def checksummed_json(record: Mapping[str, Any]) -> bytes:
    """Canonical JSON of a record with its checksum; ``read_record`` verifies it.

    Raises:
        ValueError: the record holds a NaN or an infinity.
    """
    # The digest is taken of what a reader gets: keys that are numbers come back as text, in another order.
    as_read = {key: value for key, value in json.loads(canonical_json(record)).items() if key != CHECKSUM}
    return canonical_json({**as_read, CHECKSUM: digest_of(as_read)})


_REMEDY = "restore it, or make it anew"


def verified(record: Any, *, what: str, remedy: str = _REMEDY) -> Any:
    """A record without its checksum, which is verified; what has none (earlier versions wrote none) passes.

    Raises:
        IntegrityError: the checksum is that of another content; ``what`` names the record, ``remedy`` the next step.
    """
    if not isinstance(record, dict) or CHECKSUM not in record:
        return record
    content = {key: value for key, value in record.items() if key != CHECKSUM}
    if record[CHECKSUM] != digest_of(content):
        raise IntegrityError(f"the {what} was altered: its checksum is that of another content; {remedy}")
    return content


def read_record(path: Path, *, what: str, remedy: str = _REMEDY) -> Any:
    """As ``read_json``; the checksum, where there is one, is verified and left out.

    Raises:
        PocketiqaError: the file is missing, or cannot be read.
        IntegrityError: the file is not JSON, or was altered.
    """
    return verified(read_json(path, what=what), what=f"{what} at {path}", remedy=remedy)


def checksummed_line(record: Mapping[str, Any]) -> bytes:
    """A record as one line of JSON with its checksum; ``read_lines`` verifies it."""
    # NaN is no JSON: readers in other languages would refuse the whole line.
    as_read = json.loads(json.dumps(record, allow_nan=False))
    return json.dumps({**as_read, CHECKSUM: digest_of(as_read)}, sort_keys=True).encode() + b"\n"


def read_lines(path: Path, *, what: str, torn: bool = False) -> list[Any]:
    """The records of a file of JSON lines, without their checksums, which are verified where there are any.

    Args:
        path: file to read.
        what: names the file in an error.
        torn: stop before the first line that is not whole, as a killed process leaves it.

    Raises:
        PocketiqaError: the file is missing, or cannot be read.
        IntegrityError: a line is not JSON, or was altered.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise PocketiqaError(f"the {what} at {path} cannot be read: {system_words(error)[0]}") from error
    records: list[Any] = []
    for number, line in enumerate(lines, start=1):
        try:
            if line:
                records.append(verified(parse_json(line), what=f"line {number} of the {what} at {path}"))
        except (ValueError, IntegrityError) as error:
            if torn:
                break
            if isinstance(error, IntegrityError):
                raise
            raise IntegrityError(f"line {number} of the {what} at {path} is not JSON: restore it") from error
    return records


def utf8_path(path: str | os.PathLike[str]) -> str:
    """A path as valid UTF-8, from which its bytes can be had again.

    A name that is not UTF-8 becomes ``file://`` and its absolute path, percent-encoded; all others stay as they are. No
    normalised path begins like that, as it has no empty part.
    """
    text = os.fspath(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        return "file://" + quote_from_bytes(os.fsencode(os.path.abspath(text)), safe="")
    return text


def from_utf8_path(text: str) -> str:
    """Inverse of ``utf8_path``."""
    return os.fsdecode(unquote_to_bytes(text.removeprefix("file://"))) if text.startswith("file://") else text


def local_path(address: str, base: Path | None = None) -> Path | None:
    """The local file behind an address; None if it is a member, a row or a remote file."""
    if address.startswith("file://"):
        return Path(from_utf8_path(address))
    if "://" in address and not address.startswith("/"):
        return None
    if isinstance(base, Address):
        return Path(address) if address.startswith("/") else None
    return Path(address) if base is None else base / address


def name_of(address: str) -> str:
    """What the image at an address is called: the name of its own file, or its row after the name of the table.

    For a person: always valid UTF-8, with marks in the place of what is not.
    """
    path = local_path(address)
    if path is not None:
        return os.fsencode(path.name).decode(errors="replace")
    scheme, _, rest = address.partition("://")
    inner = unquote(rest.partition("::")[0].rpartition("?")[0]) if scheme == "tar" else rest
    return inner.rsplit("/", 1)[-1]


def csv_line(cells: Iterable[str]) -> str:
    """One line of CSV; a cell with a comma, quote or line break of any kind is quoted (RFC 4180).

    The line ends with LF, as in earlier versions.
    """
    text = io.StringIO()
    # Python's writer quotes only those line breaks that occur in its own line end.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


@contextmanager
def explain_write_errors(path: Path, *, named: str | None = None) -> Iterator[None]:
    """Turn what the system refuses into a message that says what is safe and what to do.

    Args:
        path: file or folder that is written.
        named: what the message calls it; None is its path.

    Raises:
        StorageFullError: instead of an OSError with ENOSPC or EDQUOT.
        WriteError: instead of any other that concerns ``path`` and its folder, or the whole machine.
    """
    try:
        yield
    except BrokenPipeError:
        raise  # a reader that has read enough, such as head
    except OSError as error:
        if error.errno is None or not (error.errno in EXHAUSTED or _concerns(error, path)):
            raise
        refused, step = system_words(error)
        if error.errno in FULL:
            raise StorageFullError(
                f"no space left while writing {named or path}: everything committed so far is valid; "
                f"{step} and run the same command again to resume"
            ) from error
        raise WriteError(
            f"{named or path} cannot be written: {refused}; {step}, then run the same command again"
        ) from error


def _concerns(error: OSError, path: Path) -> bool:
    """Whether an error is about this path, what lies in it, beside it or above it, as far as it says."""
    target = os.path.abspath(path)
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    return not names or any(
        os.path.dirname(name) in (target, os.path.dirname(target)) or target.startswith(os.path.join(name, ""))
        for name in map(os.path.abspath, names)
    )


# What a writer names its private files and folders: .NAME.PROCESS-TOKEN.tmp, .staged, or .old.staged.
_PRIVATE = re.compile(r"\.(?P<name>.+?)\.\d+(?:-[0-9a-f]+)?(?P<old>\.old)?\.(?:tmp|staged)", re.DOTALL)
_LONGEST_NAME = 180  # bytes; file systems allow 255, and a private name is longer than the final one


def private_name(name: str, end: str) -> str:
    """A name for a private file beside the file ``name``: hidden, and never too long for the file system."""
    raw = os.fsencode(name)
    return f".{name if len(raw) <= _LONGEST_NAME else sha256_bytes(raw)}{end}"


def is_leftover(path: Path) -> bool:
    """Whether ``path`` is named like what a killed ``write_atomic`` or ``staged_folder`` left behind."""
    return _PRIVATE.fullmatch(path.name) is not None


def remove_leftovers(folder: Path, name: str | None = None, *, alone: bool = False) -> None:
    """Remove what killed writers left in ``folder``; what a living process is writing stays.

    Args:
        folder: searched itself, not below.
        name: only leftovers of the file or folder of this final name; None is all.
        alone: no other process may be writing this now; needed where the file system gives no locks.
    """
    wanted = None if name is None else private_name(name, "").removeprefix(".")
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = _PRIVATE.fullmatch(entry.name)
        if match is not None and wanted in (None, match["name"]):
            _remove_dead(entry, folder / match["name"] if match["old"] else None, alone)


def _remove_dead(path: Path, replaced: Path | None, alone: bool) -> None:
    """Remove a private file or folder whose writer is gone; ``replaced`` is the final name of an old folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # a link, or gone meanwhile
        return
    try:
        if _lock(descriptor) in ((True, None) if alone else (True,)):
            if replaced is not None and not replaced.exists():
                os.replace(path, replaced)  # killed between its two renames: the old folder is the only one
            elif stat.S_ISDIR(os.fstat(descriptor).st_mode):
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Lock an open file or folder without waiting: whether it worked; None where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _create_private(final: Path, end: str) -> tuple[Path, int]:
    """Make a private file (``.tmp``) or folder (``.staged``) and hold its lock, which says that its writer lives."""
    while True:
        path = final.with_name(private_name(final.name, f".{os.getpid()}-{secrets.token_hex(4)}{end}"))
        if end == ".staged":
            path.mkdir()
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # taken for a leftover, as below
        else:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        # In the moment before the lock, another process or thread may have taken it for a leftover.
        if _lock(descriptor) is not False and _is_at(descriptor, path):
            return path, descriptor
        os.close(descriptor)


@contextmanager
def private_file(final: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new file beside ``final`` that nobody else writes or removes; it is gone afterwards unless it was renamed.

    Yields:
        Its path, and the file open for writing.
    """
    path, descriptor = _create_private(final, ".tmp")
    try:
        with open(descriptor, "w+b") as file:
            yield path, file
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def private_folder(final: Path) -> Iterator[Path]:
    """A new folder beside ``final`` that nobody else writes or removes; it is gone afterwards unless it was renamed."""
    path, descriptor = _create_private(final, ".staged")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


@contextmanager
def in_use(folder: Path, *, alone: bool = False) -> Iterator[bool]:
    """Keep a folder from those who ask for it alone, as long as the block runs.

    Args:
        folder: any folder.
        alone: ask for it alone; not given while another process or thread uses it.

    Yields:
        Whether it is there and was given.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_NB | (fcntl.LOCK_EX if alone else fcntl.LOCK_SH))
        except OSError:
            yield False
        else:
            yield _is_at(descriptor, folder)
    finally:
        os.close(descriptor)


def fsync(path: Path) -> None:
    """Make sure that a file's content, or a folder's list of names, survives a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` in one step; a reader sees the old file or the new one, never a part.

    For files in folders that are ours; a file that a user names is written by ``outputs.new_file``.

    Raises:
        StorageFullError: the disk is full; the old file is untouched.
        WriteError: it cannot be written for another reason, or is a device or something else that is no file.
    """
    if isinstance(path, Address):
        remote.write(path, data)
        return
    with explain_write_errors(path):
        refuse_irregular(path)
        with private_file(path) as (temporary, file):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
        fsync(path.parent)


def refuse_irregular(path: Path, *, links: bool = True) -> os.stat_result | None:
    """Refuse to replace what is no regular file.

    Args:
        path: file to be written.
        links: whether a symbolic link may be replaced.

    Returns:
        What is there now; None if nothing is.

    Raises:
        WriteError: a folder, device, pipe or socket is there, or a link although ``links`` is false.
    """
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISREG(there.st_mode) or (links and stat.S_ISLNK(there.st_mode)):
        return there
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    kind = kinds.get(stat.S_IFMT(there.st_mode), "a device")
    raise WriteError(f"{path} is {kind} and no regular file, so it is not replaced: name another file")


@contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """Give a folder to fill; on success it is fsynced and renamed to ``final``, else removed.

    An existing ``final`` is replaced only after the new one is complete: it is renamed aside, so it never stands there
    in part. Leftovers of killed writers of the same ``final`` are removed first.

    Raises:
        StorageFullError: the disk is full; ``final`` is untouched.
        WriteError: it cannot be written for another reason.
    """
    with explain_write_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(final.parent, final.name, alone=True)
        staged, descriptor = _create_private(final, ".staged")
    replaced = staged.with_name(staged.name.removesuffix(".staged") + ".old.staged")
    try:
        with explain_write_errors(final):
            yield staged
            for file in sorted(staged.rglob("*")):
                fsync(file)
            os.fsync(descriptor)
            if final.exists():
                os.replace(final, replaced)
            os.replace(staged, final)
            fsync(final.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
        os.close(descriptor)


@contextmanager
def exclusive(path: Path, *, what: str, wait: bool = True) -> Iterator[None]:
    """Hold the lock file ``path``; it is removed afterwards, and means nothing once its holder is gone.

    Args:
        path: lock file, or the address of a claim, see ``claims``.
        what: names the thing in messages.
        wait: of a claim alone: see ``claims.held``.

    Raises:
        OutputConflictError: another living process holds it.
        WriteError: the (empty) lock file cannot be written.
    """
    if isinstance(path, Address):
        with claims.held(path, what=what, wait=wait):
            yield
        return
    descriptor = _acquire(path, what)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)  # while the lock is still held: see _acquire
        os.close(descriptor)


def _acquire(path: Path, what: str) -> int:
    while True:
        with explain_write_errors(path, named=what):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise OutputConflictError(
                f"another process is writing {what}: wait for it or stop it, then run the same command again"
            ) from None
        except OSError as error:
            os.close(descriptor)
            refused, step = system_words(error)
            raise WriteError(f"{what} cannot be written: {refused}; {step}, then run the same command again") from error
        if _is_at(descriptor, path):
            return descriptor
        # The former holder removed the file between our open and our lock: what we hold protects nothing.
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
