"""Formats of students whose packages are extras: their tests are skipped where these are missing."""

import os

import pytest

from students.formats.registry import FORMATS, missing_packages

ALL = "POCKETIQA_ALL_FORMATS"
"""Environment variable that makes a missing package an error, see ``make formats-check``; ``long``: and a missing
environment of a converter."""


def require(kind: str) -> None:
    """Skip the test that calls it if a format cannot be written here."""
    missing = missing_packages(kind)
    if missing and os.environ.get(ALL):
        pytest.fail(f"{', '.join(missing)} is missing, although {ALL} is set")
    if missing:
        pytest.skip(f"{kind} is an extra: pip install 'pocketiqa[{FORMATS[kind].extra}]'")
    environment = FORMATS[kind].environment
    if environment is not None and not environment.is_ready():
        (pytest.fail if os.environ.get(ALL) == "long" else pytest.skip)(environment.missing())


def make_environments() -> None:
    """Make the environments of all converters that have one, in their usual folders."""
    for entry in FORMATS.values():
        if entry.environment is not None:
            print(f"{entry.environment.usual_folder}: about {entry.environment.gigabytes:g} GB, once", flush=True)
            entry.environment.make(entry.environment.usual_folder)


if __name__ == "__main__":
    make_environments()
