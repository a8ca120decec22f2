"""Object stores and other remote file systems by address (``s3://bucket/labels``): paths, and whole objects.

An ``Address`` is a path whose object lies elsewhere: it is joined and shown as paths are, and read by ``read_bytes``,
``is_file`` and so on. What would open it as a local file is refused by name, so that no local folder ``s3:`` is ever
made. Every request is repeated with growing pauses until the store answers, see ``retried``.

Objects are put whole. In an object store that is what a put does; on other file systems (``sftp``) the object is
written under a private name and renamed.
"""

import errno
import os
import random
import re
import secrets
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PosixPath
from typing import Any, TypeVar

from pseudo_labels.errors import FULL, PocketiqaError, StorageFullError, WriteError, install_command, shown

Result = TypeVar("Result")

TRIES = 8
"""How often a request is made before its failure is reported."""
FIRST_PAUSE_S = 0.25
"""Pause after the first failure; each is twice the one before, at most ``LONGEST_PAUSE_S``, less up to a half."""
LONGEST_PAUSE_S = 16.0

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)
_LOCAL = {"file", "local"}
_READ_ONLY = {"http", "https", "data", "github", "git", "zip", "tar"}
# Stores of objects, in which a put shows the whole object or none.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "obs", "memory"}
_EXTRAS = {"s3": "s3", "s3a": "s3"}
# What another try cannot mend: nothing there, something there, no right to it, a wrong call or setting.
_PERMANENT = (
    FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError,
    ImportError, TypeError, ValueError, PocketiqaError,
)  # fmt: skip
_PERMANENT_NAMES = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "NoRegionError",
                    "ParamValidationError", "TokenRetrievalError", "SSOTokenLoadError"}  # fmt: skip


class Address(PosixPath):
    """A path in a remote file system, such as ``s3://bucket/labels``; made by ``location``.

    Paths fold the two slashes after the scheme into one; they come back where an address is shown or used.
    """

    def __str__(self) -> str:
        scheme, _, rest = super().__str__().partition(":/")
        return f"{scheme}://{rest}"

    def __fspath__(self) -> str:
        raise PocketiqaError(f"{self} is an address, and a local path is needed here: copy it, and name the copy")

    @property
    def scheme(self) -> str:
        """``s3``, ``gs``, ..."""
        return self.parts[0].removesuffix(":").lower()

    def absolute(self) -> "Address":
        """Itself."""
        return self

    def resolve(self, strict: bool = False) -> "Address":
        """Itself: there are no links."""
        return self

    def expanduser(self) -> "Address":
        """Itself."""
        return self

    def exists(self, **_options: Any) -> bool:
        """Whether there is an object of this name, or any below it."""
        return bool(self._kind())

    def is_file(self, **_options: Any) -> bool:
        """Whether there is an object of this name."""
        return self._kind() == "file"

    def is_dir(self, **_options: Any) -> bool:
        """Whether there are objects below this name."""
        return self._kind() == "directory"

    def _kind(self) -> str:
        """``file``, ``directory``, or empty where there is nothing."""
        # Not by ``isfile`` and the like, to which every failure means that nothing is there.
        try:
            return str(retried(self, lambda system, name: system.info(name)["type"]))
        except FileNotFoundError:
            return ""

    def is_symlink(self) -> bool:
        """Never."""
        return False

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """The size, in bytes; nothing else is known."""
        size = retried(self, lambda system, name: int(system.info(name)["size"] or 0))
        return os.stat_result((0, 0, 0, 1, 0, 0, size, 0, 0, 0))

    def read_bytes(self) -> bytes:
        """The whole object."""
        return retried(self, lambda system, name: bytes(system.cat_file(name)))

    def iterdir(self) -> Generator["Address", None, None]:
        """What lies directly below."""

        def inside(system: Any, own: str) -> list[str]:
            # Consoles of object stores make an empty object of the folder's own name for a folder.
            return sorted(name for name in system.ls(own, detail=False) if name.rstrip("/") != own.rstrip("/"))

        for name in retried(self, inside):
            yield self / name.rstrip("/").rsplit("/", 1)[-1]

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: folders are there where objects are."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        try:
            retried(self, lambda system, name: system.rm_file(name))
        except FileNotFoundError:
            if not missing_ok:
                raise


def location(path: str | os.PathLike[str]) -> Path:
    """A local path, or the ``Address`` that a text or path spells.

    ``file://`` is a local path. A path of which the slashes were folded (``Path("s3://b")`` is ``s3:/b``) is an address
    too, unless there is a local file or folder ``s3:``.

    Raises:
        PocketiqaError: an address of addresses (``zip://a::s3://b``).
    """
    if isinstance(path, Address):
        return path
    text = os.fspath(path)
    folded = Path(text)
    scheme = folded.parts[0] if folded.parts else ""
    spelled = "://" in text or (isinstance(path, Path) and not os.path.lexists(scheme))
    if not spelled or not _SCHEME.fullmatch(scheme):
        return folded
    if scheme.removesuffix(":").lower() in _LOCAL:
        return Path("/", *folded.parts[1:])
    if "::" in text:
        raise PocketiqaError(f"chained addresses such as {shown(text)} are not supported: unpack the archive first")
    return Address(text)


def refuse_unwritable(address: Address) -> None:
    """Refuse an address that can only be read, or whose package is not installed.

    Raises:
        PocketiqaError: see above.
    """
    if address.scheme in _READ_ONLY:
        raise WriteError(
            f"{address} cannot be written: {address.scheme} is only read; name a local path, or an address of a store "
            "such as s3://bucket/labels"
        )
    _opened(address)


def retried(address: Address | str, action: Callable[[Any, str], Result]) -> Result:
    """Do something with a file system of fsspec and the name of an object there, again where it fails.

    Args:
        address: of the object; of images as text, for their names may hold two slashes in a row.
        action: called with both; may be called several times.

    Raises:
        FileNotFoundError: there is no such object.
        FileExistsError: there is one, and it was to be made anew.
        PocketiqaError: the store cannot be reached, refuses, or its package is not installed.
    """
    for number in range(1, TRIES + 1):
        try:
            system, name = _opened(address)
            # Others write too: what a file system remembers of a folder is no answer.
            system.invalidate_cache()
            return action(system, name)
        except (FileNotFoundError, FileExistsError, PocketiqaError):
            raise
        except Exception as error:  # each file system has errors of its own
            if is_taken(error):
                raise FileExistsError(errno.EEXIST, "is there already", str(address)) from error
            last = isinstance(error, _PERMANENT) or type(error).__name__ in _PERMANENT_NAMES
            if last or number == TRIES:
                raise _unreachable(address, error, number) from error
        time.sleep(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (number - 1)) * random.uniform(0.5, 1))
    raise AssertionError("the last try returns or raises")


def is_taken(error: Exception) -> bool:
    """Whether a store refused a put because something is there (HTTP status 412)."""
    answer = getattr(error.__cause__, "response", None) or getattr(error, "response", None)
    code = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None
    return isinstance(error, FileExistsError) or code in ("PreconditionFailed", "412")


def _unreachable(address: Address | str, error: Exception, tries: int) -> PocketiqaError:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, PermissionError) or type(error).__name__ in _PERMANENT_NAMES:
        return WriteError(f"{address}: the store refuses it ({shown(text)}): check name, rights and credentials")
    again = "" if tries == 1 else f", {tries} times"
    return WriteError(
        f"{address} cannot be read or written ({type(error).__name__}: {text[:300]}){again}; what was committed is "
        "kept: check the connection and run the same command again"
    )


def write(address: Address, data: bytes) -> None:
    """Put an object, whatever was there.

    Raises:
        PocketiqaError: the store cannot be reached, refuses, or does not know the bucket.
    """
    _put(address, lambda system, name: _whole(address, system, name, data))


def create(address: Address, data: bytes) -> bool:
    """Put an object unless there is one with another content.

    Returns:
        Whether the object holds ``data`` now. In a store without conditional puts (``has_conditional_put``) another
        process may put one at the same moment.

    Raises:
        PocketiqaError: as ``write``.
    """
    try:
        if has_conditional_put(address.parent):
            _put(address, lambda system, name: system.pipe_file(name, data, mode="create"))
        elif address.is_file():
            raise FileExistsError(address.name)
        else:
            write(address, data)
    except FileExistsError:
        # Perhaps ours: of a try of which the answer was lost, or of a process that did the same.
        try:
            return address.read_bytes() == data
        except FileNotFoundError:  # and gone since
            return False
    return True


def _put(address: Address, action: Callable[[Any, str], None]) -> None:
    try:
        retried(address, action)
    except FileNotFoundError as error:
        raise WriteError(f"{address} cannot be written: there is no bucket or folder of this name; make it") from error


def _whole(address: Address, system: Any, name: str, data: bytes) -> None:
    if address.scheme in _OBJECT_STORES:
        system.pipe_file(name, data)
        return
    folder, _, own = name.rpartition("/")
    private = f"{folder}/.{own}.{secrets.token_hex(4)}.tmp"
    system.makedirs(folder, exist_ok=True)
    system.pipe_file(private, data)
    system.mv(private, name)


def fetch(address: Address, staged: Path) -> None:
    """Copy an object into a local file.

    Raises:
        FileNotFoundError: there is no such object.
        PocketiqaError: the store cannot be reached, or refuses.
    """

    def copy(system: Any, name: str) -> None:
        try:
            with system.open(name, "rb") as source, open(staged, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        except OSError as error:
            if error.errno in FULL:  # here, not there: no further try helps
                raise StorageFullError(f"no space left while writing {staged}: free some, and run it again") from error
            raise

    retried(address, copy)


def names_below(folder: Address) -> list[str]:
    """Names of all objects below an address, relative to it, sorted; none if there are none."""

    def find(system: Any, name: str) -> list[str]:
        start = len(name.rstrip("/")) + 1
        return sorted(found[start:] for found in system.find(name) if found[start:])

    try:
        return retried(folder, find)
    except FileNotFoundError:
        return []


def remove_all(folder: Address, names: list[str]) -> None:
    """Remove objects below an address, in the order of their names; what is gone is passed over."""
    for name in names:
        with suppress(FileNotFoundError):
            # As text: a name may begin with a slash.
            retried(f"{folder}/{name}", lambda system, own: system.rm_file(own))


def has_conditional_put(folder: Address) -> bool:
    """Whether of two processes that put the same new object in this store one is refused; tried, and remembered.

    S3 and Google's and Microsoft's stores do; some servers that speak S3 take the condition and ignore it.
    """
    bucket = folder.parts[:2]
    if folder.scheme not in _OBJECT_STORES:
        return False
    if bucket not in _CONDITIONAL:
        # Named as what a killed writer leaves, so that a folder which holds nothing else counts as empty.
        name = f".probe.{os.getpid()}-{secrets.token_hex(4)}.tmp"
        _CONDITIONAL[bucket] = _refuses_second(folder / name)
    return _CONDITIONAL[bucket]


_CONDITIONAL: dict[tuple[str, ...], bool] = {}


def _refuses_second(probe: Address) -> bool:
    try:
        for _ in range(2):
            _put(probe, lambda system, name: system.pipe_file(name, b"probe", mode="create"))
    except FileExistsError:  # of the second put; or of the first, whose answer was lost, which shows the same
        return True
    finally:
        probe.unlink(missing_ok=True)
    return False


@lru_cache(maxsize=64)
def _package_of(scheme: str) -> str:
    from fsspec.registry import known_implementations

    return str(known_implementations.get(scheme, {}).get("err", "")).removesuffix(".")


def _opened(address: Address | str) -> tuple[Any, str]:
    """File system and name there; made once for each process and setting, which fsspec remembers.

    Raises:
        PocketiqaError: no package reads such addresses, or it is not installed.
    """
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as error:
        raise PocketiqaError(f"{address} needs the package fsspec: {install_command('tables')}") from error
    try:
        return url_to_fs(str(address))
    except ImportError as error:
        scheme = str(address).partition(":")[0].lower()
        extra = _EXTRAS.get(scheme)
        step = install_command(extra) if extra else _package_of(scheme) or str(error)
        raise PocketiqaError(f"{address} needs another package: {step}") from error
    except ValueError as error:
        raise PocketiqaError(
            f"{address} is no address that can be read or written ({error}): s3, gs, az and the like are known; a "
            "local path of this name is given absolute"
        ) from error
