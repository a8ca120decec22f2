"""Output folders that say what made them, so that nothing is mixed and unchanged work is skipped.

Every folder a command writes holds ``manifest.json``: its kind, format version, the ``spec`` (everything that
determines the content, the digests of its inputs included) and, once finished, what was written.
"""

import json
import shutil
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pseudo_labels.errors import IntegrityError, OutputConflictError, PocketiqaError
from pseudo_labels.files import canonical_json, digest_of, is_leftover, read_json, write_atomic

MANIFEST = "manifest.json"
FORMAT = 1


class Claim(StrEnum):
    """What a command finds when it claims its output folder."""

    NEW = "new"
    RESUME = "resume"
    DONE = "done"


@dataclass(frozen=True)
class Manifest:
    """The head of an output folder.

    Attributes:
        kind: ``pool``, ``labels``, ``run``, ...
        spec: everything that determines the content, as JSON values.
        complete: whether the work was finished.
        content: what was written (counts, digests), set when complete.
        notes: facts for readers that do not determine the content (paths, host), never compared.
    """

    kind: str
    spec: dict[str, Any]
    complete: bool = False
    content: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Identity of the output: of what determines it and of what was written."""
        return digest_of({"kind": self.kind, "format": FORMAT, "spec": self.spec, "content": self.content})


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` in one step."""
    record = {
        "format": FORMAT,
        "kind": manifest.kind,
        "spec": manifest.spec,
        "complete": manifest.complete,
        "content": manifest.content,
        "notes": manifest.notes,
    }
    write_atomic(folder / MANIFEST, canonical_json(record))


def read_manifest(folder: Path, kind: str | None = None) -> Manifest:
    """Read the head of an output folder.

    Raises:
        PocketiqaError: there is none, it is of another kind, or of a newer format.
        IntegrityError: it cannot be parsed.
    """
    record = read_json(folder / MANIFEST, what=f"{kind or 'pocketiqa'} manifest")
    if not isinstance(record, dict) or "kind" not in record:
        raise PocketiqaError(f"{folder / MANIFEST} was not written by pocketiqa")
    if record.get("format") != FORMAT:
        raise PocketiqaError(
            f"{folder} has format version {record.get('format')!r}, but this pocketiqa reads {FORMAT}: "
            "upgrade pocketiqa or make the folder anew"
        )
    if kind is not None and record["kind"] != kind:
        raise PocketiqaError(f"{folder} holds {record['kind']!r}, but {kind!r} is needed here")
    try:
        return Manifest(record["kind"], record["spec"], record["complete"], record["content"], record["notes"])
    except KeyError as error:
        raise IntegrityError(f"{folder / MANIFEST} lacks {error}: restore it, or make the folder anew") from error


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted names of the values that differ, each with old and new value."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(set(old) | set(new))
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{prefix}{key}.")]
    return [] if old == new else [f"{prefix.rstrip('.')}: {_brief(old)} -> {_brief(new)}"]


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def claim(
    folder: Path, kind: str, spec: dict[str, Any], *, overwrite: bool = False, notes: dict[str, Any] | None = None
) -> Claim:
    """Take ``folder`` for an output made by ``spec``, or refuse.

    Returns:
        NEW for a fresh folder, RESUME for unfinished work of the same spec, DONE for finished work of the same spec.

    Raises:
        OutputConflictError: the folder holds something else, or the same kind made differently.
    """
    _refuse_file(folder)
    if overwrite:
        start_over(folder)
    spec = json.loads(canonical_json(spec))  # as it will be read back: tuples become lists
    if not _entries(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_manifest(folder, Manifest(kind, spec, notes=notes or {}))
        return Claim.NEW
    if not (folder / MANIFEST).exists():
        raise OutputConflictError(f"{folder} is not empty and was not written by pocketiqa: choose another --out")
    manifest = read_manifest(folder)
    if manifest.kind != kind:
        raise OutputConflictError(f"{folder} already holds {manifest.kind!r}, not {kind!r}: choose another --out")
    changed = differences(manifest.spec, spec)
    if changed:
        shown = "; ".join(changed[:3]) + ("; ..." if len(changed) > 3 else "")
        raise OutputConflictError(
            f"{folder} was made differently ({shown}): choose another --out, repeat the earlier settings "
            "to resume, or add --overwrite to start over"
        )
    return Claim.DONE if manifest.complete else Claim.RESUME


def finish(folder: Path, content: dict[str, Any]) -> Manifest:
    """Mark the work in ``folder`` as complete and record what was written; said twice, nothing is touched."""
    manifest = read_manifest(folder)
    if manifest.complete and manifest.content == content:
        return manifest
    done = Manifest(manifest.kind, manifest.spec, True, content, manifest.notes)
    write_manifest(folder, done)
    return done


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, without what a process that was killed while writing its manifest left there."""
    return [entry for entry in folder.iterdir() if not is_leftover(entry)] if folder.exists() else []


def _refuse_file(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputConflictError(f"{folder} is a file, but a folder is needed here: choose another --out")


def refuse_existing(file: Path, *, overwrite: bool) -> None:
    """Keep a command that writes one file from replacing another's result unasked.

    Raises:
        OutputConflictError: ``file`` exists and ``overwrite`` was not said.
    """
    if file.exists() and not overwrite:
        raise OutputConflictError(f"{file} exists already: choose another --out, or add --overwrite to replace it")


def start_over(folder: Path) -> None:
    """Remove an earlier output of ours; anything else is refused.

    Raises:
        OutputConflictError: the folder holds files but no manifest of ours.
    """
    _refuse_file(folder)
    if not _entries(folder):
        return
    if not (folder / MANIFEST).exists():
        raise OutputConflictError(f"{folder} was not written by pocketiqa, so --overwrite will not remove it")
    # The manifest goes last: a removal that is interrupted can be repeated.
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MANIFEST:
            entry.unlink()
    (folder / MANIFEST).unlink()
