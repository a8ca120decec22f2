"""Where data and teachers come from, and the command that repeats it."""

from typing import Any

from distill.report.content import build_content
from distill.report.origins import digest, provenance, repeat
from tests.helpers.markup import parsed
from tests.helpers.report_sample import sample_inputs


def text_of(section: Any) -> str:
    return parsed("".join(map(str, section.body))).text


def test_a_digest_is_shortened_and_whole_on_hovering():
    page = parsed(str(digest("ab" * 32)))
    assert page.text == "ab" * 8 + "…"
    assert page.tags == [("code", {"title": "ab" * 32, "class": "digest"})]
    assert parsed(str(digest("abc"))).text == "abc"


def test_pools_split_teachers_and_ratings_are_named():
    section = provenance(build_content(sample_inputs()))
    assert section is not None
    text = text_of(section)
    assert "photographs4,1213,000ok 4,100, duplicate 20, corrupt 1research" in text
    assert "2 distortions in synthetic" in text
    assert "not stated" in text  # the licence of the second pool
    assert "members = 3" in text
    assert "Ahmed, Asif: BIQ2021, 2022" in text
    assert "some test images show a scene of the training part" in text


def test_nothing_is_said_of_what_is_unknown():
    content = build_content(sample_inputs(pools=[], split={}, teachers=[]))
    section = provenance(content)
    assert section is not None
    text = text_of(section)
    assert not [words for words in ("Images", "Split by group", "Teachers") if words in text]


def test_the_command_stands_as_it_is_typed():
    section = repeat(build_content(sample_inputs(command="pocketiqa run 'a <b>'")))
    assert section is not None
    assert text_of(section) == "pocketiqa run 'a <b>'"
    assert repeat(build_content(sample_inputs(command=""))) is None
