"""Models of every kind, opened and ready to score one decoded image after another."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.outputs import MANIFEST, read_manifest
from students.paths import CHECKPOINT_SUFFIXES, find_student
from students.shipped import NAMES, model_path


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


def _student_judge(path: Path) -> Judge:
    from students.base import score_images
    from students.storage import open_student

    opened = open_student(path)
    about = {"config": opened.student.config.as_dict(), "about": opened.about, "digest": opened.digest}
    return Judge(opened.name, about, lambda rgb, _: float(score_images(opened.student, [rgb])[0].score))


def _teacher_judge(name: str, options: Mapping[str, Any], device: str) -> Judge:
    import torch

    from teachers.base import check_output
    from teachers.launch import current_launch, is_out_of_memory
    from teachers.registry import build_teacher

    teacher = build_teacher(name, **options)
    teacher.to(current_launch(device).device)

    def score(rgb: np.ndarray, reference: np.ndarray | None) -> float:
        try:
            with torch.inference_mode():
                output = teacher([teacher.preprocess(rgb, reference)])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            size = f"{rgb.shape[1]}x{rgb.shape[0]}"
            raise PocketiqaError(
                f"out of memory on an image of {size} pixels: give the teacher a smaller input by its options"
            ) from error
        return float(check_output(output, 1, (), name).score[0])

    return Judge(teacher.stamp.name, {"stamp": teacher.stamp.as_dict()}, score, teacher.needs_reference)


def kind_of(model: str | Path) -> str:
    """What a name or path stands for: ``onnx``, ``student``, ``labels`` or ``teacher``.

    Raises:
        PocketiqaError: nothing of these.
    """
    path = model_path(model)
    if path.is_file() and path.suffix == ".onnx":
        return "onnx"
    if find_student(path) is not None:
        return "student"
    if (path / MANIFEST).is_file() and read_manifest(path).kind == "labels":
        return "labels"
    from teachers.fitted_folder import is_fitted_folder
    from teachers.registry import TEACHERS

    if str(model) in TEACHERS or is_fitted_folder(str(model)) or (":" in str(model) and not path.exists()):
        return "teacher"
    raise PocketiqaError(
        f"{str(model)!r} is no model: give an exported .onnx file, a student that comes along ({', '.join(NAMES)}), a "
        f"student or training folder, the checkpoint of DP-IQA's published student "
        f"({', '.join(CHECKPOINT_SUFFIXES)}), a label store, the folder of a fitted teacher, or a teacher "
        f"({', '.join(TEACHERS)}, or your own as package.module:function)"
    )


def open_judge(
    model: str | Path, *, options: Mapping[str, Any] | None = None, device: str = "auto", threads: int = 1
) -> Judge:
    """Open an exported student, any that ``students.storage`` knows, or a teacher (a label store scores nothing new).

    Args:
        model: path or name.
        options: of a teacher.
        device: for a teacher, see ``teachers.launch.current_launch``.
        threads: of ONNX Runtime.

    Raises:
        PocketiqaError: ``model`` is none of these, or cannot be opened.
    """
    kind = kind_of(model)
    if kind == "onnx":
        return _onnx_judge(model_path(model), threads)
    if kind == "student":
        return _student_judge(Path(model))
    if kind == "teacher":
        return _teacher_judge(str(model), options or {}, device)
    raise PocketiqaError(f"{model} is a label store: it holds scores of its own pool and cannot score other images")
