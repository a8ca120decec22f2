"""The YAML files of pocketiqa: read, overlaid by ``KEY=VALUE`` words of the command line, checked against a model."""

import difflib
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from pseudo_labels.errors import PocketiqaError, read_renamed, shown

Checked = TypeVar("Checked", bound=BaseModel)
MAX_BYTES = 256_000
"""Largest YAML file that is read; the recipes of the project have up to 8 KB."""
MAX_NODES = 50_000
"""Values in a YAML text, those counted anew that an alias repeats."""
MAX_DEPTH = 50
_MAX_DIGITS = 400
_MESSAGE_LETTERS = 200


class _BoundedLoader(yaml.SafeLoader):
    """YAML without what costs more than it says: repeated aliases, deep nesting, integers of thousands of digits.

    Keys that a section has twice are refused as well: YAML forbids them, and PyYAML takes the last one in silence.
    """

    def __init__(self, stream: str):
        super().__init__(stream)
        self._level = 0
        # Nodes with their number of values and their depth, aliases written out; by identity, for they are mutable.
        self._sizes: dict[int, tuple[yaml.Node, int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._level += 1
        # Here, before the parser goes deeper: it is slow where many brackets are open.
        self._refuse(self._level > MAX_DEPTH, f"it is nested more than {MAX_DEPTH} levels deep")
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self._level -= 1
        # A node whose size is not known yet is still open: the alias stands inside of it.
        self._refuse(alias and id(node) not in self._sizes, "an alias repeats what it is part of")
        if node is not None and id(node) not in self._sizes:
            sizes = [self._sizes[id(child)] for child in _children(node)]
            values, depth = 1 + sum(size[1] for size in sizes), 1 + max((size[2] for size in sizes), default=0)
            self._refuse(values > MAX_NODES, f"it has more than {MAX_NODES} values, aliases written out")
            self._refuse(depth > MAX_DEPTH, f"it is nested more than {MAX_DEPTH} levels deep")
            self._refuse_duplicates(node)
            self._sizes[id(node)] = node, values, depth
        return node

    def _refuse(self, wrong: bool, reason: str) -> None:
        if wrong:
            raise yaml.constructor.ConstructorError(None, None, reason, None)

    def _refuse_duplicates(self, node: yaml.Node) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        keys: set[Hashable] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                self._refuse((key.tag, key.value) in keys, f"line {line} repeats the key {shown(key.value)}")
                keys.add((key.tag, key.value))

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        self._refuse(len(node.value) > _MAX_DIGITS, f"an integer of {len(node.value)} digits")
        return super().construct_yaml_int(node)


_BoundedLoader.add_constructor("tag:yaml.org,2002:int", _BoundedLoader.construct_yaml_int)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [item for pair in node.value for item in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def parse_yaml(text: str) -> Any:
    """The values of a YAML text.

    Raises:
        ValueError: not YAML, or above one of the bounds of this module; in one line.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} letters")
    try:
        return yaml.load(text, _BoundedLoader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError) as error:
        # A date of the 40th of May is a ValueError of Python, an unhashable key a TypeError.
        lines = " ".join(str(error).split())
        raise ValueError(lines if len(lines) <= _MESSAGE_LETTERS else lines[:_MESSAGE_LETTERS] + "...") from error


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
            raise PocketiqaError(f"{shown(word)} is not KEY=VALUE, such as distill.steps=200")
        try:
            settings[key] = parse_yaml(text)
        except ValueError as error:
            raise PocketiqaError(
                f"the value in {shown(word)} is not YAML ({error}); quote it, such as {key[:80]}='\"text\"'"
            ) from error
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
        raise PocketiqaError(
            f"--set {key}: {path[0]!r} lies inside a plain value ({shown(tree)}), not inside a section"
        )
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
        with open(path, "rb") as file:
            tree = parse_yaml(file.read(MAX_BYTES + 1).decode("utf-8"))
    except ValueError as error:
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
    where = where if len(where) <= _MESSAGE_LETTERS else where[:_MESSAGE_LETTERS] + "..."
    if error["type"] == "extra_forbidden":
        return f"unknown key {where!r}{_did_you_mean(model, error['loc'])}"
    if error["type"] == "missing":
        return f"{where!r} is missing"
    # Of the file as a whole the message says all.
    return f"{where} = {shown(error['input'])}: {error['msg']}" if where else error["msg"].removeprefix("Value error, ")


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
