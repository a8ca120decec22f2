"""Students by path: a folder of ours, or a checkpoint that others published. Finding one needs no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import sha256_file

if TYPE_CHECKING:
    from students.model import PocketStudent

RECORD = "student.json"
CHECKPOINT_SUFFIXES = (".pth", ".pt", ".safetensors")
"""Of files that are read as the checkpoint of DP-IQA's authors, see ``students.dp_iqa_b7``."""


@dataclass(frozen=True)
class OpenedStudent:
    """A student and what is known of it.

    Attributes:
        student: in evaluation mode, on the CPU.
        name: as its record has it, else that of the folder.
        about: JSON values, see ``save_student``; where others made the weights, with ``scale`` and ``weights`` (name,
            digest, licence).
        digest: hex SHA-256 of the file with the weights.
    """

    student: "PocketStudent"
    name: str
    about: dict[str, Any]
    digest: str


def find_student(path: str | Path) -> Path | None:
    """What ``open_student`` would read: ``path``, its ``student`` folder, or None if there is no student."""
    path = Path(path)
    if path.is_file() and path.suffix in CHECKPOINT_SUFFIXES:
        return path
    return next((folder for folder in (path, path / "student") if (folder / RECORD).is_file()), None)


def open_student(path: str | Path) -> OpenedStudent:
    """Read a student from wherever it lies.

    Args:
        path: a training folder, a folder that ``save_student`` wrote, or the checkpoint of DP-IQA's authors' student.

    Raises:
        PocketiqaError: none of these, or it is damaged or of another architecture.
        TamperedError: the weights of a folder are not those that were saved.
    """
    found = find_student(path)
    if found is None:
        raise PocketiqaError(
            f"{path} holds no finished student: give a training folder whose training is finished, a folder with "
            f"{RECORD}, or the checkpoint of DP-IQA's published student ({', '.join(CHECKPOINT_SUFFIXES)})"
        )
    return _open_official(found) if found.is_file() else _open_folder(found)


def _open_folder(folder: Path) -> OpenedStudent:
    from students.storage import load_student, read_record

    student, record = load_student(folder), read_record(folder)
    about = record["about"]
    return OpenedStudent(student, str(about.get("name") or folder.name), about, record["sha256"])


def _open_official(checkpoint: Path) -> OpenedStudent:
    from students.dp_iqa_b7 import OFFICIAL, load_official_student

    student, digest = load_official_student(checkpoint), sha256_file(checkpoint)
    about = {**OFFICIAL, "weights": {**OFFICIAL["weights"], "digest": digest}}
    return OpenedStudent(student, about["name"], about, digest)
