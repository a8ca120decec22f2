from pathlib import Path

import numpy as np
import pytest

from distill.scoring.columns import Layout
from distill.scoring.moments import Seen
from distill.scoring.shots import GROUP_COLUMNS, Shot, Viewed, ranked, summary
from pseudo_labels.records import Status
from students.pairs import PairHead
from students.runtime import Row

# The score decides between the ends of [0, 1] alone: the second channel says what is better.
HEAD = PairHead(mean=(0.0, 0.0), scale=(1.0, 1.0), weights=(0.0, 2.0), score=0.1, alike=0.999)


def viewed(name: str, score: float, strength: float, dhash: int = 0) -> Viewed:
    seen = Seen(Path("/p") / name, None, dhash, None)
    return Viewed(Row(name, score, Status.OK, ""), seen, np.array([0.0, strength], np.float32))


PHOTOGRAPHS = [
    viewed("a", 0.5, 0.0),
    viewed("alone", 0.9, 0.0, dhash=(1 << 64) - 1),
    Viewed(Row("bad", None, Status.CORRUPT, "cut off")),
    viewed("b", 0.5, 1.0),
    viewed("c", 0.5, -1.0),
]


def test_groups_are_ranked_by_the_head_with_its_confidence():
    rows = ranked(PHOTOGRAPHS, HEAD, keep=1, seconds=10)
    assert [(row.path, row.group, row.photographs, row.rank, row.kept) for row in rows] == [
        ("b", 1, 3, 1, True),
        ("a", 1, 3, 2, False),
        ("c", 1, 3, 3, False),
        ("alone", 2, 1, 1, True),
        ("bad", None, None, None, None),
    ]

    def sigmoid(value: float) -> float:
        return 1 / (1 + np.exp(-value))

    assert rows[0].wins == pytest.approx((sigmoid(2) + sigmoid(4)) / 2)
    assert rows[1].wins == pytest.approx(0.5)
    assert rows[2].wins == pytest.approx((sigmoid(-2) + sigmoid(-4)) / 2)
    assert [row.confidence for row in rows] == [pytest.approx(sigmoid(2)), None, None, None, None]
    assert rows[3].wins is None
    assert (rows[4].status, rows[4].reason) == (Status.CORRUPT, "cut off")
    assert summary(rows) == "4 photographs: 3 in 1 groups of similar ones, 1 alone; 2 kept, 2 not"


def test_confidence_of_several_is_that_over_the_best_that_is_not_kept():
    rows = ranked(PHOTOGRAPHS, HEAD, keep=2, seconds=10)
    assert [row.kept for row in rows] == [True, True, False, True, None]
    assert rows[0].confidence == pytest.approx(1 / (1 + np.exp(-4)))
    assert rows[1].confidence == pytest.approx(1 / (1 + np.exp(-2)))
    assert [row.confidence for row in ranked(PHOTOGRAPHS, HEAD, keep=3, seconds=10)] == [None] * 5


def test_without_a_head_scores_rank_and_nothing_is_said_of_confidence():
    photographs = [viewed("a", 0.2, 9.0), viewed("b", 0.8, 0.0), viewed("c", 0.8, 0.0)]
    rows = ranked(photographs, None, keep=1, seconds=10)
    assert [row.path for row in rows] == ["b", "c", "a"]  # of equal ones the first stays first
    assert {(row.wins, row.confidence) for row in rows} == {(None, None)}


def test_columns_say_it_and_are_empty_without_a_score():
    row = Shot("a", 0.5, Status.OK, "", group=3, photographs=2, rank=1, wins=0.75, kept=True, confidence=0.75)
    layout = Layout(GROUP_COLUMNS)
    assert layout.names == ("group", "photographs", "rank", "wins", "kept", "confidence")
    assert [*layout.records(row)] == [(3, 2, 1, 0.75, "yes", 0.75)]
    assert [*layout.records(Shot("b", None, Status.CORRUPT, "x"))] == [(None,) * 6]
