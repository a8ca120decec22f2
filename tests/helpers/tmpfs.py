"""A disk so small that it fills up."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, *, kib: int) -> Iterator[Path]:
    """Mount a tmpfs of ``kib`` KiB at ``folder``; the test is skipped, saying why, where mounting is not allowed."""
    if shutil.which("mount") is None:
        pytest.skip("a full disk needs mount, which is not installed")
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "pocketiqa-test", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a full disk needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
