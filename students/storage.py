"""A student on disk: ``student.safetensors`` (weights) and ``student.json`` (architecture, digest, origin)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from pseudo_labels.errors import OutputConflictError, PocketiqaError, TamperedError
from pseudo_labels.files import canonical_json, read_json, sha256_bytes, staged_folder, write_atomic
from students.config import StudentConfig
from students.fields import check_fields
from students.model import PocketStudent, new_student
from students.opening import RECORD

WEIGHTS = "student.safetensors"
FORMAT = 1


def weight_bytes(student: PocketStudent) -> bytes:
    """All weights and batch statistics as safetensors; equal students give equal bytes."""
    return save_tensors({name: value.detach().cpu().contiguous() for name, value in student.state_dict().items()})


def save_student(student: PocketStudent, folder: str | Path, *, about: Mapping[str, Any] | None = None) -> None:
    """Write a student whole or not at all; an earlier student in ``folder`` is replaced.

    Args:
        student: on any device.
        folder: made if needed.
        about: JSON values kept with the student: teachers, data, metrics.

    Raises:
        OutputConflictError: the folder holds something else.
        StorageFullError: the disk is full; an earlier student is untouched.
    """
    folder = Path(folder)
    others = (
        sorted(path.name for path in folder.iterdir() if path.name not in (WEIGHTS, RECORD)) if folder.exists() else []
    )
    if others:
        raise OutputConflictError(f"{folder} holds {others[0]!r}, which is no part of a student: choose another folder")
    weights = weight_bytes(student)
    record = {
        "format": FORMAT,
        "config": student.config.as_dict(),
        "sha256": sha256_bytes(weights),
        "about": dict(about or {}),
    }
    with staged_folder(folder) as staged:
        write_atomic(staged / WEIGHTS, weights)
        write_atomic(staged / RECORD, canonical_json(record))


def read_record(folder: str | Path) -> dict[str, Any]:
    """The checked content of ``student.json``: ``config``, ``sha256`` and ``about``.

    Raises:
        PocketiqaError: missing, of another format version, or with missing or unknown fields.
        TamperedError: not JSON.
    """
    path = Path(folder) / RECORD
    record = read_json(path, what="student record")
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = record.get("format") if isinstance(record, dict) else None
        raise PocketiqaError(
            f"{path} has format version {found!r}, but this pocketiqa reads {FORMAT}: upgrade pocketiqa"
        )
    return check_fields(record, ("format", "config", "sha256", "about"), f"student record at {path}")


def load_student(folder: str | Path) -> PocketStudent:
    """Read a student, in evaluation mode, on the CPU.

    Raises:
        PocketiqaError: a file or field is missing, or the weights are not those of the architecture.
        TamperedError: the weights are not those that were saved.
    """
    record = read_record(folder)
    path = Path(folder) / WEIGHTS
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise PocketiqaError(f"no student weights at {path}: the file does not exist") from error
    actual = sha256_bytes(data)
    if actual != record["sha256"]:
        raise TamperedError(
            f"{path} was altered: its record says sha256 {str(record['sha256'])[:12]}..., it is {actual[:12]}...; "
            "restore it or train the student again"
        )
    student = new_student(StudentConfig.from_dict(record["config"]))
    load_weights(student, data, str(path))
    return student.eval()


def load_weights(student: PocketStudent, data: bytes, name: str) -> None:
    """Put safetensors bytes into a student.

    Raises:
        PocketiqaError: not safetensors, or tensors are missing, foreign or of another shape; ``name`` says where.
    """
    try:
        tensors = load_tensors(data)
    except SafetensorError as error:
        raise TamperedError(f"{name} is not a safetensors file ({error}); restore it") from error
    own = student.state_dict()
    _refuse_names(sorted(set(own) - set(tensors)), name, "lacks", student)
    _refuse_names(sorted(set(tensors) - set(own)), name, "has the foreign", student)
    for key, tensor in tensors.items():
        _check_tensor(key, own[key], tensor, name)
    student.load_state_dict(tensors)


def _refuse_names(names: list[str], where: str, verb: str, student: PocketStudent) -> None:
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise PocketiqaError(
            f"{where} {verb} tensor {names[0]!r}{more}: it does not fit the architecture ({student.config.backbone})"
        )


def _check_tensor(key: str, own: Tensor, given: Tensor, where: str) -> None:
    if own.shape != given.shape or own.dtype != given.dtype:
        raise PocketiqaError(
            f"{where} has {given.dtype} {tuple(given.shape)} for {key!r}, but the architecture needs "
            f"{own.dtype} {tuple(own.shape)}"
        )
