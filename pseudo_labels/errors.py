"""Errors that a user can act on: the command line prints their message as one line, without a traceback."""

import reprlib
import warnings
from collections.abc import Mapping
from typing import Any


class PocketiqaError(Exception):
    """Something the user can mend; the message names the value received and the next step."""


class OutputConflictError(PocketiqaError):
    """An output folder already holds something that this command must not mix with."""


class IntegrityError(PocketiqaError):
    """A file does not match the digest recorded when it was written."""


class WorkExceededError(PocketiqaError):
    """A file asks for more work or memory than its kind can need; the message says what there is too much of."""


class StorageFullError(PocketiqaError):
    """The disk or quota is full; everything committed before is still valid."""


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
        warnings.warn(text, RenamedWarning, stacklevel=3)
    return {renamed[name] if name in old else name: value for name, value in values.items()}
