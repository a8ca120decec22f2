"""Models of every kind, opened and ready to score one decoded image after another."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.outputs import MANIFEST, read_manifest


@dataclass(frozen=True)
class Judge:
    """A model that is ready to score decoded images one by one.

    Attributes:
        name: for tables.
        about: facts on the model, as JSON values.
        score: gives the score of uint8 HxWx3 RGB, told the clean reference where ``needs_reference``.
        needs_reference: whether it compares with a clean reference.
    """

    name: str
    about: dict[str, Any]
    score: Callable[[np.ndarray, np.ndarray | None], float]
    needs_reference: bool = False


def _onnx_judge(path: Path, threads: int) -> Judge:
    from students.runtime import Scorer

    scorer = Scorer(path, threads=threads)
    about = {"contract": scorer.contract.as_dict(), "digest": scorer.digest, "file_bytes": path.stat().st_size}
    return Judge(scorer.contract.name, about, lambda rgb, _: scorer.score(rgb).score)


def _student_judge(folder: Path) -> Judge:
    from students.model import score_images
    from students.storage import load_student, read_record

    student, record = load_student(folder), read_record(folder)
    about = {"record": record, "digest": record["sha256"]}
    return Judge(
        str(record["about"].get("name") or folder.name),
        about,
        lambda rgb, _: float(score_images(student, [rgb])[0].score),
    )


def _teacher_judge(name: str, options: Mapping[str, Any], device: str) -> Judge:
    import torch

    from teachers.base import check_output
    from teachers.registry import build_teacher

    teacher = build_teacher(name, **options)
    teacher.to(torch.device(device))

    def score(rgb: np.ndarray, reference: np.ndarray | None) -> float:
        with torch.inference_mode():
            output = teacher([teacher.preprocess(rgb, reference)])
        return float(check_output(output, 1, (), name).score[0])

    return Judge(teacher.stamp.name, {"stamp": teacher.stamp.as_dict()}, score, teacher.needs_reference)


def kind_of(model: str | Path) -> str:
    """What a name or path stands for: ``onnx``, ``student``, ``labels`` or ``teacher``.

    Raises:
        PocketiqaError: nothing of these.
    """
    path = Path(model)
    if path.is_file() and path.suffix == ".onnx":
        return "onnx"
    if student_folder(path) is not None:
        return "student"
    if (path / MANIFEST).is_file() and read_manifest(path).kind == "labels":
        return "labels"
    from teachers.registry import TEACHERS

    if str(model) in TEACHERS or (":" in str(model) and not path.exists()):
        return "teacher"
    raise PocketiqaError(
        f"{str(model)!r} is no model: give an exported .onnx file, a student or training folder, a label store, or a "
        f"teacher ({', '.join(TEACHERS)}, or your own as package.module:function)"
    )


def student_folder(path: Path) -> Path | None:
    """``path`` or its ``student`` folder, whichever holds a student; None if neither does."""
    return next((folder for folder in (path, path / "student") if (folder / "student.json").is_file()), None)


def open_judge(
    model: str | Path, *, options: Mapping[str, Any] | None = None, device: str = "cpu", threads: int = 1
) -> Judge:
    """Open an exported student, a student or training folder, or a teacher (a label store scores nothing new).

    Args:
        model: path or name.
        options: of a teacher.
        device: for a teacher.
        threads: of ONNX Runtime.

    Raises:
        PocketiqaError: ``model`` is none of these, or cannot be opened.
    """
    kind = kind_of(model)
    if kind == "onnx":
        return _onnx_judge(Path(model), threads)
    if kind == "student":
        return _student_judge(student_folder(Path(model)) or Path(model))
    if kind == "teacher":
        return _teacher_judge(str(model), options or {}, device)
    raise PocketiqaError(f"{model} is a label store: it holds scores of its own pool and cannot score other images")
