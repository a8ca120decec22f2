import numpy as np
import pytest

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.fusion.keep import DROPS, Drop, KeepRule, Measures, reasons, words

RULE = KeepRule(min_confidence=0.3, max_disagreement=0.2, outlier_feature="map", max_outlier=4.0)
# One row for each reason, in the order of ``Drop``, and one that is kept.
MEASURES = Measures(
    count=np.array([0, 1, 2, 2, 2, 2, 2]),
    confidence=np.array([0.0, 0.9, 0.9, 0.2, 0.9, 0.9, 0.9]),
    disagreement=np.array([np.nan, np.nan, 0.1, 0.1, 0.3, 0.1, 0.1]),
    featured=np.array([True, True, False, True, True, True, True]),
    outlier=np.array([0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 0.0]),
)


def test_each_measure_has_its_reason():
    codes = reasons(RULE, 2, MEASURES)
    assert codes.dtype == np.int8
    assert codes.tolist() == [0, 1, 2, 3, 4, 5, -1]
    assert [DROPS[code] for code in codes[:-1]] == [
        "no_score", "teachers", "feature", "confidence", "disagreement", "outlier",
    ]  # fmt: skip


def test_the_first_reason_is_taken():
    worst = Measures(
        count=np.array([0, 1, 2, 2, 2]),
        confidence=np.array([0.0, 0.0, 0.0, 0.0, 0.9]),
        disagreement=np.full(5, 0.9),
        featured=np.array([False, False, False, True, True]),
        outlier=np.full(5, 9.0),
    )
    assert reasons(RULE, 2, worst).tolist() == [0, 1, 2, 3, 4]


def test_values_at_a_limit_are_kept():
    at = Measures(np.array([2]), np.array([0.3]), np.array([0.2]), outlier=np.array([4.0]))
    assert reasons(RULE, 2, at).tolist() == [-1]
    above = Measures(np.array([2]), np.array([0.3]), np.array([0.2]), outlier=np.array([np.nextafter(4.0, 5.0)]))
    assert reasons(RULE, 2, above).tolist() == [5]


def test_without_limits_only_missing_scores_and_teachers_drop():
    measures = Measures(np.array([0, 1, 3]), np.zeros(3), np.array([np.nan, np.nan, 5.0]))
    assert reasons(KeepRule(min_confidence=0.0), 2, measures).tolist() == [0, 1, -1]
    assert reasons(KeepRule(min_confidence=0.0), 1, measures).tolist() == [0, -1, -1]


def test_a_missing_feature_counts_as_an_outlier():
    missing = Measures(np.array([2]), np.array([0.9]), np.array([0.1]), outlier=np.array([np.nan]))
    assert reasons(RULE, 2, missing).tolist() == [5]
    assert words(Drop.OUTLIER, RULE, 2, missing, row=0, score=0.5).startswith("feature 'map' is missing")


@pytest.mark.parametrize(
    ("reason", "row", "expected"),
    [
        (Drop.TEACHERS, 1, "a score from 1 of the teachers, 2 are needed"),
        (Drop.FEATURE, 2, "the teacher whose feature is carried over has none of this image"),
        (Drop.CONFIDENCE, 3, "confidence 0.200 is below 0.3"),
        (Drop.DISAGREEMENT, 4, "the teachers disagree by 0.300, more than 0.2"),
        (Drop.OUTLIER, 5, "5.0 deviations from the usual in 'map', more than 4"),
    ],
)
def test_a_reason_gives_value_limit_and_score(reason: Drop, row: int, expected: str):
    assert words(reason, RULE, 2, MEASURES, row=row, score=0.5) == f"{expected} (fused score 0.500)"
    assert words(reason, RULE, 2, MEASURES, row=row, score=float("nan")) == expected


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"min_teachers": 0}, "min_teachers is 0: at least 1"),
        ({"min_confidence": -0.1}, r"min_confidence is -0\.1: choose from 0 to 1"),
        ({"max_disagreement": 1.1}, r"max_disagreement is 1\.1: choose above 0, up to 1"),
        ({"max_outlier": np.inf}, "max_outlier is inf: choose above 0"),
        ({"max_outlier": 0.0}, r"max_outlier is 0\.0: choose above 0"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(options: dict[str, float], named: str):
    with pytest.raises(PocketiqaError, match=named):
        KeepRule(**options)  # pyright: ignore[reportArgumentType]


def test_a_rule_is_made_again_of_its_json_form():
    assert KeepRule(**RULE.as_dict()) == RULE
    assert RULE.as_dict() == {
        "min_teachers": None,
        "min_confidence": 0.3,
        "max_disagreement": 0.2,
        "outlier_feature": "map",
        "max_outlier": 4.0,
    }
