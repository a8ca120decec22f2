import math

import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.records import confidence
from teachers.base import Teacher, TeacherOutput, check_output, shapes, stack
from teachers.reference import build_reference
from tests.helpers import own_teacher


@pytest.mark.parametrize("teacher", [own_teacher.build(), build_reference()])
def test_teachers_meet_the_protocol(teacher: object):
    assert isinstance(teacher, Teacher)
    assert not isinstance(object(), Teacher)


@pytest.mark.parametrize(
    ("builder", "named"),
    [
        (own_teacher.percent, r"scores from 55 to 55: they must be in \[0, 1\]"),
        (own_teacher.matrix, r"score of shape \[3, 1\] for 3 images: a tensor \[3\]"),
        (own_teacher.bare, "returned Tensor, not teachers.base.TeacherOutput"),
        (own_teacher.featureless, r"nothing for feature 'cells', not \[3, ...\]"),
        (own_teacher.negative_spread, "score_std of -1"),
    ],
)
def test_output_that_cannot_be_used_is_refused_by_name(builder, named: str):
    output = builder()([torch.zeros(2)] * 3)
    with pytest.raises(PocketiqaError, match=rf"teacher 'mine' .*{named}"):
        check_output(output, 3, ("cells",), "mine")


def test_rounding_is_clamped_and_nan_is_left_to_the_row():
    output = check_output(TeacherOutput(torch.tensor([-1e-6, 1.00001, math.nan])), 3, (), "mine")
    assert output.score[:2].tolist() == [0.0, 1.0]
    assert output.score[2].isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_step_of_half_precision_outside_is_rounding_and_two_are_another_scale(dtype: torch.dtype):
    # Found by torch itself: the next numbers above 1.
    one = torch.ones((), dtype=dtype)
    step = torch.nextafter(one, 2 * one)
    beyond = torch.nextafter(step, 2 * one)
    output = check_output(TeacherOutput(torch.stack([step, one, 1 - step])), 3, (), "mine")
    assert output.score.tolist() == [1.0, 1.0, 0.0]
    with pytest.raises(PocketiqaError, match=r"must be in \[0, 1\]"):
        check_output(TeacherOutput(torch.stack([beyond, one])), 2, (), "mine")
    # Of float16 also after a conversion, as networks of lower precision do with their output.
    if dtype == torch.float16:
        assert check_output(TeacherOutput(step.float()[None]), 1, (), "mine").score.tolist() == [1.0]


def test_confidence_is_the_inverse_of_the_expected_squared_error():
    # Independent: two labels with error variances s^2 + d1^2 and s^2 + d2^2 are best averaged with inverse weights.
    first, second = 0.05, 0.3
    ratio = (0.1**2 + second**2) / (0.1**2 + first**2)
    assert confidence(first) / confidence(second) == pytest.approx(ratio)
    assert confidence(0.0) == 1.0
    assert confidence(0.1) == pytest.approx(0.5)
    assert confidence(math.nan) == 1.0


def test_items_are_stacked_one_tensor_for_each_part():
    pairs = [(torch.full((2, 3), float(i)), torch.full((4,), float(-i))) for i in range(5)]
    first, second = stack(pairs, "cpu")
    assert first.shape == (5, 2, 3)
    assert second[:, 0].tolist() == [0, -1, -2, -3, -4]
    assert stack([torch.zeros(2)], "cpu")[0].shape == (1, 2)
    assert shapes(pairs[0]) == shapes(pairs[1]) != shapes((torch.zeros(2, 3), torch.zeros(5)))
