"""Changes of pairs: the sign test against scipy, the interval over scenes."""

import numpy as np
import pytest
from scipy.stats import binomtest

from pseudo_labels.metrics.changes import sign_test, summarise


@pytest.mark.parametrize(("better", "worse"), [(0, 1), (1, 1), (7, 2), (2, 7), (13, 40), (300, 350), (5, 5)])
def test_the_sign_test_is_the_exact_binomial_one(better: int, worse: int):
    expected = binomtest(better, better + worse, 0.5).pvalue
    assert sign_test(better, worse) == pytest.approx(expected, rel=1e-12)


def test_without_any_change_there_is_no_sign_test():
    assert sign_test(0, 0) is None
    assert summarise(np.zeros(6), list("abcdef"))["sign_test"] == {"better": 0, "worse": 0, "p": None}


def test_large_numbers_neither_overflow_nor_take_long():
    assert sign_test(500_000, 500_000) == 1.0
    assert sign_test(0, 200_000) == 0.0
    for better, worse in ((5_300, 5_100), (5_250, 5_250), (5_500, 5_050)):
        assert sign_test(better, worse) == pytest.approx(binomtest(better, better + worse, 0.5).pvalue, rel=4e-3)


def test_the_interval_holds_the_mean_and_is_that_of_whole_scenes():
    generator = np.random.default_rng(0)
    of_scene = generator.normal(0.02, 0.05, 40)
    changes = np.repeat(of_scene, 5) + generator.normal(0, 0.001, 200)
    alone = summarise(changes, [str(at) for at in range(200)])
    scenes = summarise(changes, [str(at // 5) for at in range(200)])
    assert scenes["mean_change"] == alone["mean_change"] == pytest.approx(changes.mean())
    assert scenes["low"] < scenes["mean_change"] < scenes["high"]
    # Five pairs of one scene say hardly more than one of them: the interval is about the root of 5 wider.
    wider = (scenes["high"] - scenes["low"]) / (alone["high"] - alone["low"])
    assert wider == pytest.approx(5**0.5, rel=0.15)
    # Against the normal approximation of a mean of 40 scenes.
    assert scenes["high"] - scenes["low"] == pytest.approx(2 * 1.96 * of_scene.std() / 40**0.5, rel=0.15)
    assert (scenes["pairs"], scenes["scenes"]) == (200, 40)
    assert scenes["sign_test"]["better"] + scenes["sign_test"]["worse"] == 40


def test_counts_and_median():
    made = summarise(np.array([0.2, 0.0, -0.1, 0.3, 0.1]), list("abcde"))
    assert (made["better"], made["worse"], made["equal"]) == (3, 1, 1)
    assert made["median_change"] == pytest.approx(0.1)


def test_few_scenes_have_no_interval_and_no_pairs_no_figures():
    made = summarise(np.array([0.2, 0.1]), ["a", "b"])
    assert made["low"] is None
    assert "2 groups" in made["interval_reason"]
    empty = summarise(np.zeros(0), [])
    assert empty["pairs"] == 0
    assert empty["mean_change"] is None
