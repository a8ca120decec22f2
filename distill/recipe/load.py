"""The YAML files of pocketiqa: read, overlaid by ``KEY=VALUE`` words of the command line, checked against a model."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from pseudo_labels.errors import PocketiqaError, read_renamed

Checked = TypeVar("Checked", bound=BaseModel)


def todays_names(model: type[BaseModel], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys with every old name of a recipe key replaced by its new one, with a note.

    Args:
        model: what the file that the settings are laid over holds.
        settings: dotted key to value.
    """
    return {_todays_key(model, key): value for key, value in settings.items()}


def _todays_key(model: Any, key: str) -> str:
    # What has no class here, such as the options of a teacher, keeps its name.
    names = []
    for name in key.split("."):
        (new,) = read_renamed({name: None}, getattr(model, "RENAMED", {}))
        names.append(new)
        model = _model_of(model, new)
    return ".".join(names)


def todays_tree(model: Any, tree: Any) -> Any:
    """Sections of a file with every old name replaced, so that settings under new names are laid over them.

    Args:
        model: what the file holds.
        tree: its sections; what is none is left for the check against the model.
    """
    if isinstance(tree, list):
        return [todays_tree(_model_of(model, number), inner) for number, inner in enumerate(tree)]
    if not isinstance(tree, Mapping):
        return tree
    named = read_renamed(tree, getattr(model, "RENAMED", {}))
    return {name: todays_tree(_model_of(model, name), inner) for name, inner in named.items()}


class _Entries(NamedTuple):
    """Sections of one class under names of the user's own, such as those of ``teachers``, or under numbers."""

    model: type[BaseModel]


def _model_of(model: Any, name: int | str) -> Any:
    """The settings class of a section that ``model`` has under a name; None where there is none."""
    if isinstance(model, _Entries):
        return model.model
    field = getattr(model, "model_fields", {}).get(name)
    # The class itself, or the one inside of "X | None", tuple or dict.
    candidates = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
    section = next((item for item in candidates if hasattr(item, "model_fields")), None)
    several = field is not None and get_origin(field.annotation) in (dict, list, tuple)
    return _Entries(section) if section is not None and several else section


def parse_settings(words: Iterable[str]) -> dict[str, Any]:
    """Read ``a.b=1`` words into ``{"a.b": 1}``; the value is YAML, so 1, true, null and [a, b] are what they look like.

    Raises:
        PocketiqaError: a word without ``=``, or a value that is not YAML.
    """
    settings: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise PocketiqaError(f"{word!r} is not KEY=VALUE, such as distill.steps=200")
        try:
            settings[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise PocketiqaError(f"the value in {word!r} is not YAML; quote it, such as {key}='\"text\"'") from error
    return settings


def apply_settings(tree: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """A copy of ``tree`` with each dotted key set; sections in between are made where missing.

    Raises:
        PocketiqaError: a dotted key leads through a value that is no section.
    """
    for key, value in settings.items():
        tree = _with(tree, key.split("."), value, key)
    return tree


def _with(tree: Any, path: list[str], value: Any, key: str) -> dict[str, Any]:
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise PocketiqaError(f"--set {key}: {path[0]!r} lies inside a plain value ({tree!r}), not inside a section")
    head, *rest = path
    return {**tree, head: _with(tree.get(head), rest, value, key) if rest else value}


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """The sections of a YAML file.

    Args:
        path: path of the file.
        what: it should be, in words: ``recipe`` or ``study``.

    Raises:
        PocketiqaError: not YAML, or no sections.
    """
    try:
        # Safe: a recipe may come from elsewhere, and other loaders of YAML run code.
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PocketiqaError(f"{path} is not a YAML {what}: {error}") from error
    if not isinstance(tree, dict):
        raise PocketiqaError(f"{path} holds no {what}: it has no sections")
    return tree


def validated(model: type[Checked], tree: Mapping[str, Any], path: Path) -> Checked:
    """The sections of a file as their model.

    Args:
        model: what the file should hold.
        tree: its sections.
        path: path of the file, for the error.

    Raises:
        PocketiqaError: an unknown key (the nearest known one is named), a missing one, or a value that does not fit.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        first, *others = error.errors()
        more = f" (and {len(others)} more)" if others else ""
        raise PocketiqaError(f"{path}: {_words(model, first)}{more}") from error


def _words(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"unknown key {where!r}{_did_you_mean(model, error['loc'])}"
    if error["type"] == "missing":
        return f"{where!r} is missing"
    # Of the file as a whole the message says all.
    return f"{where} = {error['input']!r}: {error['msg']}" if where else error["msg"].removeprefix("Value error, ")


def _did_you_mean(model: Any, location: tuple[int | str, ...]) -> str:
    for name in location[:-1]:
        model = _model_of(model, name)
    renamed = getattr(model, "RENAMED", {}).get(str(location[-1]))
    if renamed:
        return f"; it is called {renamed!r} now, and {renamed!r} is given as well: leave one out"
    names = list(getattr(model, "model_fields", {}))
    close = difflib.get_close_matches(str(location[-1]), names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; the keys here are {', '.join(names)}" if names else ""
