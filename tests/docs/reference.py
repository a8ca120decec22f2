"""Writes docs/recipes.md from the settings classes and docs/command-line.md from the help texts: ``make docs``."""

import inspect
import re
import textwrap
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic_core import PydanticUndefined
from typer.main import get_command

from distill.comparison.config import Comparison
from distill.comparison.config import Row as ComparisonRow
from distill.recipe.recipe import Recipe
from distill.recipe.settings import Settings
from distill.study.config import Study

DOCS = Path(__file__).parents[2] / "docs"
RECIPES, COMMANDS = DOCS / "recipes.md", DOCS / "command-line.md"
"""Width of the help texts, so that every machine writes the same file."""

_RECIPES_HEAD = """# Recipes, key by key

A recipe is a YAML file; `configs/` has examples, each with its command, cost and expected result.
`pocketiqa run RECIPE` walks its stages and skips what is unchanged. `--set distill.steps=2000` changes one value. A key
that does not exist is an error that names the nearest one. Paths may begin with `~` and hold `$VARIABLES`.

This page is written by `make docs` from the settings classes (`distill/recipe/`), and a test compares the two.
"""
_COMMANDS_HEAD = """# The command line

Written by `make docs` from `pocketiqa COMMAND --help`; a test compares the two. `--debug` behind any command shows the
traceback of an error.
"""


def recipes_page() -> str:
    """The whole page on recipes, as Markdown."""
    sections: dict[type[Settings], str] = {}
    parts = [_RECIPES_HEAD, _section("The recipe itself", Recipe, sections)]
    waiting = list(sections.items())
    done: set[type[Settings]] = {Recipe}
    while waiting:
        section, name = waiting.pop(0)
        if section in done:
            continue
        done.add(section)
        below: dict[type[Settings], str] = {}
        parts.append(_section(f"`{name}`", section, below))
        waiting[:0] = [(inner, f"{name}.{key}") for inner, key in below.items()]
    for title, section in (("A study", Study), ("A comparison", Comparison), ("A row of a comparison", ComparisonRow)):
        parts.append(_section(title, section, {}))
    return "\n".join(parts).rstrip() + "\n"


def _section(title: str, section: type[Settings], below: dict[type[Settings], str]) -> str:
    about = inspect.cleandoc(section.__doc__ or "").split("\n\n")
    lines = [f"## {title}", "", _markdown(" ".join(about[0].split())), ""]
    texts = attribute_texts(section)
    lines += ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in section.model_fields.items():
        inner = _settings_in(field.annotation)
        if inner is not None and inner not in below:
            below[inner] = name
        default = "required" if field.is_required() else _default(field)
        lines.append(f"| `{name}` | {_type(field.annotation)} | {default} | {_markdown(texts.get(name, ''))} |")
    return "\n".join([*lines, ""])


def attribute_texts(section: type[Settings]) -> dict[str, str]:
    """What the docstrings of a settings class and of those it extends say of each key."""
    texts: dict[str, str] = {}
    for owner in reversed(section.__mro__):
        _, _, attributes = inspect.cleandoc(owner.__doc__ or "").partition("Attributes:\n")
        for match in re.finditer(r"^    (\w+): (.*(?:\n        .*)*)", attributes, re.M):
            texts[match[1]] = " ".join(match[2].split())
    return texts


def _settings_in(annotation: Any) -> type[Settings] | None:
    if inspect.isclass(annotation) and issubclass(annotation, Settings):
        return annotation
    return next((inner for item in getattr(annotation, "__args__", ()) if (inner := _settings_in(item))), None)


_PLAIN = {int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path", Any: "any value"}


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), [item for item in get_args(annotation) if item is not type(None)]
    if origin is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in arguments)
    if origin is Annotated:
        return _type(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type(item) for item in arguments))
    if origin in (list, tuple):
        return f"list: {_type(arguments[0])}"
    if origin is dict or annotation is dict:
        return "mapping"
    if inspect.isclass(annotation) and issubclass(annotation, Settings):
        return "section"
    return _PLAIN.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or value is None:
        return "null"
    if isinstance(value, Settings) or (isinstance(value, dict | tuple | list) and not value):
        return "" if isinstance(value, Settings) else "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _markdown(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def commands_page() -> str:
    """The whole page on the command line, as Markdown."""
    from distill.cli import app

    group: Any = get_command(app)
    commands = [(name, group.commands[name]) for name in group.list_commands(None)]
    parts = [_COMMANDS_HEAD, _help(group, "pocketiqa")]
    parts += [f"## {name}\n\n{_help(command, f'pocketiqa {name}')}" for name, command in commands]
    return "\n".join(parts).rstrip() + "\n"


def _help(command: Any, name: str) -> str:
    lines = []
    about = textwrap.dedent(command.help or "").strip()
    usage = " ".join(command.collect_usage_pieces(command.make_context(name, [], resilient_parsing=True)))
    lines += [f"    {name} {usage}", "", about, ""]
    rows = [_parameter(parameter) for parameter in command.params]
    if rows:
        lines += ["| argument or option | meaning | default |", "| --- | --- | --- |", *rows, ""]
    return "\n".join(lines)


def _parameter(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    names = ", ".join(f"`{name}`" for name in parameter.opts) if is_option else f"`{_metavar(parameter)}`"
    text = " ".join((parameter.help or "").split())
    choices = parameter.type_descriptor.choices if parameter.type_descriptor.is_choice else ()
    own = re.search(r"\s*\[default: (.*)\]$", text)
    default = "" if parameter.default is None or parameter.default is False else f"`{parameter.default}`"
    if own:
        text, default = text[: own.start()], own[1]
    if choices:
        text += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
    if parameter.required:
        default = "required"
    return f"| {names} | {_markdown(text)} | {default} |"


def _metavar(argument: Any) -> str:
    return argument.metavar or argument.name.upper()


def main() -> None:
    """Write both pages."""
    RECIPES.write_text(recipes_page(), encoding="utf-8")
    COMMANDS.write_text(commands_page(), encoding="utf-8")
    print(f"written: {RECIPES.name}, {COMMANDS.name}")


if __name__ == "__main__":
    main()
