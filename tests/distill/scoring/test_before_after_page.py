"""The page of a comparison: its figures, and names that would be markup."""

from pathlib import Path

import pytest

from distill.scoring.before_after import compared
from distill.scoring.before_after_page import page
from distill.scoring.pairing import Pair
from pseudo_labels.records import Status
from students.runtime import Row
from tests.helpers.markup import parsed

HOSTILE = "\"><script>alert('x')</script>.png"


def made(changes: list[float | None], name: str = "photo{}.png") -> str:
    pairs, scores = [], {}
    for number, change in enumerate(changes):
        before, after = Path(f"b{number}"), Path(f"a{number}")
        pairs.append(Pair(name.format(number), before, after, str(number)))
        scores[before] = Row(str(before), 0.5, Status.OK, "")
        failed = Row(str(after), None, Status.CORRUPT, HOSTILE)
        scores[after] = failed if change is None else Row(str(after), 0.5 + change, Status.OK, "")
    comparison = compared(pairs, scores)
    return page(comparison.rows, comparison.summary, (Path("x"), Path("y")), "tiny", worst=3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([0.1, 0.11, 0.12, 0.13, 0.14], "scored higher"),
        ([-0.1, -0.11, -0.12, -0.13, -0.14], "scored lower"),
        ([-0.1, 0.1, -0.11, 0.11, 0.0], "no difference can be told from chance"),
        ([0.1], "1 groups, at least 5"),
        ([None], "No pair has two scores"),
    ],
)
def test_the_first_sentence_says_what_the_interval_allows(changes: list[float | None], words: str):
    assert words in parsed(made(changes)).text


def test_only_what_became_worse_is_among_the_worst():
    text = made([-0.2, 0.1, 0.3, 0.0, -0.1])
    assert "The 2 worst changes" in text
    assert "The 2 best changes" in text
    # The files are not there: the page says so in place of the pictures.
    assert "<img" not in text
    assert "photo0.png, before: no such file" in text


def test_names_and_reasons_stay_text():
    text = made([-0.2, None], HOSTILE)
    assert "script" not in {name for name, _ in parsed(text).tags}
    assert parsed(text).text.count("<script>") >= 3
