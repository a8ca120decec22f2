"""The generated pages are those that the code would write; the other pages link to what is there."""

import re
from pathlib import Path

import pytest

from distill.recipe.recipe import Recipe
from distill.recipe.stages import SourceSection
from distill.recipe.training import FitSection
from tests.docs.reference import COMMANDS, DOCS, RECIPES, attribute_texts, commands_page, recipes_page
from tests.helpers.imports import modules_imported

ROOT = DOCS.parent
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])


def test_the_recipe_page_is_written_from_the_settings_classes():
    assert RECIPES.read_text(encoding="utf-8") == recipes_page(), "run: make docs"


def test_the_command_page_is_written_from_the_help_texts():
    assert COMMANDS.read_text(encoding="utf-8") == commands_page(), "run: make docs"


@pytest.mark.parametrize("section", [Recipe, SourceSection, FitSection])
def test_every_key_has_a_meaning(section: type):
    texts = attribute_texts(section)
    assert [key for key in section.model_fields if not texts.get(key)] == []


def test_every_command_has_a_section():
    from distill.cli import app

    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert names == set(re.findall(r"^## (\S+)", COMMANDS.read_text(encoding="utf-8"), re.M))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_of_the_project_lead_somewhere(page: Path):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), target


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 1500
    lines = text.splitlines()
    assert len(lines) <= 200
    prose = [line for line in lines if not line.startswith(("|", "    ", "![", "```"))]
    assert [line for line in prose if len(line) > 120] == []


@pytest.mark.parametrize(("way", "most"), [("score", 8), ("label", 10), ("distill", 10)])
def test_the_ways_of_the_architecture_page_are_those_of_the_imports(way: str, most: int):
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    headline = re.search(rf"^\*\*.*`pocketiqa {way}`.*\*\*$", page, re.M)
    assert headline is not None
    files = re.findall(r"^\d+\. `([\w/]+\.py)`", page[headline.end() :].split("\n\n**")[0], re.M)
    assert 3 < len(files) <= most
    for number, file in enumerate(files[1:], 1):
        earlier = set.union(*(modules_imported(ROOT / other) for other in files[:number]))
        assert file.removesuffix(".py").replace("/", ".") in earlier, f"no file before {file} imports it"
