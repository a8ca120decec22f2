import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from pseudo_labels.fusion.combine import ErrorStructure, ExpectedError, combine, error_correlation, fit_expected_error

FloatArray = NDArray[np.float64]
NAN = np.nan


def structure(correlation: FloatArray, variance: float = 0.05) -> ErrorStructure:
    return ErrorStructure(correlation, variance)


def test_without_a_known_structure_it_is_the_inverse_variance_mean():
    generator = np.random.default_rng(0)
    scores, variances = generator.random((3, 50)), generator.uniform(0.001, 0.1, (3, 50))
    combined = combine(scores, variances, None)
    for row in range(50):
        precision = 1 / variances[:, row]
        mean = np.average(scores[:, row], weights=precision)
        assert combined.score[row] == pytest.approx(mean)
        assert combined.disagreement[row] == pytest.approx(np.average((scores[:, row] - mean) ** 2, weights=precision))


def test_base_is_the_variance_of_the_mean_under_correlated_errors():
    generator = np.random.default_rng(1)
    correlation = np.array([[1, 0.6, 0.1], [0.6, 1, 0.3], [0.1, 0.3, 1]])
    deviations = np.array([0.05, 0.1, 0.2])
    errors = generator.multivariate_normal(np.zeros(3), correlation * np.outer(deviations, deviations), 200_000)
    combined = combine(np.full((3, 1), 0.5), deviations[:, None] ** 2, structure(correlation))
    assert combined.base[0] == pytest.approx(np.var(errors @ combined.weights[:, 0]), rel=0.02)
    assert error_correlation(errors.T) == pytest.approx(correlation, abs=0.01)


def test_weights_are_the_coefficients_of_the_bounded_regression():
    """Against scipy's bounded least squares, on covariances of random teachers."""
    generator = np.random.default_rng(5)
    for _ in range(20):
        truth = generator.normal(size=500)
        noise = generator.normal(size=(4, 500)) + generator.uniform(0, 2) * generator.normal(size=500)
        seen = truth + generator.uniform(0.5, 2, (4, 1)) * noise
        calibrated = np.stack([x * np.dot(x, truth) / np.dot(x, x) for x in seen])
        errors = calibrated - truth
        second = errors @ errors.T / 500  # about 0, as everything here is
        v = np.diag(second).copy()
        total = float(np.mean(truth**2))
        correlation = second / np.sqrt(np.outer(v, v))
        explained, shared = total - v, second + total - v - v[:, None]
        assert shared == pytest.approx(calibrated @ calibrated.T / 500)
        ridge = shared + 0.05 * np.diag(explained)
        root = np.linalg.cholesky(ridge).T
        best = lsq_linear(root, np.linalg.solve(root.T, explained), (0, 1), tol=1e-12).x
        combined = combine(np.full((4, 1), 0.5), v[:, None], structure(correlation, total))
        assert combined.weights[:, 0] == pytest.approx(best / best.sum(), abs=0.01)


def test_independent_noise_is_weighted_by_its_inverse_variance():
    """Each calibrated score is the noisy one, shrunk by what it explains; the joint mean undoes that."""
    generator = np.random.default_rng(6)
    truth, noise = generator.normal(0, 0.2, 200_000), np.array([0.1, 0.2, 0.4])
    seen = truth + noise[:, None] * generator.normal(size=(3, 200_000))
    shrunk = 0.04 / (0.04 + noise**2)
    errors = shrunk[:, None] * seen - truth
    v = errors.var(axis=1)
    combined = combine(np.full((3, 1), 0.5), v[:, None], structure(error_correlation(errors), 0.04))
    of_seen = combined.weights[:, 0] * shrunk
    assert of_seen / of_seen.sum() == pytest.approx(noise**-2 / (noise**-2).sum(), abs=0.03)


def test_a_teacher_that_adds_nothing_gets_no_weight_and_twins_share_theirs():
    """Figures of a useless and a fair teacher of photographs: inverse variance would give the useless one 42 %."""
    useless = np.array([[0.0374], [0.0266]])
    combined = combine(np.full((2, 1), 0.5), useless, structure(np.array([[1, 0.82], [0.82, 1]]), 0.0375))
    assert combined.weights[:, 0] == pytest.approx([0, 1], abs=0.01)
    twins = combine(np.full((2, 1), 0.5), np.full((2, 1), 0.02), structure(np.array([[1, 0.98], [0.98, 1]])))
    assert twins.weights[:, 0] == pytest.approx([0.5, 0.5], abs=0.01)
    # Nobody explains anything here: the mean is all there is.
    lost = combine(np.full((2, 1), 0.5), np.full((2, 1), 0.06), structure(np.array([[1, 0.5], [0.5, 1]])))
    assert lost.weights[:, 0] == pytest.approx([0.5, 0.5])


def test_without_known_correlation_weights_are_of_inverse_variance_and_nobody_is_surer_together():
    combined = combine(np.array([[0.2], [0.8]]), np.array([[0.01], [0.04]]), None)
    assert combined.weights[:, 0] == pytest.approx([0.8, 0.2])
    assert combined.base[0] == pytest.approx((0.8 * 0.1 + 0.2 * 0.2) ** 2)


def test_a_missing_teacher_changes_the_others_to_what_they_are_alone():
    scores = np.array([[0.2, 0.2, NAN, NAN], [0.6, NAN, 0.6, NAN]])
    combined = combine(scores, np.full((2, 4), 0.01), structure(np.array([[1, 0.3], [0.3, 1]])))
    assert combined.score[:3] == pytest.approx([0.4, 0.2, 0.6])
    assert np.isnan(combined.score[3])
    assert np.isnan(combined.base[3])
    assert combined.weights.sum(axis=0) == pytest.approx([1, 1, 1, 0])
    assert np.isnan(combined.disagreement).tolist() == [False, True, True, True]


def test_teachers_with_few_common_images_are_taken_to_err_together():
    errors = np.full((2, 100), NAN)
    errors[:, :19] = np.random.default_rng(2).normal(size=(2, 19))
    assert error_correlation(errors)[0, 1] == pytest.approx(0.98)
    errors[:, :20] = np.random.default_rng(2).normal(size=(2, 20))
    assert error_correlation(errors)[0, 1] < 0.5
    assert np.linalg.eigvalsh(error_correlation(np.tile(errors[:1], (4, 1))))[0] == pytest.approx(0.02)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.9])
def test_the_expected_error_is_found_again(fraction: float):
    generator = np.random.default_rng(3)
    base, extra = generator.uniform(0.005, 0.02, 4000), generator.gamma(2, 0.002, 4000)
    truth = 1.3 * ((1 - fraction) * base + fraction * extra * base.mean() / extra.mean())
    squared = generator.normal(0, np.sqrt(truth)) ** 2
    fitted = fit_expected_error(base, extra, squared)
    assert fitted(base, extra).mean() == pytest.approx(squared.mean(), rel=0.03)
    assert np.abs(fitted(base, extra) / truth - 1).mean() < 0.12
    # The part that follows the image, of all that is expected.
    assert fitted.extra_gain * extra.mean() / fitted(base, extra).mean() == pytest.approx(fraction, abs=0.1)


def test_an_unknown_extra_is_taken_as_a_typical_one():
    generator = np.random.default_rng(4)
    extra = generator.gamma(1, 0.01, 2000)
    squared = generator.normal(0, np.sqrt(0.001 + extra)) ** 2
    extra[::2] = NAN
    fitted = fit_expected_error(np.ones(2000), extra, squared)
    assert fitted([1.0], [NAN]) == pytest.approx(fitted([1.0], [np.nanmean(extra)]))
    assert ExpectedError.from_dict(fitted.as_dict()) == fitted
    none = fit_expected_error(np.ones(50), np.full(50, NAN), np.full(50, 0.04))
    assert none([1.0], [NAN]) == pytest.approx(0.04)
