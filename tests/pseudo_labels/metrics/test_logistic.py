from collections.abc import Callable

import numpy as np
import pytest

from pseudo_labels.metrics.logistic import LogisticFit, fit_logistic4


def vqeg(x: np.ndarray, b1: float, b2: float, b3: float, b4: float) -> np.ndarray:
    """The curve as the VQEG writes it."""
    return (b1 - b2) / (1 + np.exp(-(x - b3) / abs(b4))) + b2


@pytest.mark.parametrize(
    "parameters", [(0.9, 0.1, 0.5, 0.08), (80.0, 5.0, 30.0, 12.0), (0.1, 0.9, 0.4, 0.1), (5.0, 1.0, -200.0, 40.0)]
)
def test_recovers_the_parameters_it_was_made_with(parameters: tuple[float, float, float, float]) -> None:
    _, _, b3, b4 = parameters
    x = b3 + b4 * np.linspace(-4, 4, 80)
    fit = fit_logistic4(x, vqeg(x, *parameters))
    assert not fit.reason
    assert (fit.b1, fit.b2, fit.b3, fit.b4) == pytest.approx(parameters, rel=1e-4, abs=1e-6)


def test_evaluates_as_the_formula_does() -> None:
    x = np.linspace(-3, 3, 50)
    assert LogisticFit(0.9, 0.2, 0.5, 0.3)(x) == pytest.approx(vqeg(x, 0.9, 0.2, 0.5, 0.3))


@pytest.mark.parametrize(
    "curve", [lambda x: 2 * x + 1, lambda x: np.exp(3 * x), lambda x: -x], ids=["line", "exp", "fall"]
)
def test_limits_of_the_curve_are_reached(curve: Callable[[np.ndarray], np.ndarray]) -> None:
    # Unbounded searches end without a result here, though good models are nearly straight.
    x = np.linspace(0, 1, 200)
    y = curve(x)
    fit = fit_logistic4(x, y)
    assert not fit.reason
    assert np.abs(fit(x) - y).max() < 2e-3 * np.ptp(y)


@pytest.mark.parametrize("seed", range(4))
def test_is_as_good_as_a_search_over_all_shapes(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x = generator.uniform(0, 1, 120)
    y = vqeg(x, 0.9, 0.1, 0.4 + 0.1 * seed, 0.05 + 0.05 * seed) + generator.normal(0, 0.08, 120)
    costs = []
    for b3 in np.linspace(-1, 2, 61):
        for b4 in np.geomspace(0.005, 5, 41):
            basis = np.stack([vqeg(x, 1, 0, b3, b4), np.ones_like(x)], axis=1)
            best, *_ = np.linalg.lstsq(basis, y)
            costs.append(float(np.sum((basis @ best - y) ** 2)))
    assert np.sum((fit_logistic4(x, y)(x) - y) ** 2) <= min(costs) * (1 + 1e-9)


def test_failed_fit_maps_to_nan_and_travels_as_json() -> None:
    failed = LogisticFit.failed("too few")
    assert np.isnan(failed(np.array([0.1, 0.2]))).all()
    assert failed.as_dict() == {"b1": None, "b2": None, "b3": None, "b4": None, "reason": "too few"}
    assert LogisticFit.from_dict(failed.as_dict()).reason == "too few"
    fit = LogisticFit(0.9, 0.2, 0.5, 0.3)
    assert LogisticFit.from_dict(fit.as_dict()) == fit
