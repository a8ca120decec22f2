"""Where the files lie that a recipe names: variables and the home folder replaced when a run begins."""

from pathlib import Path
from typing import Any

from distill.config import Recipe
from distill.stage_config import expanded
from distill.training.fit_config import FitSection
from pseudo_labels.errors import PocketiqaError
from teachers.embedded import FOLDER as EMBEDDED_FOLDER
from teachers.embedded import NAME as EMBEDDED
from teachers.fitted_folder import is_fitted_folder, read_fitted_folder


def with_places(recipe: Recipe) -> Recipe:
    """The recipe with ``$VARIABLES`` in the options of its teachers and in the student's first weights replaced.

    Raises:
        PocketiqaError: a variable is not set.
    """
    changes: dict[str, Any] = {}
    if recipe.fit is not None:
        changes["fit"] = _fit_with_places(recipe.fit)
    changes["teachers"] = {name: _fit_with_places(section) for name, section in recipe.teachers.items()}
    if recipe.label is not None:
        teacher = recipe.label.teacher
        named = {"teacher": teacher and expanded(teacher), "options": with_variables(recipe.label.options)}
        changes["label"] = recipe.label.model_copy(update=named)
    if recipe.distill is not None and recipe.distill.student.init is not None:
        student = recipe.distill.student
        student = student.model_copy(update={"init": Path(expanded(str(student.init)))})
        changes["distill"] = recipe.distill.model_copy(update={"student": student})
    return recipe.model_copy(update=changes)


def first_weights(init: str) -> Path:
    """The file that a student starts from; to be asked for when it is there.

    Args:
        init: the file, or a teacher that holds its backbone in a file of its own: ``embedded``, or the folder of a
            merged one.
    """
    folder = str(EMBEDDED_FOLDER) if init == EMBEDDED else init
    if not is_fitted_folder(folder):
        return Path(init)
    weights = read_fitted_folder(folder)[1].get("weights")
    if weights is None:
        raise PocketiqaError(f"student.init is {init!r}, a teacher without a file of its backbone: merge it first")
    return Path(weights)


def _fit_with_places(section: FitSection) -> FitSection:
    return section.model_copy(update={"options": with_variables(section.options)})


def with_variables(value: Any) -> Any:
    """The same JSON values with ``$VARIABLE`` and ``~`` replaced where a text begins so.

    Raises:
        PocketiqaError: a variable is not set.
    """
    if isinstance(value, dict):
        return {key: with_variables(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_variables(inner) for inner in value]
    return expanded(value) if isinstance(value, str) and value.startswith(("$", "~")) else value
