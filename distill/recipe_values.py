"""``KEY=VALUE`` words of the command line, read as YAML and laid over a recipe."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from pseudo_labels.errors import PocketiqaError


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
        path: of the file.
        what: it should be, in words: ``recipe`` or ``study``.

    Raises:
        PocketiqaError: not YAML, or no sections.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PocketiqaError(f"{path} is not a YAML {what}: {error}") from error
    if not isinstance(tree, dict):
        raise PocketiqaError(f"{path} holds no {what}: it has no sections")
    return tree
