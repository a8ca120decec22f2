import numpy as np
import pytest

from distill.stress.verdict import Verdict, mean_interval


@pytest.mark.parametrize(
    ("figure", "at_least", "passed"),
    [(0.95, True, True), (0.949, True, False), (0.95, False, True), (0.951, False, False)]
    + [(float("nan"), at_least, False) for at_least in (True, False)],
)
def test_a_limit_is_kept_up_to_itself_and_by_numbers_only(figure: float, at_least: bool, passed: bool):
    assert Verdict("check", figure, 0.95, at_least).passed == passed


@pytest.mark.parametrize(
    ("n", "bounds", "outcome"),
    [
        (1, {}, "undecided"),
        (4, {"low": 0.1, "high": 0.2}, "undecided"),  # too few for an interval to mean anything
        (5, {"low": 0.7, "high": 0.94}, "no"),
        (5, {"low": 0.7, "high": 0.96}, "undecided"),
        (50, {}, "no"),  # such as a count, which has no interval
    ],
)
def test_a_miss_fails_only_where_the_choice_of_photographs_does_not_explain_it(
    n: int, bounds: dict[str, float], outcome: str
):
    verdict = Verdict("check", 0.9, 0.95, at_least=True, n=n, of_photographs=True, **bounds)
    assert (verdict.passed, verdict.outcome, verdict.failed) == (False, outcome, outcome == "no")
    assert Verdict("check", 0.97, 0.95, at_least=True, n=n, of_photographs=True, **bounds).outcome == "yes"
    assert Verdict("check", float("nan"), 0.95, at_least=True, n=n, of_photographs=True, **bounds).outcome == "no"
    assert Verdict("check", 0.9, 0.95, at_least=True, n=n).outcome == "no"  # not of photographs


def test_the_interval_of_a_mean_is_that_of_its_normal_approximation():
    values = np.random.default_rng(0).normal(0.3, 0.1, 400)
    made = mean_interval(values)
    half = 1.96 * values.std() / 20
    assert (made.low, made.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.002)
    assert np.isnan(mean_interval([0.1, 0.2]).low)  # of two photographs there is none
