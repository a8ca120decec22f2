import pytest

from distill.recipe.load import apply_settings, parse_settings
from pseudo_labels.errors import PocketiqaError


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
