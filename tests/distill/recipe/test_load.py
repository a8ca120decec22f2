import time
from pathlib import Path

import pytest
from pydantic import BaseModel

from distill.recipe.load import apply_settings, parse_settings, read_yaml, todays_names, validated
from distill.recipe.recipe import Recipe
from pseudo_labels.errors import PocketiqaError, RenamedWarning


def test_values_are_read_as_yaml():
    words = ["a=1", "b.c=true", "d=null", "e=[x, 2]", "f=text", "g=a=b", "h="]
    expected = {"a": 1, "b.c": True, "d": None, "e": ["x", 2], "f": "text", "g": "a=b", "h": None}
    assert parse_settings(words) == expected


@pytest.mark.parametrize("word", ["steps", "=3", "a=[1, 2"])
def test_a_word_that_is_no_setting_is_named(word: str):
    with pytest.raises(PocketiqaError, match=word.replace("[", r"\[")):
        parse_settings([word])


def test_settings_are_laid_over_without_changing_the_original():
    tree = {"a": {"b": 1, "c": 2}, "d": None}
    assert apply_settings(tree, {"a.b": 5, "d.e.f": 6}) == {"a": {"b": 5, "c": 2}, "d": {"e": {"f": 6}}}
    assert tree == {"a": {"b": 1, "c": 2}, "d": None}


def test_a_path_through_a_plain_value_is_refused():
    with pytest.raises(PocketiqaError, match=r"a\.b\.c.*'b'"):
        apply_settings({"a": 1}, {"a.b.c": 2})


@pytest.mark.parametrize(
    ("key", "today"),
    [
        ("fit.images.crop_share", "fit.images.crop_fraction"),
        ("teachers.one.images.crop_share", "teachers.one.images.crop_fraction"),
        ("teachers.merge.optimizer.rates", "teachers.merge.optimizer.learning_rate_multipliers"),
        ("merge.names", "weight_average.names"),
    ],
)
def test_old_names_are_replaced_below_names_of_the_users_own_too(key: str, today: str):
    with pytest.warns(RenamedWarning):
        assert todays_names(Recipe, {key: 1}) == {today: 1}


@pytest.mark.parametrize("key", ["teachers.merge.steps", "fit.options.crop_share", "teachers.one.options.grid"])
def test_names_of_the_users_own_are_no_old_names(key: str, recwarn: pytest.WarningsRecorder):
    assert todays_names(Recipe, {key: 1}) == {key: 1}
    assert not recwarn.list


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"teachers": {"one": {"teacher": "t", "sources": [{"ratings": "a"}], "stepz": 3}}},
            r"'teachers\.one\.stepz'; did you mean 'steps'",
        ),
        ({"sources": [{"ratingz": "a"}]}, r"'sources\.0\.ratingz'; did you mean 'ratings'"),
    ],
)
def test_the_nearest_key_is_named_inside_of_lists_and_named_sections(changes: dict[str, object], message: str):
    with pytest.raises(PocketiqaError, match=message):
        validated(Recipe, {"name": "x", "out": "y", **changes}, Path("recipe.yaml"))


# --- YAML that costs more than it says

ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
)
HOSTILE = {
    "aliases of aliases": (ALIASES, "more than 50000 values, aliases written out"),
    "merged aliases": ("a: &a {x: 1}\nb:\n  <<: [" + "*a," * 30_000 + "]\n", "more than 50000 values"),
    "an alias of itself": ("a: &a [*a]\n", "an alias repeats what it is part of"),
    "a chain of aliases": (
        "a0: &a0 [x]\n" + "".join(f"a{level}: &a{level} [*a{level - 1}]\n" for level in range(1, 900)),
        "nested more than 50 levels deep",
    ),
    "open brackets": ("a: " + "[" * 100_000, "nested more than 50 levels deep"),
    "closed brackets": ("a: " + "[" * 3000 + "]" * 3000, "nested more than 50 levels deep"),
    "sections in sections": ("".join(" " * level + "a:\n" for level in range(400)), "nested more than 50"),
    "a long integer": ("a: " + "9" * 5000, "an integer of 5000 digits"),
    "a long hexadecimal": ("a: 0x" + "f" * 5000, "an integer of 5002 digits"),
    "a long sexagesimal": ("a: " + ":".join(["1"] * 3000), "an integer of 5999 digits"),
    "a key that is there twice": ("name: a\nout: b\nname: c\n", "line 3 repeats the key 'name'"),
    "a key that is there twice below": ("a:\n  b: 1\n  b: 2\n", "line 3 repeats the key 'b'"),
    "a day that does not exist": ("a: 2020-99-99\n", "month must be in 1..12"),
    "a key that is a list": ("? [a]\n: 1\n", "unhashable key"),
    "a long alias": ("a: *" + "z" * 100_000, "found undefined alias"),
    "a large file": ("a: 1\n" * 1_000_000, "more than 256000 letters"),
    "a call of Python": ("a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_yaml_is_one_plain_line_in_seconds(what: str, tmp_path: Path):
    text, reason = HOSTILE[what]
    (tmp_path / "r.yaml").write_text(text)
    started = time.process_time()
    with pytest.raises(PocketiqaError, match="not a YAML recipe: ") as caught:
        read_yaml(tmp_path / "r.yaml", "recipe")
    message = str(caught.value)
    assert reason in message
    assert len(message) < 400 + len(str(tmp_path))
    assert "\n" not in message
    assert time.process_time() - started < 5


def test_aliases_and_merged_sections_of_ordinary_size_are_read(tmp_path: Path):
    (tmp_path / "r.yaml").write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]\n")
    one = {"x": 1, "y": 2}
    assert read_yaml(tmp_path / "r.yaml", "recipe") == {"a": one, "b": {"x": 1, "y": 3}, "c": [one, one]}


class _Settings(BaseModel, extra="forbid"):
    steps: int = 1
    name: str = ""


@pytest.mark.parametrize(
    "tree", [{"steps": "x" * 10**6}, {"name": [["y"] * 10**5] * 10}, {"steps": [10**399]}, {"z" * 10**6: 1}]
)
def test_messages_quote_a_bounded_part_of_a_value(tree: dict):
    with pytest.raises(PocketiqaError) as caught:
        validated(_Settings, tree, Path("r.yaml"))
    assert len(str(caught.value)) < 700


def test_a_word_of_the_command_line_is_bounded_too():
    for word in ("a=" + "[" * 100_000, "a=" + "9" * 5000, "x" * 100_000, "a=&a [*a]"):
        with pytest.raises(PocketiqaError) as caught:
            parse_settings([word])
        assert len(str(caught.value)) < 500
