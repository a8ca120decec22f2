import numpy as np
import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from teachers.plain import PlainTeacher, plain_teacher
from teachers.registry import build_teacher


def darkness() -> PlainTeacher:
    """A scorer as somebody else would write it: low is good, and not from 0 to 1."""
    return plain_teacher(lambda rgb: 10 - rgb.mean() / 25.5, name="darkness", worst=10.0, best=0.0)


def test_a_function_becomes_a_teacher_by_its_name():
    teacher = build_teacher("tests.teachers.test_plain:darkness")
    grey = [np.full((8, 9, 3), value, np.uint8) for value in (0, 51, 255)]
    output = teacher([teacher.preprocess(one, None) for one in grey])
    assert output.score.tolist() == pytest.approx([0, 0.2, 1])
    assert teacher.stamp.digest == darkness().stamp.digest
    other = plain_teacher(lambda rgb: 0.0, name="darkness", worst=10.0, best=1.0)
    assert teacher.stamp.digest != other.stamp.digest


def test_values_beyond_the_scale_are_its_ends_and_no_number_stays_none():
    values = iter([-3.0, 7.0, float("nan")])
    teacher = plain_teacher(lambda rgb: next(values), name="odd")
    score = teacher([torch.zeros(4, 4, 3, dtype=torch.uint8)] * 3).score
    assert score[:2].tolist() == [0, 1]
    assert score[2].isnan()


@pytest.mark.parametrize("ends", [(1.0, 1.0), (0.0, float("inf"))])
def test_a_scale_without_ends_is_refused(ends: tuple[float, float]):
    with pytest.raises(PocketiqaError, match="'odd': worst is"):
        plain_teacher(lambda rgb: 0.0, name="odd", worst=ends[0], best=ends[1])
