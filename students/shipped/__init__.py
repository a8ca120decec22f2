"""The exported students of the package, each with a model card beside it. Imports nothing but our errors."""

import os
from pathlib import Path

from pseudo_labels.errors import PocketiqaError

FOLDER = Path(__file__).parent
POPULATIONS = FOLDER / "populations"
NAMES = ("pocket-m", "pocket-s", "pocket-l")
"""The students that compute in float, default first; the weights of pocket-l are stored in 8 bits, for their size."""
DEFAULT = NAMES[0]
QUANTISED = ("pocket-m-int8", "pocket-s-int8")
"""Students that compute in 8 bits, made by ``make int8``."""
ALL_NAMES = (*NAMES, *QUANTISED)


def model_path(model: str | os.PathLike[str] | None = None) -> Path:
    """The file of a model.

    Any other name is taken for a path; if there is no such file, the error of ``students.session.read_model`` lists
    ``ALL_NAMES``.

    Args:
        model: a path; one of ``ALL_NAMES``, unless there is a file of that name; or None for ``DEFAULT``.

    Raises:
        PocketiqaError: ``model`` is neither str nor Path.
    """
    if model is not None and not isinstance(model, str | os.PathLike):
        raise PocketiqaError(
            f"a model is {type(model).__name__}, but the path of an ONNX file or one of {', '.join(ALL_NAMES)} is "
            "needed"
        )
    name = os.fspath(DEFAULT if model is None else model)
    is_name = name in ALL_NAMES and (model is None or not os.path.exists(name))
    return FOLDER / f"{name}.onnx" if is_name else Path(name)


def population_paths(name: str = "*") -> list[Path]:
    """Files of the populations that come with the package (``students.meaning.population``).

    Args:
        name: of a population, such as ``biq2021``; an asterisk for all.

    Returns:
        A file for each of ``NAMES`` for which there is one, the default first; none if no population has this name.
    """
    if os.sep in name:
        return []
    return [file for model in NAMES for file in sorted(POPULATIONS.glob(f"{name}.{model}.json"))]


def list_models() -> dict[str, str]:
    """The students that come with the package: each name with one line on its accuracy and cost, from its card."""
    return {name: _first_paragraph(FOLDER / f"{name}.md") for name in ALL_NAMES}


def _first_paragraph(card: Path) -> str:
    # The card's first line is its title; the paragraph after it is written to stand alone (``report.model_card``).
    _, text, *_ = card.read_text(encoding="utf-8").split("\n\n", 2)
    # A backslash keeps Markdown from reading the sign that follows.
    return " ".join(text.replace("\\", "").split())
