import json

import numpy as np
import pytest

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import canonical_json
from pseudo_labels.fusion.calibrate import MonotoneMap, uncalibrated
from pseudo_labels.fusion.combine import ExpectedError
from pseudo_labels.fusion.ensemble import Ensemble, check_method, fit_ensemble
from pseudo_labels.fusion.parts import Columns, Ratings
from tests.helpers.fusing import rho

NAN = np.nan
N = 200
TRUTH = np.random.default_rng(0).uniform(0.1, 0.9, N)
NAMES = ("fine", "coarse")


def columns_of(*scores: np.ndarray) -> Columns:
    values = np.array(scores, np.float32)
    return Columns(values, np.full_like(values, NAN))


def noisy(deviation: float, seed: int) -> np.ndarray:
    return np.clip(TRUTH + np.random.default_rng(seed).normal(0, deviation, N), 0, 1)


@pytest.fixture(scope="module")
def columns() -> Columns:
    second = noisy(0.2, 2)
    second[:10] = NAN
    return columns_of(noisy(0.05, 1), second)


@pytest.fixture(scope="module")
def ratings() -> Ratings:
    return Ratings(np.arange(N), TRUTH, tuple(f"scene{row % 50}" for row in range(N)), "digest")


def test_without_ratings_or_calibration_scores_are_averaged():
    """Equal expected errors: the plain mean, and the deviation of the two about it."""
    ensemble, labelled = fit_ensemble(NAMES, columns_of(np.full(2, 0.2), np.full(2, 0.6)), None, method="none")
    fused = ensemble([[0.2, 0.2, NAN], [0.6, NAN, NAN]], np.full((2, 3), NAN))
    assert labelled == {}
    assert fused.score[:2] == pytest.approx([0.4, 0.2])
    assert fused.disagreement[0] == pytest.approx(0.2)
    assert np.isnan(fused.disagreement[1])
    assert np.isnan(fused.score[2])
    assert pytest.approx(np.array([[0.5, 0.5], [1, 0], [0, 0]])) == fused.weights.T
    # Errors of a tenth that are taken to go together, with the disagreement on top.
    assert fused.score_std[0] == pytest.approx(np.sqrt(0.1**2 + 0.2**2))


def test_a_teachers_own_spread_takes_weight_from_it():
    ensemble = Ensemble(NAMES, (uncalibrated(), uncalibrated()), None, MonotoneMap(), ExpectedError(1.0, 1.0))
    fused = ensemble([[0.2], [0.6]], [[0.0], [0.2]])
    # Inverse variances: 1 / 0.1^2 against 1 / (0.1^2 + 0.2^2).
    assert fused.weights[:, 0] == pytest.approx([5 / 6, 1 / 6])
    assert fused.score[0] == pytest.approx((5 * 0.2 + 0.6) / 6)


def test_a_fitted_ensemble_trusts_the_better_teacher_and_is_read_back(columns: Columns, ratings: Ratings):
    ensemble, labelled = fit_ensemble(NAMES, columns, ratings)
    fused = ensemble(columns.scores, columns.spreads)
    both = columns.scored.all(axis=0)
    assert (fused.weights[0, both] > fused.weights[1, both]).all()
    assert fused.weights.sum(axis=0) == pytest.approx(np.ones(N))
    assert rho(fused.score[both], TRUTH[both]) > rho(columns.scores[1, both], TRUTH[both])
    again = Ensemble.from_dict(json.loads(canonical_json(ensemble.as_dict())))
    assert again.as_dict() == ensemble.as_dict()
    assert again.digest == ensemble.digest
    assert np.array_equal(again(columns.scores, columns.spreads).score, fused.score)
    assert (labelled["n"], labelled["groups"]) == (190, 50)
    assert set(labelled["teachers"]) == set(NAMES)
    assert labelled["teachers"]["fine"]["rmse"] < labelled["teachers"]["coarse"]["rmse"]


def test_one_teacher_alone_is_mapped_only_once(columns: Columns, ratings: Ratings):
    alone = Columns(columns.scores[:1], columns.spreads[:1])
    ensemble, _ = fit_ensemble(NAMES[:1], alone, ratings)
    assert ensemble.last == MonotoneMap()
    fused = ensemble(alone.scores, alone.spreads)
    # The identity blends a score with itself, which may move its last bits.
    assert fused.score == pytest.approx(ensemble.calibrations[0].map(alone.scores[0]))
    assert np.isnan(fused.disagreement).all()


def test_quantiles_need_twenty_common_images(columns: Columns):
    few = columns_of(*np.where(np.arange(N) < 19, columns.scores, NAN))
    with pytest.raises(PocketiqaError, match="9 images have a score from all of fine, coarse: at least 20 are needed"):
        fit_ensemble(NAMES, few, None, method="quantile")
    ensemble, _ = fit_ensemble(NAMES, columns, None, method="quantile")
    assert [own.method for own in ensemble.calibrations] == ["quantile", "quantile"]


def test_a_method_must_go_with_what_is_given():
    check_method("auto", {"a": 0.5})
    check_method("quantile", None)
    for method, given, named in [
        ("magic", None, "'magic' is not known: choose one of auto, logistic, isotonic, quantile, none"),
        ("isotonic", None, "'isotonic' needs ratings"),
        ("none", {"a": 0.5, "b": 0.1}, "'none' uses no ratings, but 2 were given"),
    ]:
        with pytest.raises(PocketiqaError, match=named):
            check_method(method, given)
