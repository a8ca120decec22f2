"""The public face of pocketiqa.

    from pocketiqa import Scorer
    print(Scorer().score("photo.jpg").score)

Each name is imported when it is first used, so that scoring never loads what only training needs. All but ``Scorer``,
``Result``, ``RegionResult``, ``Population``, ``score`` and ``list_models`` need the extra ``train``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what ``_NAMES`` says, for type checkers
    from distill.stages.benchmark import evaluate_on as evaluate
    from distill.training.student import train as distill
    from pseudo_labels.store import LabelStore
    from students.meaning.population import Population
    from students.regions import RegionResult
    from students.runtime import Result, Scorer, score
    from students.shipped import list_models
    from students.storage import load_student
    from teachers.label import label
    from teachers.registry import build_teacher

    __version__: str

_NAMES = {
    "Scorer": ("students.runtime", "Scorer"),
    "Result": ("students.runtime", "Result"),
    "RegionResult": ("students.regions", "RegionResult"),
    "Population": ("students.meaning.population", "Population"),
    "score": ("students.runtime", "score"),
    "build_teacher": ("teachers.registry", "build_teacher"),
    "label": ("teachers.label", "label"),
    "LabelStore": ("pseudo_labels.store", "LabelStore"),
    "distill": ("distill.training.student", "train"),
    "evaluate": ("distill.stages.benchmark", "evaluate_on"),
    "load_student": ("students.storage", "load_student"),
    "list_models": ("students.shipped", "list_models"),
}

__all__ = [
    "__version__", "Scorer", "Result", "RegionResult", "Population", "score", "build_teacher", "label", "LabelStore",
    "distill", "evaluate", "load_student", "list_models",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name == "__version__":
        value = _version()
    elif name in _NAMES:
        module, attribute = _NAMES[name]
        try:
            value = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            from pseudo_labels.errors import install_command

            raise ModuleNotFoundError(
                f"pocketiqa.{name} needs {error.name}: {install_command('train')}", name=error.name
            ) from error
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, before any was used."""
    return sorted(__all__)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pocketiqa")
    except PackageNotFoundError:  # a checkout that was not installed
        import tomllib
        from pathlib import Path

        text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
        return tomllib.loads(text)["project"]["version"]
