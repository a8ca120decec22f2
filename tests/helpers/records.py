"""JSON records that are changed and have a fitting checksum again: what another version, or a careful hand, writes."""

import json
from pathlib import Path
from typing import Any

from pseudo_labels.files import checksummed_json, read_record


def rewrite(path: Path, **fields: Any) -> None:
    """Change top-level fields of a record on disk."""
    path.write_bytes(checksummed_json({**read_record(path, what="record"), **fields}))


def alter(path: Path, **fields: Any) -> None:
    """Change top-level fields and leave the checksum as it was."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
