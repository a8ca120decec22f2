"""Who works on what in an object store: claims, which are locks of processes that the system cannot look after.

A claim is an object that is put where there is none (``remote.create``). Its holder puts it again every
``RENEWED_EVERY_S``. A process that died does not: whoever sees a claim unchanged for ``EXPIRES_S`` by its own clock
takes it over, and at once if the process was of this machine and is gone. A holder that only slept for so long may wake
up, and then two work on the same thing: that costs work but does no harm, for what they commit, only the first of two
can put (see ``shard_files``).
"""

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pseudo_labels import remote
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.remote import Address

RENEWED_EVERY_S = 15.0
EXPIRES_S = 60.0
_LOOK_EVERY_S = 1.0
# Without conditional puts: whoever put a claim later than we looked, has put it by then.
_SETTLED_S = 1.0


@contextmanager
def held(claim: Address, *, what: str, wait: bool = True) -> Iterator[None]:
    """Hold a claim.

    Args:
        claim: where it is put.
        what: names in messages what is claimed.
        wait: wait until it is known whether the holder of a claim that is there lives; else, an unknown one is taken
            for alive at first. Looks at the same claim that are ``EXPIRES_S`` apart find a dead one.

    Raises:
        OutputConflictError: a living process holds it.
        PocketiqaError: the store cannot be reached, or refuses.
    """
    remote.refuse_unwritable(claim)
    own = _Claim(claim)
    while not own.take():
        seen = _look(claim)
        if seen is None:  # given back meanwhile
            continue
        if seen.is_dead:
            own.take_over()
            if own.is_there():
                break
        elif not wait or seen.was_renewed:
            raise OutputConflictError(
                f"another process is writing {what}: wait for it or stop it, then run the same command again"
            )
        time.sleep(_LOOK_EVERY_S)
    with _renewed(own):
        yield


class _Claim:
    """A claim of this process."""

    def __init__(self, address: Address):
        self._address = address
        self._record = {**_this_process(), "claim": secrets.token_hex(16), "renewed": 0}

    def _bytes(self) -> bytes:
        return json.dumps(self._record, sort_keys=True).encode()

    def take(self) -> bool:
        """Put it where there is none; whether it is held."""
        if not remote.create(self._address, self._bytes()):
            return False
        if remote.has_conditional_put(self._address.parent):
            return True
        time.sleep(_SETTLED_S)
        return self.is_there()

    def take_over(self) -> None:
        """Put it in the place of one whose holder is dead."""
        remote.write(self._address, self._bytes())
        # Another process may do the same now: the last one to put it has it.
        time.sleep(_LOOK_EVERY_S)

    def is_there(self) -> bool:
        """Whether it is this one that is there."""
        return _record(self._address).get("claim") == self._record["claim"]

    def renew(self) -> None:
        """Show that its holder lives, unless another process has taken it over."""
        if self.is_there():
            self._record["renewed"] += 1
            remote.write(self._address, self._bytes())

    def give_back(self) -> None:
        """Remove it, unless another process has taken it over."""
        with suppress(PocketiqaError):  # a store that is down: it runs out
            if self.is_there():
                self._address.unlink(missing_ok=True)


def _record(claim: Address) -> dict[str, Any]:
    try:
        record = json.loads(claim.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


class _Seen:
    """What this process knows of a claim of another one.

    Attributes:
        was_renewed: whether it has changed since it was first seen.
        is_dead: whether its holder is known to be gone.
    """

    def __init__(self, record: Mapping[str, Any]):
        self._first, self._since_s = record, time.monotonic()
        self.was_renewed = False
        self.is_dead = _is_gone(record)

    def look(self, record: Mapping[str, Any]) -> None:
        """Look again, at a claim of the same holder."""
        self.is_dead = self.is_dead or _is_gone(record)
        if record != self._first:
            self.was_renewed, self._first, self._since_s = True, record, time.monotonic()
        elif time.monotonic() - self._since_s > EXPIRES_S:
            self.is_dead = True
            _DEAD.add(str(record.get("process")))


_SEEN: dict[Address, tuple[str, _Seen]] = {}
# Processes whose claims have run out: the next claim of one of them is not waited for again.
_DEAD: set[str] = set()


def _look(claim: Address) -> _Seen | None:
    record = _record(claim)
    if not record and not claim.is_file():
        _SEEN.pop(claim, None)
        return None
    known, named = _SEEN.get(claim), str(record.get("claim"))
    if known is None or known[0] != named:
        _SEEN[claim] = named, _Seen(record)
    else:
        known[1].look(record)
    return _SEEN[claim][1]


def _this_process() -> dict[str, Any]:
    return {"machine": _machine(), "pid": os.getpid(), "started": _started(os.getpid()), "process": _token(os.getpid())}


def _machine() -> str:
    """This start of this machine, and who sees its processes under which numbers; empty where that is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process began, in ticks; empty if there is none of this number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


_TOKENS: dict[int, str] = {}


def _token(pid: int) -> str:
    """A name for this process; a forked child has another one."""
    return _TOKENS.setdefault(pid, secrets.token_hex(8))


def _is_gone(record: Mapping[str, Any]) -> bool:
    if str(record.get("process")) in _DEAD:
        return True
    machine, pid = _machine(), record.get("pid")
    if not machine or record.get("machine") != machine or not isinstance(pid, int):
        return False
    return _started(pid) != record.get("started")


@contextmanager
def _renewed(claim: _Claim) -> Iterator[None]:
    """Renew a claim in a thread of its own while the block runs, and give it back."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(RENEWED_EVERY_S):
            try:
                claim.renew()
            except PocketiqaError:  # a store that is down for a while: what is committed meanwhile fails by itself
                continue

    thread = threading.Thread(target=renew, name="claim", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        claim.give_back()
