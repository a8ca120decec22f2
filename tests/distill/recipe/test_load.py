from pathlib import Path

import pytest

from distill.recipe.load import apply_settings, parse_settings, todays_names, validated
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
