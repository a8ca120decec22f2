"""Where the shared real images are, if this machine has them."""

import os
from pathlib import Path

import pytest


def shared_data(*parts: str) -> Path:
    """Path inside the shared data; the test is skipped, saying why, where it is missing."""
    root = Path(os.environ.get("POCKETIQA_SHARED_DATA") or Path(__file__).parents[2] / "../shared/data")
    path = root.joinpath(*parts).resolve()
    if not path.exists():
        pytest.skip(f"shared data not found: {path.name} (set POCKETIQA_SHARED_DATA)")
    return path
