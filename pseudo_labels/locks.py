"""One writer at a time: a lock that the system releases when its holder dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pseudo_labels.errors import OutputConflictError
from pseudo_labels.files import explain_full_disk


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
