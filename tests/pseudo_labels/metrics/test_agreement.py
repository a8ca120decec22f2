import numpy as np
import pytest
from scipy.stats import rankdata

from pseudo_labels.metrics.agreement import Agreement, _resampled, agree
from pseudo_labels.metrics.bootstrap import Ranker
from pseudo_labels.metrics.correlation import srcc
from tests.helpers.fusing import rho


def test_srcc_is_that_of_scipy_with_ties():
    generator = np.random.default_rng(0)
    for _ in range(5):
        a, b = generator.integers(0, 6, 30), generator.normal(size=30)
        assert srcc(a, b) == pytest.approx(rho(a, b), abs=1e-12)
    # By hand, without ties: 1 - 6 sum(d^2) / (n (n^2 - 1)), d = 1, 1, 0, 0.
    assert srcc([1, 2, 3, 4], [2, 1, 3, 4]) == pytest.approx(1 - 6 * 2 / (4 * 15))


@pytest.mark.parametrize(("a", "b"), [([0.1, 0.2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [4, 4, 4])])
def test_srcc_does_not_exist_for_few_or_constant_scores(a: list[float], b: list[float]):
    assert np.isnan(srcc(a, b))
    assert agree(a, b) == Agreement(len(a), None)


def test_ranks_by_counts_are_the_ranks_of_copied_rows():
    values = np.array([0.3, 0.1, 0.3, 0.7])
    counts = np.array([[2, 1, 0, 3], [1, 1, 1, 1]])
    ranks = Ranker(values).ranks(counts.astype(np.float64))
    for row, count in enumerate(counts):
        copied = rankdata(np.repeat(values, count))
        drawn = np.flatnonzero(count)
        firsts = np.concatenate([[0], np.cumsum(count[drawn])[:-1]])
        assert ranks[row, drawn] == pytest.approx(copied[firsts])


def test_there_is_no_interval_below_five_groups():
    a = np.arange(20.0)
    b = a + np.random.default_rng(1).normal(0, 3, 20)
    four = agree(a, b, [str(row % 4) for row in range(20)])
    five = agree(a, b, [str(row % 5) for row in range(20)])
    assert four.srcc == five.srcc == pytest.approx(rho(a, b), abs=1e-9)
    assert (four.low, four.high) == (None, None)
    assert five.low is not None
    assert five.high is not None
    assert five.low <= rho(a, b) <= five.high


def test_the_seed_alone_decides_the_interval():
    a, b = np.random.default_rng(2).normal(size=(2, 40))
    assert agree(a, b, seed=3) == agree(a, b, seed=3) != agree(a, b, seed=4)
    assert agree(a, b, [f"scene{row}" for row in range(40)]).srcc == agree(a, b).srcc


def test_an_agreement_is_read_back_and_printed():
    whole = Agreement(30, 0.8125, 0.7, 0.9)
    assert Agreement.from_dict(whole.as_dict()) == whole
    assert whole.as_dict() == {"n": 30, "srcc": 0.8125, "low": 0.7, "high": 0.9}
    assert str(whole) == "SRCC 0.81 [0.70, 0.90] (n=30)"
    assert str(Agreement(4, -0.5)) == "SRCC -0.50 (n=4)"
    assert str(Agreement(2, None)) == "no SRCC (n=2)"


def test_intervals_hold_the_truth_and_widen_with_fewer_and_with_grouped_images():
    generator = np.random.default_rng(9)
    hits, widths = 0, []
    for _ in range(40):
        a = generator.normal(size=60)
        interval = agree(a, a + generator.normal(size=60))
        assert interval.low is not None
        assert interval.high is not None
        hits += interval.low <= 6 / np.pi * np.arcsin(np.sqrt(0.5) / 2) <= interval.high  # of a bivariate normal
        widths.append(interval.high - interval.low)
    assert hits >= 33  # 95 % of 40 would be 38; 33 or fewer happen less than once in 2000 times
    # Resampling by counts is resampling: scipy on copied rows says the same.
    a, b = generator.integers(0, 9, 40).astype(float), generator.normal(size=40)
    draws = np.random.default_rng(0).integers(0, 40, (50, 40))
    samples = [rho(a[rows], b[rows]) for rows in draws]
    assert _resampled(a, b, None, 0)[:50] == pytest.approx(samples)
    a = np.repeat(generator.normal(size=15), 4)
    copied = agree(a, a + np.repeat(generator.normal(size=15), 4), [str(row // 4) for row in range(60)])
    assert copied.low is not None
    assert copied.high is not None
    assert copied.high - copied.low > 1.5 * np.mean(widths)
    assert agree([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) == Agreement(3, None)
    assert agree([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == Agreement(3, 1.0)


def test_digits_that_are_part_of_digests_stay():
    """As computed by the version that counted its resamples itself."""
    generator = np.random.default_rng(11)
    a = np.round(generator.random(200), 2)
    b = a + generator.normal(0, 0.2, 200)
    measured = agree(a, b, [f"s{row % 37}" for row in range(200)], seed=4)
    assert measured == Agreement(200, 0.817489028, 0.760324844, 0.85982917)
