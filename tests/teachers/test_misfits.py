import pytest
import torch
from torch import Tensor

from teachers.misfits import misfits, some

OWN = {"a": torch.ones(2, 3), "b": torch.ones(2)}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"b": torch.zeros(2, dtype=torch.float16), "a": torch.zeros(2, 3)}, ""),
        ({"a": torch.ones(2, 3)}, "it lacks b"),
        ({**OWN, "c": torch.ones(1)}, "it has the foreign c"),
        ({**OWN, "a": torch.ones(3, 2)}, "it has a of shape [3, 2] instead of [2, 3]"),
        ({"c": torch.ones(1)}, "it lacks a, b, and it has the foreign c"),
    ],
)
def test_what_does_not_fit_is_named(given: dict[str, Tensor], said: str):
    assert misfits(OWN, given) == said


def test_some_names_and_how_many_more():
    assert some(["c", "a", "b"]) == "a, b, c"
    assert some(list("edcba")) == "a, b, c and 2 more"
