import json
import math

import pytest

from pseudo_labels.files import canonical_json
from pseudo_labels.records import ImageRef, PseudoLabel, Status, TeacherStamp, confidence

STAMP = TeacherStamp("reference", 1, "abc", {"metrics": ["fsim"], "max_side": None})


def test_equal_stamps_have_equal_digests_whatever_the_order_of_options():
    turned = TeacherStamp("reference", 1, "abc", {"max_side": None, "metrics": ["fsim"]})
    assert turned.digest == STAMP.digest


@pytest.mark.parametrize(
    "other",
    [
        TeacherStamp("dp_iqa", 1, "abc", STAMP.options),
        TeacherStamp("reference", 2, "abc", STAMP.options),
        TeacherStamp("reference", 1, "abd", STAMP.options),
        TeacherStamp("reference", 1, "abc", {"metrics": ["fsim"], "max_side": 512}),
        TeacherStamp("reference", 1, "abc", STAMP.options, scale="MOS of KonIQ-10k"),
    ],
)
def test_any_difference_shows_in_the_digest(other: TeacherStamp):
    assert other.digest != STAMP.digest


def test_a_stamp_survives_json():
    assert TeacherStamp(**json.loads(canonical_json(STAMP.as_dict()))) == STAMP


def test_status_reads_and_writes_as_its_plain_name():
    assert json.loads(json.dumps(Status.NO_REFERENCE)) == "no_reference"
    assert Status("too_large") is Status.TOO_LARGE


def test_a_label_without_a_score_says_so_with_nan():
    label = PseudoLabel("id", "uri")
    assert math.isnan(label.score)
    assert math.isnan(label.score_std)


def test_rows_cannot_be_changed_in_place():
    with pytest.raises(AttributeError):
        ImageRef("id", "uri").status = Status.FAILED  # type: ignore[misc]


def test_confidence_is_the_inverse_of_a_floor_plus_the_variance():
    assert confidence(0.0) == 1.0
    assert confidence(math.nan) == 1.0
    for std in (0.03, 0.1, 0.4):
        assert confidence(std) == pytest.approx(0.01 / (0.01 + std**2))
