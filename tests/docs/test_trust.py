"""The page on trust says of each test what the code says."""

import pytest

from pseudo_labels.distort import effects
from tests.docs.trust import CAUGHT, MEANINGS, PAGE, SEEN, caught, meanings, spliced


def test_the_page_explains_the_tests_as_the_command_does():
    text = PAGE.read_text(encoding="utf-8")
    assert spliced(text, MEANINGS, meanings()) == text, "run: make trust"


def test_the_page_on_what_is_seen_has_a_table_of_eight_kinds_at_three_strengths():
    page = SEEN.read_text(encoding="utf-8")
    kinds = effects()
    rows = [line for line in page.splitlines() if line.split(" | ")[0].removeprefix("| ") in kinds]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(kinds)
    values = [
        [{"value": float(number)} for number in (first, first, middle, middle, last)]
        for first, middle, last in (row.split(" | ")[1].split() for row in rows)
    ]
    result = {
        "models": [{"name": "m", "auroc": {"effects": dict(zip(kinds, values, strict=True))}}],
        "photographs": ["a"], "date": "2026-11-30",
    }  # fmt: skip
    made = caught(result).splitlines()
    assert [line.split(" | ")[1].removesuffix(" |") for line in made[2:10]] == [row.split(" | ")[1] for row in rows]
    assert spliced(page, CAUGHT, caught(result)) != page
    assert made[-1] == "Strengths 1, 3 and 5 of five; 1 photographs, 2026-11-30."


def test_a_block_that_is_missing_is_named():
    with pytest.raises(ValueError, match="0 blocks"):
        spliced("no marks", MEANINGS, "words")
    assert spliced("a <!-- x: begin -->old\nwords<!-- x: end --> b", "x", r"\1") == (
        "a <!-- x: begin -->\n\\1\n<!-- x: end --> b"
    )
