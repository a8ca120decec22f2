import random
from collections.abc import Iterator

import pytest

from distill.scoring.choosing import Choice, natural_key
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.records import Status
from students.runtime import Row


def row(name: str, score: float | None) -> Row:
    return Row(name, score, Status.OK if score is not None else Status.CORRUPT, "")


ROWS = [row("b2", 0.5), row("a", 0.9), row("bad", None), row("b10", 0.5), row("c", 0.1), row("d", 0.9)]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(), "b2 a bad b10 c d"),
        (Choice("best"), "a d b2 b10 c bad"),
        (Choice("worst"), "c b2 b10 a d bad"),
        (Choice("name"), "a b2 b10 bad c d"),
        (Choice(top=3), "a d b2"),
        (Choice(bottom=2), "c b2"),
        (Choice(top=1, bottom=1), "a c"),
        (Choice(top=4, bottom=4), "a d b2 b10 c"),
        (Choice("name", top=2, bottom=1), "a c d"),
        (Choice("worst", top=2), "a d"),
        (Choice(min_score=0.5), "b2 a b10 d"),
        (Choice(max_score=0.5), "b2 b10 c"),
        (Choice(min_score=0.5, max_score=0.5), "b2 b10"),
        (Choice(top=2, max_score=0.6), "b2 b10"),
        (Choice(top=100), "a d b2 b10 c"),
    ],
)
def test_rows_are_kept_in_order(choice: Choice, expected: str):
    assert [one.path for one in choice.of(iter(ROWS))] == expected.split()


def test_best_and_worst_are_those_of_a_full_sort():
    random.seed(0)
    rows = [row(str(number), random.randrange(50) / 50) for number in range(500)]
    order = sorted(range(500), key=lambda number: (-(rows[number].score or 0), number))
    worst = sorted(range(500), key=lambda number: (rows[number].score or 0, number))[:30]
    assert [int(one.path) for one in Choice(top=40).of(rows)] == order[:40]
    both = {*order[:40], *worst}
    assert [int(one.path) for one in Choice(top=40, bottom=30).of(rows)] == [one for one in order if one in both]


def test_without_an_order_rows_pass_as_they_arrive():
    def arriving() -> Iterator[Row]:
        yield ROWS[0]
        raise AssertionError("the second was asked for before the first was taken")

    assert next(Choice(min_score=0.2).of(arriving())) == ROWS[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"sort": "size"}, "choose one of best, worst, name"),
        ({"top": 0}, "--top 0: a number of images is needed"),
        ({"bottom": -1}, "--bottom -1"),
        ({"min_score": 80}, "--min-score 80: scores lie between 0"),
        ({"max_score": float("nan")}, "scores lie between 0"),
        ({"min_score": 0.8, "max_score": 0.2}, "--min-score 0.8 is above --max-score 0.2"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(words: dict[str, object], message: str):
    with pytest.raises(PocketiqaError, match=message):
        Choice(**words)  # type: ignore[arg-type]


def test_names_sort_as_people_count():
    names = ["IMG_10", "img_2", "IMG_1", "a²3", "9" * 5000 + "a"]
    assert sorted(names, key=natural_key) == ["9" * 5000 + "a", "a²3", "IMG_1", "img_2", "IMG_10"]
