"""The interface of what the loop trains: student and teacher have all of it."""

import inspect

import pytest

from distill.training.learner import Learner
from distill.training.student import StudentLearner
from distill.training.teacher import TeacherLearner

MEMBERS = [name for name in vars(Learner) if not name.startswith("_")]
ATTRIBUTES = {"module", "model", "optimizer"}  # set when a learner is made


@pytest.mark.parametrize("learner", [StudentLearner, TeacherLearner])
def test_every_member_is_there_with_the_same_parameters(learner: type):
    assert len(MEMBERS) >= 10
    for name in set(MEMBERS) - ATTRIBUTES:
        wanted, own = inspect.getattr_static(Learner, name), inspect.getattr_static(learner, name)
        if callable(wanted):
            assert len(inspect.signature(own).parameters) == len(inspect.signature(wanted).parameters), name
    for name in ATTRIBUTES:
        assert hasattr(learner, name) or f"self.{name}" in inspect.getsource(learner), name
