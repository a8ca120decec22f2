"""Errors that a user can act on: the command line prints their message as one line, without a traceback."""

import errno
import json
import reprlib
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_CLONE = Path(__file__).resolve().parents[1]


class PocketiqaError(Exception):
    """Something the user can mend; the message names the value received and the next step."""


class OutputConflictError(PocketiqaError):
    """An output folder already holds something that this command must not mix with."""


class IntegrityError(PocketiqaError):
    """A file does not match the digest recorded when it was written."""


class WorkExceededError(PocketiqaError):
    """A file asks for more work or memory than its kind can need; the message says what there is too much of."""


class WriteError(PocketiqaError):
    """The system refused to write a file; whatever was there before is untouched."""


class StorageFullError(WriteError):
    """The disk or quota is full; everything committed before is still valid."""


# What the system's error numbers mean here, and the next step.
_SYSTEM: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("no space left", "free some space"),
    errno.EDQUOT: ("no space left in your quota", "remove files of yours or ask for a larger quota"),
    errno.EFBIG: ("the file is larger than allowed", "raise the limit (ulimit -f), or use another file system"),
    errno.EROFS: ("the disk is read-only", "choose a folder on another disk"),
    errno.EACCES: ("no permission", "change the permissions of the file or its folder, or choose another path"),
    errno.EPERM: ("the system does not allow it", "change the permissions of the file, or choose another path"),
    errno.EMFILE: ("too many open files", "raise the limit (ulimit -n), or use fewer workers"),
    errno.ENFILE: ("too many open files on this machine", "close other programs"),
    errno.ENOMEM: ("not enough memory", "close other programs, or use fewer workers"),
    errno.EIO: ("the disk reports a fault", "check the disk, or choose a folder on another one"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.ENOENT: ("the file or its folder does not exist", "check the path"),
    errno.ENOTDIR: ("a part of the path is a file and no folder", "check the path"),
    errno.EISDIR: ("it is a folder and no file", "check the path"),
    errno.ELOOP: ("too many symbolic links", "name the file itself"),
    errno.ENOLCK: ("the file system gives no locks", "choose a folder on another disk"),
    errno.EOPNOTSUPP: ("the file system cannot do this", "choose a folder on another disk"),
}
FULL = {errno.ENOSPC, errno.EDQUOT}
"""Numbers of errors that say that a disk, or somebody's part of it, is full."""
EXHAUSTED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO}
"""Numbers of errors that concern the whole machine, disk or process, whichever file was in work."""


def system_words(error: OSError) -> tuple[str, str]:
    """What the system refused, and the next step, both as a part of a sentence."""
    unknown = error.strerror or str(error) or type(error).__name__
    return _SYSTEM.get(error.errno or 0, (unknown, "mend this"))


# Python shows a FutureWarning to every user, but hides most DeprecationWarnings.
class RenamedWarning(FutureWarning):
    """An old name was used; it is read in this release only."""


class _Shown(reprlib.Repr):
    """``repr`` of a bounded length, in bounded time."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80
        self.maxlong = 40
        self.maxlevel = 4

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write out very long integers, and takes long over less long ones.
        return super().repr_int(x, level) if x.bit_length() < 1000 else f"an integer of {x.bit_length()} bits"


shown = _Shown().repr
"""``repr`` for messages: a value that somebody else wrote, cut to a readable length however large or nested it is."""


def read_renamed(values: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """The same values under today's names.

    Args:
        values: by names that a user gave; where both the old and the new one are given, the old one stays.
        renamed: old name to new name.

    Warns:
        RenamedWarning: for each old name; it says the new one.
    """
    old = [name for name in renamed if name in values and renamed[name] not in values]
    for name in old:
        text = f"{name!r} is called {renamed[name]!r} now; the old name is read in this release only"
        # Where it is reported: the caller of the function that reads the names.
        warnings.warn(text, RenamedWarning, stacklevel=3)
    return {renamed[name] if name in old else name: value for name, value in values.items()}


def install_command(*extras: str) -> str:
    """The command that installs extras of pocketiqa where this code comes from, to be quoted in a message.

    In a clone pip must be given the folder, as the name alone would ask a package index for another release; an
    installation from a folder or a repository is repeated from there.

    Args:
        extras: of ``pyproject.toml``, such as ``train``.
    """
    source, wanted = _source(), ",".join(extras)
    if "+" in source.partition("://")[0]:
        return f"pip install 'pocketiqa[{wanted}] @ {source}'"
    return f"pip install '{source}[{wanted}]'"


def _source() -> str:
    """What pip is to be given: a folder (``.`` for the current one), the address of a repository, or the name."""
    if (_CLONE / "pyproject.toml").is_file():
        return "." if Path.cwd() == _CLONE else str(_CLONE)
    try:
        # Written by pip for what did not come from an index (PEP 610).
        record = json.loads(distribution("pocketiqa").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return "pocketiqa"
    address = str(record.get("url", ""))
    if "vcs_info" in record:
        return f"{record['vcs_info'].get('vcs', 'git')}+{address}"
    folder = Path(unquote(urlsplit(address).path))
    return str(folder) if "dir_info" in record and folder.is_dir() else "pocketiqa"
