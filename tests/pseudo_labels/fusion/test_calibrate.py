import json

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import canonical_json
from pseudo_labels.fusion.calibrate import (
    Calibration,
    MonotoneMap,
    align_quantiles,
    calibrate,
    fit_isotonic,
    fit_logistic,
    knots_map,
    uncalibrated,
)
from pseudo_labels.metrics.correlation import srcc
from tests.helpers.fusing import rho

FloatArray = NDArray[np.float64]
GRID = np.linspace(0, 1, 4001)


def curve(x: FloatArray) -> FloatArray:
    return 0.1 + 0.8 / (1 + np.exp(-(x - 0.55) / 0.08))


def sample(n: int, noise: float, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Scores of a teacher, and ratings that follow them along ``curve``."""
    generator = np.random.default_rng(seed)
    x = generator.uniform(0.2, 0.9, n)
    return x, np.clip(curve(x) + generator.normal(0, noise, n), 0, 1)


MAPS = {
    "logistic": fit_logistic(*sample(200, 0.1)),
    "isotonic": fit_isotonic(*sample(200, 0.1)),
    "isotonic of few": fit_isotonic(*sample(8, 0.4)),
    "isotonic of noise": fit_isotonic(*sample(50, 0.0)[:1], np.random.default_rng(1).random(50)),
    "one knot": knots_map([0.5], [0.7]),
    "identity": MonotoneMap(),
}


@pytest.mark.parametrize("name", MAPS)
def test_a_map_rises_strictly_and_stays_within_the_scale(name: str):
    mapped = MAPS[name](GRID)
    assert 0 <= mapped.min() <= mapped.max() <= 1
    assert (np.diff(mapped) > 0).all()
    assert srcc(mapped, GRID) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", MAPS)
def test_a_map_survives_json(name: str):
    again = MonotoneMap.from_dict(json.loads(canonical_json(MAPS[name].as_dict())))
    assert (again(GRID) == MAPS[name](GRID)).all()


def test_the_logistic_finds_the_curve_it_was_made_of():
    mapped = fit_logistic(*sample(400, 0.0))(GRID)
    inside = (GRID > 0.2) & (GRID < 0.9)
    # The blend with the identity moves a score by 0.001 at most.
    assert np.abs(mapped - curve(GRID))[inside].max() < 1.5e-3


def test_the_isotonic_map_goes_through_the_plateaus_of_sklearn_at_their_middles():
    x, y = sample(200, 0.15)
    staircase = IsotonicRegression().fit(x, y).predict(x)
    mapped = fit_isotonic(x, y)(np.unique(x))
    for level in np.unique(staircase):
        middle = x[staircase == level].mean()
        assert fit_isotonic(x, y)(middle) == pytest.approx(level, abs=1.1e-3)
    assert len(np.unique(mapped)) == len(x) > 3 * len(np.unique(staircase))


def test_a_spread_is_scaled_by_the_slope_of_the_map():
    straight = knots_map([0.0, 1.0], [0.2, 0.7])
    assert straight.spread([0.5, 0.3], [0.1, 0.0]) == pytest.approx([0.1 * (0.999 * 0.5 + 0.001), 0.0])
    assert np.isnan(straight.spread([0.5], [np.nan])).all()
    # At the end of the scale there is no room on one side: the slope is that of the other.
    assert straight.spread([1.0], [0.1]) == pytest.approx([0.1 * (0.999 * 0.5 + 0.001)])


def test_the_residual_variance_is_that_of_the_noise_and_not_of_the_fit():
    """With 12 % noise on 60 images isotonic regression fits far better than it predicts."""
    x, y = sample(60, 0.12, seed=3)
    fitted, held_out = calibrate(x, y, method="isotonic")
    variance = float(fitted.variance([0.5], [np.nan])[0])
    assert variance == pytest.approx(np.mean((held_out - y) ** 2), rel=1e-6)
    fresh_x, fresh_y = sample(20_000, 0.12, seed=4)
    true = np.mean((fitted.map(fresh_x) - fresh_y) ** 2)
    of_fit = np.mean((fitted.map(x) - y) ** 2)
    assert abs(variance - true) < abs(of_fit - true)
    assert variance == pytest.approx(true, rel=0.35)


def test_held_out_scores_come_from_fits_without_the_group():
    """Every group has an offset of its own that only its own images could teach."""
    generator = np.random.default_rng(0)
    offset = generator.normal(0, 0.15, 10)
    group = np.repeat(np.arange(10), 12)
    x = np.clip(0.05 + group * 0.09 + generator.uniform(0, 0.04, 120), 0, 1)
    y = np.clip(0.5 + 0.3 * (x - 0.5) + offset[group], 0, 1)
    by_group = calibrate(x, y, [f"g{g}" for g in group], method="isotonic")[1]
    by_image = calibrate(x, y, method="isotonic")[1]
    assert np.mean((by_group - y) ** 2) > 1.5 * np.mean((by_image - y) ** 2)


def test_auto_takes_the_curve_for_few_labels_and_the_staircase_where_the_curve_cannot_follow():
    chosen = [calibrate(*sample(30, 0.12, seed=seed))[0] for seed in range(10)]
    assert sum(measured.method == "logistic" for measured in chosen) >= 8
    x = np.random.default_rng(6).uniform(0, 1, 3000)
    steps = np.clip(np.floor(x * 3) / 3 + 0.1 + np.random.default_rng(7).normal(0, 0.02, 3000), 0, 1)
    many = calibrate(x, steps)[0]
    assert many.method == "isotonic"
    tried = many.held_out_rmse or {}
    assert set(tried) == {"logistic", "isotonic"}
    assert 0.02 < tried["isotonic"] < tried["logistic"]


def test_a_teachers_own_spread_counts_as_far_as_it_foretells_errors():
    generator = np.random.default_rng(8)
    x = generator.uniform(0.1, 0.9, 600)
    honest = generator.choice([0.03, 0.15], 600)
    y = np.clip(x + generator.normal(0, honest), 0, 1)
    described = calibrate(x, y, spreads=honest, method="logistic")[0]
    assert described.expected.extra_gain > 0
    sure, unsure = described.variance([0.5, 0.5], [0.03, 0.15])
    # A tenth of the expected error never follows the image, so the surest label is not taken at its word.
    assert 0.03**2 < sure < 0.05**2
    assert unsure == pytest.approx(0.15**2, rel=0.3)
    # Never counted twice: the mean expectation is the mean error found.
    fitted, held_out = calibrate(x, y, spreads=honest, method="logistic")
    assert fitted.variance(x, honest).mean() == pytest.approx(np.mean((held_out - y) ** 2), rel=0.15)
    random = generator.choice([0.03, 0.15], 600)
    deaf = calibrate(x, y, spreads=random, method="logistic")[0].variance([0.5, 0.5], [0.03, 0.15])
    assert deaf[1] / deaf[0] < 1.3 < 5 < unsure / sure


def test_the_calibration_knows_its_agreement_and_survives_json():
    x, y = sample(80, 0.1)
    value = calibrate(x, y, [f"scene{row // 2}" for row in range(80)])[0]
    assert (value.n, value.groups) == (80, 40)
    assert value.agreement is not None
    assert value.agreement.srcc == pytest.approx(rho(x, y), abs=1e-9)
    again = Calibration.from_dict(json.loads(canonical_json(value.as_dict())))
    assert again == value
    assert again.digest == value.digest != calibrate(x, y)[0].digest
    assert Calibration.from_dict(uncalibrated().as_dict()) == uncalibrated()


def test_quantile_alignment_gives_all_teachers_one_distribution_and_keeps_ranks():
    generator = np.random.default_rng(10)
    first = generator.beta(2, 5, 500)
    second = generator.beta(8, 2, 500)
    one, two = align_quantiles([first, second])
    mapped = one.map(first), two.map(second)
    expected = (np.sort(first) + np.sort(second)) / 2
    # 101 knots: between the least and the second knot lie five images.
    for measured in mapped:
        assert np.abs(np.sort(measured) - expected).max() < 0.04
        assert np.abs(np.sort(measured) - expected).mean() < 0.002
    assert srcc(mapped[0], first) == pytest.approx(1.0, abs=1e-12)
    assert srcc(mapped[1], second) == pytest.approx(1.0, abs=1e-12)
    assert (one.method, one.n) == ("quantile", 0)


GOOD = sample(40, 0.1)
REFUSED = [
    (GOOD[0][:19], GOOD[1][:19], {}, "scores for 19 images with ratings, of 19 scenes: at least 20 images of 5"),
    (*GOOD, {"groups": ["a", "b"] * 20}, "of 2 scenes"),
    (np.full(40, 0.3), GOOD[1], {}, r"'reference' is constant: its 40 scores .* at least 0.001"),
    (1 - GOOD[0], GOOD[1], {}, r"'reference' is reversed: SRCC -0\.\d\d \[-.*\(n=40\) with the ratings"),
    (GOOD[0], GOOD[1] * 5, {}, "rating .* scale it to"),
    (GOOD[0] * np.nan, GOOD[1], {}, "score nan at position 0"),
    (GOOD[0], np.full(40, 0.5), {}, "all 40 ratings are 0.5"),
    (GOOD[0], GOOD[1][:39], {}, "40 scores, 39 ratings"),
    (*GOOD, {"method": "linear"}, "'linear' is not fitted to ratings: choose one of auto, logistic, isotonic"),
]


@pytest.mark.parametrize(("scores", "ratings", "options", "named"), REFUSED)
def test_what_cannot_be_calibrated_is_refused_by_name(
    scores: FloatArray, ratings: FloatArray, options: dict[str, object], named: str
):
    with pytest.raises(PocketiqaError, match=named):
        calibrate(scores, ratings, name="reference", **options)  # pyright: ignore[reportArgumentType]


def test_a_teacher_that_knows_nothing_is_refused_without_being_called_reversed():
    x = np.random.default_rng(12).random(60)
    y = np.random.default_rng(13).random(60)
    sign = -1 if srcc(x, y) > 0 else 1
    with pytest.raises(PocketiqaError, match="'teacher' does not rise with quality"):
        calibrate(0.5 + sign * (x - 0.5), y)
