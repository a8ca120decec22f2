"""Digests, canonical JSON and writes that happen whole or not at all."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pseudo_labels.errors import IntegrityError, OutputConflictError, PocketiqaError, StorageFullError

_FULL = {errno.ENOSPC, errno.EDQUOT}


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


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn "no space left" into a message that says what is safe and what to do.

    Raises:
        StorageFullError: instead of an OSError with ENOSPC or EDQUOT.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageFullError(
            f"no space left while writing {path}: everything committed so far is valid; "
            "free some space and run the same command again to resume"
        ) from error


def is_leftover(path: Path) -> bool:
    """Whether ``path`` is what a killed ``write_atomic`` left behind."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def remove_leftovers(folder: Path) -> None:
    """Remove what killed ``write_atomic`` calls left in ``folder``, into which no other process may be writing now."""
    for entry in folder.iterdir():
        if is_leftover(entry):
            entry.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` in one step; a reader sees the old file or the new one, never a part.

    Raises:
        StorageFullError: the disk is full; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with explain_full_disk(path):
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """Give a folder to fill; on success it is fsynced and renamed to ``final``, else removed.

    An existing ``final`` is replaced only after the new one is complete: it is renamed aside, so it never stands there
    in part. Leftovers of killed writers of the same ``final`` are removed first, so two processes must not stage the
    same one.

    Raises:
        StorageFullError: the disk is full; ``final`` is untouched.
    """
    for leftover in final.parent.glob(f".{final.name}.*.staged"):
        shutil.rmtree(leftover, ignore_errors=True)
    staged = final.parent / f".{final.name}.{os.getpid()}.staged"
    replaced = final.parent / f".{final.name}.{os.getpid()}.old.staged"
    try:
        with explain_full_disk(final):
            staged.mkdir(parents=True)
            yield staged
            for file in sorted(staged.rglob("*")):
                _fsync(file)
            _fsync(staged)
            if final.exists():
                os.replace(final, replaced)
            os.replace(staged, final)
            _fsync(final.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def exclusive(path: Path, *, what: str) -> Iterator[None]:
    """Hold the lock file ``path``; it is removed afterwards, and means nothing once its holder is gone.

    Raises:
        OutputConflictError: another living process holds it; ``what`` names the thing in the message.
        StorageFullError: the disk has no room for the (empty) lock file.
    """
    descriptor = _acquire(path, what)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while the lock is still held: see _acquire
        os.close(descriptor)


def _acquire(path: Path, what: str) -> int:
    while True:
        with explain_full_disk(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise OutputConflictError(
                f"another process is writing {what}: wait for it or stop it, then run the same command again"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        if _is_at(descriptor, path):
            return descriptor
        # The former holder removed the file between our open and our lock: what we hold protects nothing.
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
