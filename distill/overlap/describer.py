"""What describes an image by numbers: a student, a teacher, a backbone, or without any model its edges."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.evaluation.judges import kind_of
from pseudo_labels.errors import PocketiqaError

LAYOUT, BACKBONE = "layout", "backbone"
_WITH_OPTIONS = (BACKBONE, "teacher")


@dataclass(frozen=True)
class Describer:
    """A model that is ready to describe decoded images one by one.

    Attributes:
        name: for people.
        kind: ``layout``, ``backbone``, ``onnx``, ``student`` or ``teacher``.
        feature: which of its features it gives.
        identity: what determines the numbers, as JSON values.
        describe: gives float32 [D] of uint8 [H, W, 3] RGB, told the clean reference where ``needs_reference``.
        needs_reference: whether it compares with a clean reference.
    """

    name: str
    kind: str
    feature: str
    identity: dict[str, Any]
    describe: Callable[[np.ndarray, np.ndarray | None], np.ndarray]
    needs_reference: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"name": self.name, "kind": self.kind, "feature": self.feature, "identity": self.identity}


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

        return (exported_describer if kind == "onnx" else student_describer)(Path(by), feature)
    if kind == BACKBONE:
        from distill.overlap.backbones import backbone_describer

        return backbone_describer(given, feature, device)
    from distill.overlap.teachers import teacher_describer

    return teacher_describer(str(by), given, feature, device)


@contextmanager
def torch_threads(by: Describer, threads: int) -> Iterator[None]:
    """Let torch use so many threads of the CPU, where it is torch that describes; as before afterwards.

    One is best beside other work: more of them wait for each other.

    Raises:
        PocketiqaError: fewer than one.
    """
    if threads < 1:
        raise PocketiqaError(f"threads is {threads}: give 1 or more")
    if by.kind in (LAYOUT, "onnx"):
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def chosen(feature: str | None, known: Sequence[str], name: str) -> str:
    """The feature that was asked for, or the first one.

    Raises:
        PocketiqaError: the model has none at all, or none of that name.
    """
    if not known:
        raise PocketiqaError(
            f"{name} gives no features to compare images by: name another model, such as a student, "
            "or leave it out to compare layouts"
        )
    if feature is not None and feature not in known:
        raise PocketiqaError(f"{name} has no feature {feature!r}: choose {', '.join(known)}")
    return feature or known[0]
