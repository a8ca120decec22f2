import pytest

from distill.html.markup import Html, escape, join, plain, tag
from tests.helpers.markup import parsed

HOSTILE = "<script>alert('x')</script>\" onload=\"y\" & 'z' \u202egnp.exe\x00\udcff\n"


def test_hostile_text_stays_text() -> None:
    page = parsed(tag("p", HOSTILE, title=HOSTILE))
    assert [name for name, _ in page.tags] == ["p"]
    assert page.text == plain(HOSTILE)
    assert page.tags[0][1] == {"title": plain(HOSTILE)}


def test_deceiving_characters_are_marked() -> None:
    assert plain("a\u202eb\x00c\udcffd\u2066e\ufefff") == "a\ufffdb\ufffdc?d\ufffde\ufffdf"
    assert plain("Grüße 照片 😀 a\tb\nc") == "Grüße 照片 😀 a\tb\nc"


def test_markup_is_kept_and_text_is_escaped_once() -> None:
    assert tag("b", "a<b", tag("i", "&")) == "<b>a&lt;b<i>&amp;</i></b>"
    assert escape(Html("<br>")) == "<br>"
    assert join([None, "a", ["b", tag("br")], 3]) == "ab<br>3"


def test_attributes() -> None:
    element = tag("a", "x", class_="c", aria_label="l", hidden=True, id=None, open=False, data_value=0)
    assert element == '<a class="c" aria-label="l" hidden data-value="0">x</a>'
    assert tag("img", src="d") == '<img src="d">'


@pytest.mark.parametrize("name", ["name", "title"])
def test_any_attribute_can_be_named(name: str) -> None:
    assert tag("meta", **{name: "v"}) == f'<meta {name}="v">'
