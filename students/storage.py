"""A student on disk: ``student.safetensors`` (weights) and ``student.json`` (architecture, digest, origin)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from pseudo_labels import files
from pseudo_labels.errors import IntegrityError, OutputConflictError, PocketiqaError, shown
from pseudo_labels.files import checksummed_json, sha256_bytes, sha256_file, staged_folder, write_atomic
from students.base import Student
from students.config import StudentConfig
from students.fields import check_fields
from students.paths import CHECKPOINT_SUFFIXES, RECORD, find_student
from students.registry import new_student

WEIGHTS = "student.safetensors"
FORMAT = 1


def weight_bytes(student: Student) -> bytes:
    """All weights and batch statistics as safetensors; equal students give equal bytes."""
    # safetensors stores no strides: a weight in channels-last order is laid out anew.
    return save_tensors({name: value.detach().cpu().contiguous() for name, value in student.state_dict().items()})


def save_student(student: Student, folder: str | Path, *, about: Mapping[str, Any] | None = None) -> None:
    """Write a student whole or not at all; an earlier student in ``folder`` is replaced.

    Args:
        student: student on any device.
        folder: folder to write; made if needed.
        about: JSON values stored with the student: teachers, data, metrics.

    Raises:
        OutputConflictError: the folder holds something else.
        StorageFullError: the disk is full; an earlier student is untouched.
    """
    folder = Path(folder)
    # An earlier student may be replaced; somebody's folder of photographs may not.
    others = (
        sorted(path.name for path in folder.iterdir() if path.name not in (WEIGHTS, RECORD)) if folder.exists() else []
    )
    if others:
        raise OutputConflictError(f"{folder} holds {others[0]!r}, which is no part of a student: choose another folder")
    # Weights and record are exchanged together with the folder: a kill in between leaves the earlier pair.
    weights = weight_bytes(student)
    record = {
        "format": FORMAT,
        "config": student.config.as_dict(),
        "sha256": sha256_bytes(weights),
        "about": dict(about or {}),
    }
    with staged_folder(folder) as staged:
        write_atomic(staged / WEIGHTS, weights)
        write_atomic(staged / RECORD, checksummed_json(record))


def read_record(folder: str | Path) -> dict[str, Any]:
    """The checked content of ``student.json``: ``config``, ``sha256`` and ``about``.

    Raises:
        PocketiqaError: missing, of another format version, or with missing or unknown fields.
        IntegrityError: not JSON, or altered.
    """
    path = Path(folder) / RECORD
    record = files.read_record(path, what="student record")
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        version = record.get("format") if isinstance(record, dict) else None
        raise PocketiqaError(
            f"{path} has format version {shown(version)}, but this pocketiqa reads {FORMAT}: upgrade pocketiqa"
        )
    return check_fields(record, ("format", "config", "sha256", "about"), f"student record at {path}")


def load_student(folder: str | Path) -> Student:
    """Read a student, in evaluation mode, on the CPU.

    Raises:
        PocketiqaError: a file or field is missing, or the weights are not those of the architecture.
        IntegrityError: the weights are not those that were saved.
    """
    record = read_record(folder)
    path = Path(folder) / WEIGHTS
    try:
        # Read once: the bytes that are hashed are those that are loaded.
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise PocketiqaError(f"no student weights at {path}: the file does not exist") from error
    actual = sha256_bytes(data)
    # Before parsing: a wrong digest says what happened, where safetensors would only fail somewhere, or not at all.
    if actual != record["sha256"]:
        raise IntegrityError(
            f"{path} was altered: its record says sha256 {str(record['sha256'])[:12]}..., it is {actual[:12]}...; "
            "restore it or train the student again"
        )
    student = new_student(StudentConfig.from_dict(record["config"]))
    load_weights(student, data, str(path))
    return student.eval()


def load_weights(student: Student, data: bytes, name: str) -> None:
    """Put safetensors bytes into a student.

    Raises:
        PocketiqaError: not safetensors (``IntegrityError``), or tensors are missing, unknown or of another shape or
            type; ``name`` names the file.
    """
    try:
        tensors = load_tensors(data)
    except SafetensorError as error:
        raise IntegrityError(f"{name} is not a safetensors file ({error}); restore it") from error
    own = student.state_dict()
    # Checked here, not by ``load_state_dict(strict=True)``: its error lists every tensor and knows no file.
    _refuse_names(sorted(set(own) - set(tensors)), name, "lacks", student)
    _refuse_names(sorted(set(tensors) - set(own)), name, "has the foreign", student)
    for key, tensor in tensors.items():
        _check_tensor(key, own[key], tensor, name)
    student.load_state_dict(tensors)


def _refuse_names(names: list[str], where: str, verb: str, student: Student) -> None:
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise PocketiqaError(
            f"{where} {verb} tensor {names[0]!r}{more}: it does not fit the architecture ({student.config.backbone})"
        )


def _check_tensor(key: str, own: Tensor, given: Tensor, where: str) -> None:
    # The type too: ``load_state_dict`` would convert it, and the scores would no longer be those of the file.
    if own.shape != given.shape or own.dtype != given.dtype:
        raise PocketiqaError(
            f"{where} has {given.dtype} {tuple(given.shape)} for {key!r}, but the architecture needs "
            f"{own.dtype} {tuple(own.shape)}"
        )


@dataclass(frozen=True)
class OpenedStudent:
    """A student and the facts stored with it.

    Attributes:
        student: student in evaluation mode, on the CPU.
        name: name in its record, else the name of the folder.
        about: JSON values, see ``save_student``; for published weights of others, with ``scale`` and ``weights`` (name,
            digest, licence).
        digest: hex SHA-256 of the file with the weights.
    """

    student: Student
    name: str
    about: dict[str, Any]
    digest: str


def open_student(path: str | Path) -> OpenedStudent:
    """Read a student from a folder or a published checkpoint.

    Args:
        path: a training folder, a folder that ``save_student`` wrote, or the checkpoint of DP-IQA's authors' student.

    Raises:
        PocketiqaError: none of these, or it is corrupt or of another architecture.
        IntegrityError: the weights of a folder are not those that were saved.
    """
    location = find_student(path)
    if location is None:
        raise PocketiqaError(
            f"{path} holds no finished student: give a training folder whose training is finished, a folder with "
            f"{RECORD}, or the checkpoint of DP-IQA's published student ({', '.join(CHECKPOINT_SUFFIXES)})"
        )
    return _open_official(location) if location.is_file() else _open_folder(location)


def _open_folder(folder: Path) -> OpenedStudent:
    student, record = load_student(folder), read_record(folder)
    about = record["about"]
    return OpenedStudent(student, str(about.get("name") or folder.name), about, record["sha256"])


def _open_official(checkpoint: Path) -> OpenedStudent:
    # Imported only where such a student is read: few ever are.
    from students.dp_iqa_b7 import OFFICIAL, load_official_student

    student, digest = load_official_student(checkpoint), sha256_file(checkpoint)
    about = {**OFFICIAL, "weights": {**OFFICIAL["weights"], "digest": digest}}
    return OpenedStudent(student, about["name"], about, digest)
