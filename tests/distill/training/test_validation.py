"""Metrics of a validation, and which of them chooses the checkpoint."""

import numpy as np
import pytest
from scipy import stats

from distill.training.validation import correlations


def test_metrics_agree_with_scipy():
    generator = np.random.default_rng(3)
    predictions, targets = generator.random(40), np.round(generator.random(40), 1)  # with ties
    measured = correlations(predictions, targets)
    assert measured["n"] == 40
    assert measured["srcc"] == pytest.approx(stats.spearmanr(predictions, targets)[0], abs=1e-14)
    assert measured["plcc"] == pytest.approx(stats.pearsonr(predictions, targets)[0], abs=1e-14)
    assert measured["rmse"] == pytest.approx(np.sqrt(np.mean((predictions - targets) ** 2)))


@pytest.mark.parametrize(
    ("predictions", "targets"),
    [([0.5, 0.5, 0.5], [0.1, 0.2, 0.3]), ([0.1, 0.2, 0.3], [0.5, 0.5, 0.5]), ([0.1, 0.2], [0.2, 0.1])],
)
def test_a_correlation_that_does_not_exist_is_none(predictions: list[float], targets: list[float]):
    measured = correlations(np.array(predictions), np.array(targets))
    assert (measured["srcc"], measured["plcc"]) == (None, None)
    assert measured["rmse"] > 0


def test_equal_scores_have_no_error():
    measured = correlations(np.array([0.1, 0.5, 0.9]), np.array([0.1, 0.5, 0.9]))
    assert (measured["n"], measured["rmse"]) == (3, 0.0)
    assert (measured["srcc"], measured["plcc"]) == pytest.approx((1.0, 1.0), abs=1e-15)
