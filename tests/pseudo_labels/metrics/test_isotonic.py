import numpy as np
import pytest
from sklearn.isotonic import isotonic_regression

from pseudo_labels.metrics.isotonic import centred_isotonic, isotonic_levels


@pytest.mark.parametrize("seed", range(4))
def test_levels_are_those_of_sklearn(seed: int):
    generator = np.random.default_rng(seed)
    values, weights = generator.normal(size=200) + np.linspace(0, 2, 200), generator.random(200) + 0.1
    levels, block = isotonic_levels(values, weights)
    np.testing.assert_allclose(levels[block], isotonic_regression(values, sample_weight=weights), atol=1e-12)
    assert (np.diff(levels) > 0).all()


def test_falling_values_are_one_block():
    levels, block = isotonic_levels(np.array([3.0, 2.0, 1.0]), np.array([1.0, 1.0, 2.0]))
    assert levels.tolist() == [1.75]
    assert block.tolist() == [0, 0, 0]


def test_knots_are_the_means_of_the_plateaus():
    x, y = np.array([0.1, 0.2, 0.2, 0.4, 0.9]), np.array([0.0, 0.5, 0.3, 0.1, 0.8])
    knots = centred_isotonic(x, y)
    # 0.2 (twice, mean 0.4) and 0.4 (0.1) fall: one plateau of three points.
    np.testing.assert_allclose(knots[0], [0.1, 0.8 / 3, 0.9])
    np.testing.assert_allclose(knots[1], [0.0, 0.3, 0.8])
