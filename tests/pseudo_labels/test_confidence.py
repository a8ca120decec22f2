import math

import pytest

from pseudo_labels.confidence import confidence


def test_confidence_is_the_inverse_of_a_floor_plus_the_variance():
    assert confidence(0.0) == 1.0
    assert confidence(math.nan) == 1.0
    for std in (0.03, 0.1, 0.4):
        assert confidence(std) == pytest.approx(0.01 / (0.01 + std**2))
