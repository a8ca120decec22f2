import numpy as np
import pytest
from scipy import stats

from pseudo_labels.metrics import bootstrap
from pseudo_labels.metrics import draws as draws_module
from pseudo_labels.metrics.bootstrap import bootstrap_metrics
from pseudo_labels.metrics.correlation import METRICS, map_to_target, plcc, rmse
from pseudo_labels.metrics.draws import Draws, fraction_above_zero, interval


def correlated(images: int, rho: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A bivariate normal sample with correlation ``rho``."""
    target = generator.normal(size=images)
    return rho * target + np.sqrt(1 - rho**2) * generator.normal(size=images), target


@pytest.fixture
def tied() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Predictions and targets with ties, in groups of one to three."""
    generator = np.random.default_rng(5)
    x, y = correlated(90, 0.7, generator)
    return x.round(1), y.round(1), [f"scene {at // 3 if at < 60 else at}" for at in range(90)]


def test_each_resample_equals_the_metric_of_the_repeated_images(tied: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    x, y, groups = tied
    draws = Draws.of(90, groups, resamples=40, seed=3)
    intervals = bootstrap_metrics(x, y, draws)
    mapped, _ = map_to_target(x, y)
    counts = np.concatenate(list(draws.counts())).astype(int)
    for row in range(40):
        again = np.repeat(np.arange(90), counts[row])
        expected = {
            "srcc": stats.spearmanr(x[again], y[again])[0],
            "plcc": stats.pearsonr(x[again], y[again])[0],
            "krcc": stats.kendalltau(x[again], y[again])[0],
            "rmse": rmse(x[again], y[again]),
            "plcc_logistic4": plcc(mapped[again], y[again]),
            "rmse_logistic4": rmse(mapped[again], y[again]),
        }
        assert set(expected) == set(METRICS)
        for name, value in expected.items():
            assert intervals[name][row] == pytest.approx(value, abs=1e-12), name


def test_resamples_follow_from_the_seed_not_from_how_they_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = correlated(50, 0.5, np.random.default_rng(0))
    whole = bootstrap_metrics(x, y, Draws.of(50, resamples=64, seed=9))
    other = bootstrap_metrics(x, y, Draws.of(50, resamples=64, seed=10))
    monkeypatch.setattr(draws_module, "_CHUNK_COUNTS", 150)
    monkeypatch.setattr(bootstrap, "_PAIR_BLOCK", 7)
    pieces = bootstrap_metrics(x, y, Draws.of(50, resamples=64, seed=9))
    monkeypatch.setattr(bootstrap, "_MOST_PAIRED", 10)
    sorted_anew = bootstrap_metrics(x, y, Draws.of(50, resamples=64, seed=9))
    for name in METRICS:
        np.testing.assert_allclose(pieces[name], whole[name], atol=1e-12)
        np.testing.assert_allclose(sorted_anew[name], whole[name], atol=1e-12)
    assert not np.allclose(other["srcc"], whole["srcc"])


def test_kept_images_alone_count() -> None:
    generator = np.random.default_rng(2)
    x, y = correlated(60, 0.6, generator)
    keep = generator.random(60) < 0.5
    draws = Draws.of(60, resamples=30)
    whole = bootstrap_metrics(np.where(keep, x, np.nan), np.where(keep, y, np.nan), draws, keep)
    counts = np.concatenate(list(draws.counts())).astype(int)
    for row in range(30):
        again = np.repeat(np.flatnonzero(keep), counts[row][keep])
        assert whole["srcc"][row] == pytest.approx(stats.spearmanr(x[again], y[again])[0])


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    # Spearman's correlation of a bivariate normal is 6/pi asin(rho/2).
    generator, truth = np.random.default_rng(7), 6 / np.pi * np.arcsin(0.6 / 2)
    hits = {"srcc": 0, "plcc": 0}
    for trial in range(150):
        intervals = bootstrap_metrics(*correlated(80, 0.6, generator), Draws.of(80, resamples=300, seed=trial))
        for name, value in (("srcc", truth), ("plcc", 0.6)):
            ends = interval(intervals[name], 80)
            hits[name] += ends.low <= value <= ends.high
    # Standard error of the fraction is 1.8 %; percentile intervals of correlations cover slightly too little.
    assert 0.89 <= hits["srcc"] / 150 <= 0.99
    assert 0.89 <= hits["plcc"] / 150 <= 0.99


def test_scenes_shot_many_times_need_resampling_by_scene() -> None:
    generator = np.random.default_rng(11)
    by_scene = by_image = 0
    for trial in range(60):
        x, y = (np.repeat(values, 5) for values in correlated(30, 0.5, generator))
        x, y = x + generator.normal(0, 0.05, 150), y + generator.normal(0, 0.05, 150)
        groups = [str(at // 5) for at in range(150)]
        scenes = interval(bootstrap_metrics(x, y, Draws.of(150, groups, resamples=150, seed=trial))["plcc"], 30)
        images = interval(bootstrap_metrics(x, y, Draws.of(150, resamples=150, seed=trial))["plcc"], 150)
        by_scene += scenes.low <= 0.5 <= scenes.high
        by_image += images.low <= 0.5 <= images.high
    assert by_scene >= 50
    assert by_image <= 45


def test_shared_draws_make_differences_sharper_than_separate_ones() -> None:
    generator = np.random.default_rng(4)
    better, target = correlated(150, 0.8, generator)
    worse = better + generator.normal(0, 0.3, 150)
    draws = Draws.of(150, resamples=500)
    paired = bootstrap_metrics(better, target, draws)["srcc"] - bootstrap_metrics(worse, target, draws)["srcc"]
    separate = bootstrap_metrics(worse, target, Draws.of(150, resamples=500, seed=1))["srcc"]
    apart = bootstrap_metrics(better, target, draws)["srcc"] - separate
    assert paired.std() < 0.5 * apart.std()
    assert fraction_above_zero(paired) > 0.9


def test_a_constant_model_has_no_interval() -> None:
    intervals = bootstrap_metrics(np.full(30, 0.5), np.arange(30.0), Draws.of(30, resamples=20))
    for name in ("srcc", "plcc", "krcc", "plcc_logistic4", "rmse_logistic4"):
        assert np.isnan(intervals[name]).all()
        assert "does not exist in most resamples" in interval(intervals[name], 30).reason
    assert np.isfinite(interval(intervals["rmse"], 30).low)


def test_nothing_kept() -> None:
    intervals = bootstrap_metrics(np.zeros(4), np.zeros(4), Draws.of(4, resamples=3), np.zeros(4, bool))
    assert all(np.isnan(values).all() for values in intervals.values())
