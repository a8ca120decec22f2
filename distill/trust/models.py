"""The models that are compared: exported students, student folders, teachers, and functions of others by name."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from distill.evaluation.predictions import Predictor, check_model, kind_of, open_predictor
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of
from students.base import Student
from students.config import StudentConfig
from students.registry import build_student
from students.shipped import model_path
from students.storage import open_student

_BRISQUE = "distill.comparison.brisque:build_brisque"
_BRISQUE_FILES = {"model": "brisque_model_live.yml", "range": "brisque_range_live.yml"}


@dataclass(frozen=True)
class Model:
    """A model that is ready to score.

    Attributes:
        name: name in tables, different from those of the others.
        given: name or path by which it was given.
        key: digest of what determines its scores.
        kind: ``onnx``, ``student`` or ``teacher``.
        predictor: the model itself.
    """

    name: str
    given: str
    key: str
    kind: str
    predictor: Predictor

    def score(self, rgb: np.ndarray) -> float:
        """The score in [0, 1] of uint8 HxWx3.

        Raises:
            PocketiqaError: it has none; the model is named.
        """
        try:
            score = float(self.predictor.score(rgb, None))
        except PocketiqaError as error:
            raise PocketiqaError(f"{self.name} cannot score a picture of {_size(rgb)} pixels: {error}") from error
        if not np.isfinite(score):
            raise PocketiqaError(f"{self.name} gave no finite score of a picture of {_size(rgb)} pixels")
        return score

    def twin(self) -> Student:
        """The same network in torch, through which a gradient can be taken; in evaluation mode, weights frozen.

        Raises:
            PocketiqaError: there is none, with the reason.
        """
        if self.kind == "onnx":
            config = StudentConfig.from_dict(self.predictor.about["contract"]["student"])
            student = build_student(config, init=model_path(self.given))
        elif self.kind == "student":
            student = open_student(self.given).student
        else:
            raise PocketiqaError(f"{self.name} is no student: no gradient is known of it")
        return student.eval().requires_grad_(False)


def _size(rgb: np.ndarray) -> str:
    return f"{rgb.shape[1]}x{rgb.shape[0]}"


def open_models(names: Sequence[str], *, brisque: Path | None = None) -> tuple[Model, ...]:
    """Open models, each of which must work without a clean reference.

    Args:
        names: names and paths as for ``pocketiqa evaluate``; a function of one's own is ``module:function``.
        brisque: folder of OpenCV's two files; BRISQUE is then the last of the models.

    Raises:
        PocketiqaError: no models, one of them twice, or one that cannot be used; before any is loaded, where possible.
    """
    given = [(name, {}) for name in names]
    if brisque is not None:
        given.append((_BRISQUE, {option: str(brisque / file) for option, file in _BRISQUE_FILES.items()}))
    if not given:
        raise PocketiqaError("name at least one model, such as pocket-m")
    for name, options in given:
        check_model(name, options)
        if kind_of(name) == "labels":
            raise PocketiqaError(f"{name} is a label store: it holds scores of its own pool and cannot score others")
    models: list[Model] = []
    for name, options in given:
        predictor = open_predictor(name, options=options, device="cpu")
        if predictor.needs_reference:
            raise PocketiqaError(f"{name} compares with a clean reference: name models that score a picture by itself")
        about = predictor.about.get("digest") or predictor.about
        models.append(Model(predictor.name, name, digest_of([kind_of(name), about]), kind_of(name), predictor))
    return distinct(models)


def distinct(models: Sequence[Model]) -> tuple[Model, ...]:
    """Models with names of their own.

    Raises:
        PocketiqaError: a model is there twice.
    """
    keys = [model.key for model in models]
    for number, model in enumerate(models):
        if model.key in keys[:number]:
            raise PocketiqaError(
                f"{model.given} is the same model as {models[keys.index(model.key)].given}: name it once"
            )
    names = [model.name for model in models]
    # Two versions of one student have one name: their digests tell them apart.
    return tuple(
        replace(model, name=f"{model.name} ({model.key[:6]})") if names.count(model.name) > 1 else model
        for model in models
    )
