"""A folder of this machine that keeps what was read from object stores, up to a limit; what was used last stays.

``$POCKETIQA_CACHE`` (``~/.cache/pocketiqa/objects``) holds at most ``$POCKETIQA_CACHE_GB`` (20) gigabytes. An entry is
a folder whose name is the SHA-256 of what identifies its content, and its size: a copy is never out of date, whatever
happens at the address it came from. It is written aside and renamed, so it exists whole or not at all; any number of
processes may share the folder. What is in use is not removed.
"""

import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pseudo_labels import addresses
from pseudo_labels.defaults import OBJECT_CACHE_GB
from pseudo_labels.errors import PocketiqaError, WriteError, shown
from pseudo_labels.files import explain_write_errors, in_use, private_folder, remove_leftovers, sha256_bytes

FOLDER_VARIABLE = "POCKETIQA_CACHE"
LIMIT_VARIABLE = "POCKETIQA_CACHE_GB"
_DEFAULT_FOLDER = "~/.cache/pocketiqa/objects"
# Processes that share a cache which is too small for them remove what others have just fetched.
_TRIES = 3
_IMAGE = "image"
_ENTRY = re.compile(r"([0-9a-f]{64})-(\d+)")


def cache_folder() -> Path:
    """Where copies are kept."""
    return Path(os.environ.get(FOLDER_VARIABLE) or _DEFAULT_FOLDER).expanduser()


def cache_limit() -> int:
    """Most bytes that are kept.

    Raises:
        PocketiqaError: the variable holds no number of at least 0.
    """
    text = os.environ.get(LIMIT_VARIABLE) or str(OBJECT_CACHE_GB)
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0 <= limit < math.inf:
        raise PocketiqaError(f"{LIMIT_VARIABLE} is {shown(text)}: gigabytes are needed, such as 20, or 0 to keep none")
    return int(limit * 1e9)


@contextmanager
def held(key: str, fetch: Callable[[Path], bool], *, fresh: bool = False) -> Iterator[Path]:
    """The folder of an entry, fetched if it is not there; it stays as long as the block runs.

    Args:
        key: SHA-256 of what identifies the content, hexadecimal.
        fetch: fills a folder; says whether its content is what the key stands for. Else it is given but not kept.
        fresh: fetch it again and replace a copy that is there.

    Raises:
        StorageFullError: the disk is full.
        PocketiqaError: the folder cannot be written; and whatever ``fetch`` raises.
    """
    shelf, limit = cache_folder() / key[:2], cache_limit()
    for keep in (True,) * _TRIES + (False,):
        for entry in () if fresh else _entries_of(shelf, key):
            with in_use(entry) as given:
                if given:
                    with suppress(OSError):  # of another user: read all the same
                        os.utime(entry)
                    yield entry
                    return
        with ExitStack() as stack:
            with explain_write_errors(shelf):
                shelf.mkdir(parents=True, exist_ok=True)
                remove_leftovers(shelf)
                staged = stack.enter_context(private_folder(shelf / key))
                sound = fetch(staged)
                size = sum(file.stat().st_size for file in staged.iterdir())
            kept = sound and keep and size <= limit
            # An old copy that somebody reads stays, and this one is given in its place.
            if not kept or (fresh and not all(_remove(entry) for entry in _entries_of(shelf, key))):
                yield staged
                return
            make_room(size, limit)
            with suppress(OSError):  # another process was faster
                os.rename(staged, shelf / f"{key}-{size}")
        # Found now; or, in a cache that is too small for all who use it, removed already.
        fresh = False


def read_image(address: str, base: Path, digest: str) -> bytes:
    """The encoded image at an address, kept on this machine if it is that of another one.

    Args:
        address: see ``addresses``.
        base: folder or address that relative addresses start from.
        digest: SHA-256 of the image; empty where it is not known, and then nothing is kept.

    Raises:
        ImageError: as ``addresses.read``.
    """
    if not digest or not cache_limit() or not addresses.is_remote(address, base):
        return addresses.read(address, base)

    def fetch(staged: Path) -> bool:
        data = addresses.read(address, base)
        (staged / _IMAGE).write_bytes(data)
        return sha256_bytes(data) == digest

    data = b""
    for fresh in (False, True):
        try:
            with held(digest, fetch, fresh=fresh) as folder, suppress(OSError):
                data = (folder / _IMAGE).read_bytes()
        except WriteError:  # full, or not ours to write: images are read without it
            return addresses.read(address, base)
        if sha256_bytes(data) == digest:  # else the copy was damaged on this machine
            break
    return data


def _entries_of(shelf: Path, key: str) -> list[Path]:
    return [path for path in shelf.glob(f"{key}-*") if _ENTRY.fullmatch(path.name)]


# What this process may still add to a folder before it counts the entries again, by folder and limit.
_LEFT: dict[tuple[Path, int], int] = {}


def make_room(size: int, limit: int) -> None:
    """Remove entries, the one that was used longest ago first, until ``size`` more bytes are within ``limit``.

    The entries are not counted for each: room is made for a hundredth of the limit at once. So several processes may
    together exceed it by as many hundredths.
    """
    at = cache_folder(), limit
    left = _LEFT.get(at, 0) - size
    if left < 0:
        ahead = max(size, limit // 100)
        _free(ahead, limit)
        left = ahead - size
    _LEFT[at] = left


def _free(size: int, limit: int) -> None:
    entries: list[tuple[int, int, Path]] = []
    for path in cache_folder().glob("??/*"):
        match = _ENTRY.fullmatch(path.name)
        if match is not None:
            with suppress(FileNotFoundError):  # removed by another process
                entries.append((path.stat().st_mtime_ns, int(match[2]), path))
    total = sum(kept for _, kept, _ in entries) + size
    for _, kept, path in sorted(entries):
        if total <= limit:
            return
        if _remove(path):
            total -= kept


def _remove(entry: Path) -> bool:
    """Remove an entry that nobody uses; whether it is gone."""
    with in_use(entry, alone=True) as given:
        if not given:
            return not entry.exists()
        # Aside first, so that nobody finds a part of it.
        with private_folder(entry) as aside:
            os.replace(entry, aside / entry.name)
        return True
