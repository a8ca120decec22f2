"""Opens feature extractors by name: a student, a teacher, a backbone, or the edges that need no model."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.evaluation.predictions import kind_of
from distill.leakage.extractor import BACKBONE, CONTENT, LAYOUT, FeatureExtractor, layout_extractor
from pseudo_labels.errors import PocketiqaError
from students.shipped import model_path
from teachers.embedded import FOLDER as EMBEDDED
from teachers.fitted_folder import read_fitted_folder

_WITH_OPTIONS = (BACKBONE, "teacher")


def open_extractor(
    by: str | Path = LAYOUT,
    *,
    options: Mapping[str, Any] | None = None,
    feature: str | None = None,
    device: str = "auto",
) -> FeatureExtractor:
    """Open a feature extractor.

    Args:
        by: ``content`` (the embedded teacher's backbone), ``layout`` (edges, no model), ``backbone`` (a timm model, see
            ``network_extractors.BackboneOptions``), an exported student, a student or training folder, the name of a
            teacher, or the folder of a fitted one.
        options: options of a backbone or teacher.
        feature: name of the feature; None for the first that the model has.
        device: device of a teacher or backbone: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ...

    Raises:
        PocketiqaError: no such model or feature, a model without features, or options that it does not have.
    """
    given = dict(options or {})
    kind = str(by) if str(by) in (LAYOUT, BACKBONE, CONTENT) else kind_of(by)
    if given and kind not in _WITH_OPTIONS:
        raise PocketiqaError(f"option {next(iter(given))!r}: {by} takes none, only 'backbone' and teachers do")
    if kind == "labels":
        raise PocketiqaError(f"{by} is a label store and has no features of images: name a student or a teacher")
    if kind == LAYOUT:
        return layout_extractor(feature)
    # The other extractors import torch and timm, which the edge layout does not need.
    if kind in ("onnx", "student"):
        from distill.leakage.network_extractors import exported_extractor, student_extractor

        return (exported_extractor if kind == "onnx" else student_extractor)(model_path(by), feature)
    if kind in (BACKBONE, CONTENT):
        from distill.leakage.network_extractors import backbone_extractor

        if kind == BACKBONE:
            return backbone_extractor(given, feature, device)
        # Named for people; its identity is that of the backbone, so features of either name are the same.
        embedded = backbone_extractor(_of_embedded(), feature, device)
        return replace(embedded, name="the embedded teacher's backbone")
    from distill.leakage.network_extractors import teacher_extractor

    return teacher_extractor(str(by), given, feature, device)


def _of_embedded() -> dict[str, Any]:
    """Values of ``BackboneOptions`` for the embedded teacher's backbone, whose deepest map depends on image content."""
    _, options = read_fitted_folder(str(EMBEDDED))
    preprocessing = {name: options[name] for name in ("pad_type", "mean", "std") if name in options}
    return {"name": options["backbone"], "weights": str(options["weights"]), **preprocessing}
