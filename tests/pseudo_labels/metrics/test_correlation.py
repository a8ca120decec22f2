import numpy as np
import pytest
from scipy import stats

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.metrics import correlation
from pseudo_labels.metrics.correlation import (
    METRICS,
    NEEDS_MAPPING,
    falling_srcc,
    krcc,
    measure,
    paired_arrays,
    plcc,
    rmse,
    srcc,
    undefined,
)

# Anscombe, "Graphs in statistical analysis", The American Statistician 1973: every pair has r = 0.816.
ANSCOMBE_X = [10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5]
ANSCOMBE_Y = [
    [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68],
    [9.14, 8.14, 8.74, 8.77, 9.26, 8.10, 6.13, 3.10, 9.13, 7.26, 4.74],
    [7.46, 6.77, 12.74, 7.11, 7.81, 8.84, 6.08, 5.39, 8.15, 6.42, 5.73],
]


@pytest.fixture(params=[0, 1, 2])
def pair(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Correlated vectors; the last seed has many ties."""
    generator = np.random.default_rng(request.param)
    target = generator.normal(size=200)
    prediction = 0.6 * target + generator.normal(size=200)
    return (prediction.round(0), target.round(1)) if request.param == 2 else (prediction, target)


def test_falling_scores_follow_the_levels_and_equal_ones_have_no_order():
    assert falling_srcc([0.9, 0.5, 0.1], [1, 3, 5]) == pytest.approx(1)
    assert falling_srcc([0.1, 0.5, 0.9], [1, 3, 5]) == pytest.approx(-1)
    assert falling_srcc([0.5, 0.5, 0.5], [1, 3, 5]) == 0
    scores = np.random.default_rng(0).random(9)
    assert falling_srcc(scores, range(9)) == pytest.approx(stats.spearmanr(-scores, range(9))[0], abs=1e-12)


def test_correlations_are_those_of_scipy(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert srcc(*pair) == pytest.approx(stats.spearmanr(*pair)[0], abs=1e-12)
    assert plcc(*pair) == pytest.approx(stats.pearsonr(*pair)[0], abs=1e-12)


def test_krcc_is_tau_b_by_its_definition(pair: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = (np.sign(values[:, None] - values)[np.triu_indices(len(values), 1)] for values in pair)
    assert krcc(*pair) == pytest.approx(np.sum(x * y) / np.sqrt(np.sum(x**2) * np.sum(y**2)), abs=1e-12)


@pytest.mark.parametrize("y", ANSCOMBE_Y)
def test_plcc_of_anscombes_quartet(y: list[float]) -> None:
    assert plcc(ANSCOMBE_X, y) == pytest.approx(0.816, abs=1e-3)


def test_rank_correlations_by_hand() -> None:
    # Ranks 1 2 3 4 5 against 2 1 4 3 5: sum of d^2 is 4, two of ten pairs are discordant.
    x, y = [0.1, 0.2, 0.3, 0.4, 0.5], [20, 10, 40, 30, 50]
    assert srcc(x, y) == pytest.approx(1 - 6 * 4 / (5 * 24))
    assert krcc(x, y) == pytest.approx((8 - 2) / 10)


def test_rmse_of_a_constant_error_is_the_error() -> None:
    assert rmse([0.1, 0.5, 0.9], [0.3, 0.7, 1.1]) == pytest.approx(0.2)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_correlations_do_not_depend_on_the_scale(pair: tuple[np.ndarray, np.ndarray], scale: float) -> None:
    for name in ("srcc", "plcc", "krcc", "plcc_logistic4"):
        plain, scaled = METRICS[name](*pair), METRICS[name](pair[0] * scale + 5 * scale, pair[1])
        assert scaled == pytest.approx(plain, abs=1e-5), name


@pytest.mark.parametrize("name", ["srcc", "plcc", "krcc"])
def test_reversed_and_equal_orders_are_the_ends(name: str) -> None:
    x = np.linspace(0, 1, 20)
    assert METRICS[name](x, x) == pytest.approx(1)
    assert METRICS[name](x, 1 - x) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("prediction", "target", "reason"),
    [
        ([0.1, 0.2], [0.3, 0.4], "2 images, at least 3"),
        ([0.5] * 8, np.arange(8.0), "all predictions are equal"),
        (np.arange(8.0), [0.5] * 8, "all targets are equal"),
    ],
)
def test_degenerate_input_gives_nan_and_says_why(prediction: object, target: object, reason: str) -> None:
    metrics, fit = measure(np.asarray(prediction), np.asarray(target))
    assert reason in undefined(np.asarray(prediction), np.asarray(target))
    for name in ("srcc", "plcc", "krcc", "plcc_logistic4", "rmse_logistic4"):
        assert np.isnan(metrics[name].value), name
        assert reason in metrics[name].reason, name
    assert reason in fit.reason
    assert np.isfinite(metrics["rmse"].value)
    assert metrics["srcc"].as_dict() == {
        "value": None,
        "n": len(np.asarray(prediction)),
        "reason": metrics["srcc"].reason,
    }


def test_no_images_at_all() -> None:
    metrics, _ = measure([], [])
    assert all(np.isnan(one.value) and one.n == 0 and one.reason for one in metrics.values())


def test_five_images_are_too_few_for_the_mapping_only() -> None:
    metrics, _ = measure([1, 2, 3, 4, 5], [1, 3, 2, 5, 4])
    assert np.isfinite(metrics["srcc"].value)
    assert "at least 6 are needed to fit four parameters" in metrics["plcc_logistic4"].reason


@pytest.mark.parametrize(
    ("prediction", "target", "words"),
    [
        ([1, 2, 3], [1, 2], r"shape \(3,\).*shape \(2,\)"),
        ([[1, 2, 3]], [[1, 2, 3]], r"shape \(1, 3\)"),
        ([1, np.nan, 3], [1, 2, 3], "1 of 3 predictions are NaN"),
        ([1, 2, 3], [np.inf, np.nan, 3], "2 of 3 targets are NaN or infinite"),
    ],
)
def test_mistakes_are_refused(prediction: object, target: object, words: str) -> None:
    with pytest.raises(PocketiqaError, match=words):
        paired_arrays(np.asarray(prediction), np.asarray(target))


def test_measure_repeats_the_single_functions(pair: tuple[np.ndarray, np.ndarray]) -> None:
    metrics, _ = measure(*pair)
    assert list(metrics) == list(METRICS)
    for name, metric in METRICS.items():
        assert metrics[name].value == pytest.approx(metric(*pair), abs=1e-12)
        assert metrics[name].n == 200


def test_the_mapping_never_costs_correlation(pair: tuple[np.ndarray, np.ndarray]) -> None:
    # A straight line is the limit of the curve, so the fitted curve is at least about as good.
    assert correlation.plcc_logistic4(*pair) >= abs(plcc(*pair)) - 1e-4
    assert correlation.rmse_logistic4(*pair) <= np.std(pair[1]) + 1e-9
    assert {name for name in METRICS if name.endswith("logistic4")} == NEEDS_MAPPING
