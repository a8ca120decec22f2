"""Against the definitions written out in plain loops, and closed forms."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from distill.trust.figures import (
    auroc,
    clean_above,
    discrimination,
    level_order,
    mad_pairs,
    mean_figure,
    percentiles,
    preference,
)
from pseudo_labels.metrics.draws import Draws

RNG = np.random.default_rng(3)


def best_threshold(clean: np.ndarray, copies: np.ndarray) -> float:
    """The D-test of the paper, threshold by threshold."""
    thresholds = [-np.inf, *np.unique(np.concatenate([clean, copies.ravel()]))]
    return max(0.5 * ((clean > at).mean() + (copies <= at).mean()) for at in thresholds)


def test_the_d_test_is_the_best_balanced_accuracy():
    for ties in (False, True):
        clean, copies = RNG.normal(0.8, 1, 7), RNG.normal(0, 1, (7, 4))
        if ties:
            clean, copies = clean.round(), copies.round()
        assert discrimination(clean, copies).value == pytest.approx(best_threshold(clean, copies))
    assert discrimination(np.ones(6), np.zeros((6, 2))).value == 1
    assert discrimination(np.zeros(6), np.ones((6, 2))).value == 0.5
    assert discrimination(np.ones(6), np.ones((6, 2))).value == 0.5


def test_intervals_draw_photographs_with_all_their_copies():
    clean, copies = RNG.normal(0.5, 1, 6), RNG.normal(0, 1, (6, 3))
    figure = discrimination(clean, copies)
    drawn = []
    for counts in Draws.of(6).counts():
        for row in counts:
            rows = np.repeat(np.arange(6), row.astype(int))
            drawn.append(best_threshold(clean[rows], copies[rows]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (figure.interval.low, figure.interval.high) == pytest.approx((low, high))
    assert mean_figure(np.array([0.1, 0.3])).interval.as_dict()["low"] is None  # two photographs prove nothing


def test_the_l_test_counts_equal_scores_as_no_order():
    falling, rising, flat = [5, 4, 3, 2, 1], [1, 2, 3, 4, 5], [1, 1, 1, 1, 1]
    scores = np.array([[falling, falling], [falling, rising], [falling, flat]], float)
    assert level_order(scores).value == pytest.approx((1 + 0 + 0.5) / 3)


def test_the_p_test_asks_only_for_pairs_on_which_all_metrics_agree():
    scores, metrics = RNG.normal(size=(5, 4)), RNG.uniform(size=(5, 4, 2))
    figure, pairs = preference(scores, metrics, 0.3)
    flat, of_metrics, right, known = scores.ravel(), metrics.reshape(-1, 2), 0, 0
    for one in range(20):
        for other in range(20):
            if (of_metrics[one] - of_metrics[other] > 0.3).all():
                known += 1
                right += flat[one] > flat[other]
    assert pairs == known
    assert figure.value == pytest.approx(right / known)
    assert figure.interval.low <= figure.value <= figure.interval.high
    none, number = preference(scores, np.zeros((5, 4, 2)), 0.3)
    assert (number, none.as_dict()["value"]) == (0, None)
    assert "apart" in none.reason


def test_auroc_is_that_of_scikit_learn():
    clean, copies = RNG.normal(0.5, 1, 8).round(1), RNG.normal(0, 1, (8, 3)).round(1)
    truth = np.concatenate([np.ones(8), np.zeros(24)])
    theirs = roc_auc_score(truth, np.concatenate([clean, copies.ravel()]))
    assert clean_above(clean, copies).value == auroc(clean, copies) == pytest.approx(theirs)


def test_mad_pairs_are_alike_to_one_and_far_apart_to_the_other():
    defender, attacker = np.arange(200.0).reshape(10, 20), RNG.permutation(200).reshape(10, 20).astype(float)
    assert percentiles(np.array([[1.0, 2.0], [2.0, 3.0]])).tolist() == [[12.5, 50.0], [50.0, 87.5]]
    pairs = list(mad_pairs(defender, attacker, (20, 80), 5))
    assert [pair.level for pair in pairs] == [20, 80]
    for pair in pairs:
        assert abs(defender[pair.better] - defender[pair.worse]) <= 10
        held = percentiles(defender)
        near = np.abs(held - held.flat[np.abs(held - pair.level).argmin()]) <= 2.5
        assert attacker[pair.better] == attacker[near].max()
        assert attacker[pair.worse] == attacker[near].min()
    assert list(mad_pairs(defender, np.ones((10, 20)), (20, 80), 5)) == []  # an attacker that tells nothing apart
    # To a defender that gives one score, all are alike.
    (pair,) = mad_pairs(np.ones((10, 20)), attacker, (20,), 5)
    assert (attacker[pair.better], attacker[pair.worse]) == (199, 0)
