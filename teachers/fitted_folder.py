"""A fitted teacher on disk: ``teacher.json`` has its options, ``fitted.safetensors`` its fitted tensors.

Importing this module imports no torch.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import checksummed_json, read_record, sha256_file, staged_folder, write_atomic

if TYPE_CHECKING:
    from teachers.fitting import FittableTeacher

FORMAT = 1
RECORD, FITTED, SEEN = "teacher.json", "fitted.safetensors", "seen.txt"


def write_fitted_folder(
    folder: Path,
    teacher: "FittableTeacher",
    *,
    name: str,
    options: Mapping[str, Any],
    scale: str,
    licence: str,
    seen: Iterable[str],
    about: Mapping[str, Any],
    files: Sequence[str] = (),
) -> str:
    """Write a fitted teacher's folder, whole or not at all.

    Args:
        folder: replaced if it is there.
        teacher: fitted.
        name: name of its builder.
        options: options that it was built with, with absolute paths for the files that they name.
        scale: what 0 and 1 mean.
        licence: licence of weights and ratings.
        seen: ids of the images that it was fitted to, or its step was chosen by.
        about: data and validation, as JSON values.
        files: options that name a file to be copied into the folder, so that it can be moved anywhere.

    Returns:
        SHA-256 of what was learned.
    """
    # Without the head that the fit started from: ``FITTED`` holds all that was learned, and is the head from now on.
    kept = {key: str(value) if isinstance(value, Path) else value for key, value in options.items() if key != "head"}
    with staged_folder(folder) as staged:
        teacher.save_trained(staged / FITTED, scale=scale, licence=licence)
        digest = sha256_file(staged / FITTED)
        write_atomic(staged / SEEN, "".join(f"{id}\n" for id in sorted(seen)).encode())
        for option in files:
            kept[option] = _copied(Path(options[option]), staged)
        record = {"format": FORMAT, "teacher": name, "options": kept, "fitted": digest, "about": dict(about)}
        # Only where there are any: folders that were written before this key existed have none, and the reader allows
        # for that.
        if files:
            record["files"] = list(files)
        write_atomic(staged / RECORD, checksummed_json(record))
    return digest


def _copied(file: Path, folder: Path) -> str:
    shutil.copyfile(file, folder / file.name)  # without the mode: temporary files are their owner's alone
    return file.name


def write_teacher_folder(folder: Path, name: str, options: Mapping[str, Any]) -> None:
    """Write a folder that stands for a teacher of which nothing beside its options needs to be kept."""
    with staged_folder(folder) as staged:
        record = {"format": FORMAT, "teacher": name, "options": dict(options)}
        write_atomic(staged / RECORD, checksummed_json(record))


def is_fitted_folder(name: str) -> bool:
    """Whether this names a folder that a function of this module wrote, or that of the run whose ``teacher`` it is."""
    return _folder(name) is not None


def _folder(name: str) -> Path | None:
    path = Path(name).expanduser()
    # The folder of a ``fit-teacher`` run counts as the teacher in it.
    return next((folder for folder in (path, path / "teacher") if (folder / RECORD).is_file()), None)


def read_fitted_folder(name: str) -> tuple[str, dict[str, Any]]:
    """Name and options to build a fitted teacher with; ``head`` is what was learned, if the folder holds it.

    Raises:
        PocketiqaError: no such folder, another format, or the folder lacks what was learned.
        IntegrityError: the record was altered.
    """
    folder = _folder(name)
    if folder is None:
        raise PocketiqaError(f"{name} is no folder of a fitted teacher: it has no {RECORD}")
    record = read_record(folder / RECORD, what="record of a fitted teacher")
    version = record.get("format") if isinstance(record, dict) else None
    if version != FORMAT or not isinstance(record.get("options"), dict) or not isinstance(record.get("teacher"), str):
        raise PocketiqaError(
            f"{folder / RECORD} is not a record of format {FORMAT} (format {version!r}): fit the teacher again, or "
            "upgrade pocketiqa"
        )
    placed = {"head": folder / FITTED} if "fitted" in record else {}
    # Names in the record are relative to the folder, so that it can be moved; a builder needs paths.
    placed |= {option: folder / record["options"][option] for option in record.get("files", ())}
    return record["teacher"], {**record["options"], **placed}


def read_seen(name: str) -> frozenset[str]:
    """Ids of the images that a fitted teacher has learned from.

    Raises:
        PocketiqaError: no such folder, or it does not say.
    """
    folder = _folder(name)
    if folder is None or not (folder / SEEN).is_file():
        raise PocketiqaError(
            f"{name} does not say which images it was fitted to: name the folder of a teacher that `pocketiqa "
            "fit-teacher` wrote"
        )
    return frozenset((folder / SEEN).read_text(encoding="ascii").split())
