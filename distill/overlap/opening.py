"""What describes an image by numbers: a student, a teacher, a backbone, or without any model its edges."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.evaluation.judges import kind_of
from distill.overlap.describer import BACKBONE, LAYOUT, Describer
from pseudo_labels.errors import PocketiqaError
from students.shipped import model_path

_WITH_OPTIONS = (BACKBONE, "teacher")


def open_describer(
    by: str | Path = LAYOUT,
    *,
    options: Mapping[str, Any] | None = None,
    feature: str | None = None,
    device: str = "auto",
) -> Describer:
    """Open whatever can describe images.

    Args:
        by: ``layout`` (edges, no model), ``backbone`` (a timm model, see ``backbones``), an exported student, a student
            or training folder, the name of a teacher, or the folder of a fitted one.
        options: of a backbone or teacher.
        feature: by its name; None is the first that the model has.
        device: for teachers and backbones: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ...

    Raises:
        PocketiqaError: no such model or feature, a model without features, or options that it does not have.
    """
    given = dict(options or {})
    kind = str(by) if str(by) in (LAYOUT, BACKBONE) else kind_of(by)
    if given and kind not in _WITH_OPTIONS:
        raise PocketiqaError(f"option {next(iter(given))!r}: {by} takes none, only 'backbone' and teachers do")
    if kind == "labels":
        raise PocketiqaError(f"{by} is a label store, which describes no other images: name a student or a teacher")
    if kind == LAYOUT:
        from distill.overlap.layout import layout_describer

        return layout_describer(feature)
    if kind in ("onnx", "student"):
        from distill.overlap.students import exported_describer, student_describer

        return (exported_describer if kind == "onnx" else student_describer)(model_path(by), feature)
    if kind == BACKBONE:
        from distill.overlap.backbones import backbone_describer

        return backbone_describer(given, feature, device)
    from distill.overlap.teachers import teacher_describer

    return teacher_describer(str(by), given, feature, device)
