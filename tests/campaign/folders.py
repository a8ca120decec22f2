"""Folders of campaigns that go on where they were stopped, unless the code has changed since."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

from tests.helpers.imports import FILES


def code_digest() -> str:
    """Digest of the packages and campaigns: figures of other code are not continued."""
    total = hashlib.sha256()
    for file in sorted([*FILES, *Path(__file__).parent.glob("*.py")]):
        total.update(file.read_bytes())
    return total.hexdigest()[:16]


def start(folder: Path, settings: dict[str, object]) -> None:
    """An empty folder, or one of the same settings, to go on with; anything else of a campaign is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    head = folder / "settings.json"
    if head.exists() and json.loads(head.read_text()) == settings:
        return
    if any(folder.iterdir()) and not head.exists():
        sys.exit(f"{folder} is not empty and not of a campaign: name another --out")
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    head.write_text(json.dumps(settings))
