"""Strict reading of JSON records: a missing or unknown field, or a number out of range, is an error that names it."""

from collections.abc import Collection, Mapping
from typing import Any

from pseudo_labels.errors import PocketiqaError, shown


def check_fields(record: Any, required: Collection[str], what: str, optional: Collection[str] = ()) -> dict[str, Any]:
    """Return ``record`` as a dict if it has all ``required`` fields and none besides these and ``optional``.

    Raises:
        PocketiqaError: it is not a mapping, lacks a field, or has an unknown one; ``what`` names the record.
    """
    if not isinstance(record, Mapping):
        raise PocketiqaError(f"the {what} is {type(record).__name__}, but a mapping of fields is needed")
    missing = sorted(set(required) - set(record))
    if missing:
        raise PocketiqaError(f"the {what} lacks {', '.join(map(repr, missing))}; make it anew with this pocketiqa")
    unknown = sorted(shown(key) for key in set(record) - set(required) - set(optional))
    if unknown:
        known = ", ".join(sorted({*required, *optional}))
        raise PocketiqaError(f"the {what} has the unknown field {', '.join(unknown[:8])}; known are {known}")
    return dict(record)


def check_int(value: Any, name: str, low: int, high: int) -> int:
    """Return ``value`` if it is an integer within ``[low, high]``.

    Raises:
        PocketiqaError: it is not; ``name`` says which value.
    """
    # To Python True is an integer; here it is a mistake.
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise PocketiqaError(f"{name} is {shown(value)}, but an integer from {low} to {high} is needed")
    return value
