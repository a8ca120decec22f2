from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pseudo_labels.errors import PocketiqaError
from students.contract import Calibration
from students.meaning.model_record import ModelName, record_bytes
from students.meaning.own_scale import OwnScale, fit_affine, fit_isotonic, fit_own_scale

MODEL = ModelName("tiny", "a" * 64)
GRID = np.linspace(0, 1, 101)


def bent(images: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ratings that are a bent curve of the scores."""
    generator = np.random.default_rng(seed)
    scores = generator.uniform(0.2, 0.9, images)
    ratings = 1 / (1 + np.exp(-(scores - 0.55) / 0.06))
    return scores, np.clip(ratings + generator.normal(0, noise, images), 0, 1)


def test_the_curve_is_the_one_that_ratings_were_made_of():
    mapped = fit_isotonic(*bent(2000, 0.0))(GRID)
    inside = (GRID > 0.25) & (GRID < 0.85)
    assert np.abs(mapped - 1 / (1 + np.exp(-(GRID - 0.55) / 0.06)))[inside].max() < 0.01


def test_the_line_is_that_of_least_squares_cut_at_the_ends_of_the_scale():
    generator = np.random.default_rng(2)
    scores = generator.random(300)
    ratings = np.clip(2 * scores - 0.5, 0, 1)
    slope, offset = np.polyfit(scores, ratings, 1)
    np.testing.assert_allclose(fit_affine(scores, ratings)(GRID), np.clip(slope * GRID + offset, 0, 1), atol=1.1e-3)


@pytest.mark.parametrize("fit", [fit_affine, fit_isotonic])
@pytest.mark.parametrize("seed", range(5))
def test_every_fit_is_a_calibration_that_rises(fit: type, seed: int):
    generator = np.random.default_rng(seed)
    scores = generator.random(60).round(2 + seed)
    for ratings in (generator.random(60), np.round(scores), 1 - scores, np.full(60, 1.0), np.where(scores > 0.5, 0, 1)):
        calibration = fit(scores, ratings)
        assert isinstance(calibration, Calibration)
        assert (np.diff(calibration(np.linspace(0, 1, 11))) > 0).all()


def test_a_bent_scale_is_helped_by_the_curve_and_measured_on_other_scenes():
    scores, ratings = bent(600, 0.1)
    groups = [f"{at // 3}" for at in range(600)]
    method, calibration, measured = fit_own_scale(scores, ratings, groups)
    assert method == "isotonic"
    assert measured["helps"]
    assert (measured["n"], measured["scenes"]) == (600, 200)
    assert measured["identity"]["rmse"] == pytest.approx(np.sqrt(np.mean((scores - ratings) ** 2)), abs=1e-6)
    # On held-out scenes the error is a little more than that of the fit, and near the noise.
    fitted = np.sqrt(np.mean((calibration(scores) - ratings) ** 2))
    assert fitted < measured["isotonic"]["rmse"] < 1.1 * fitted
    gain, low, high = measured["isotonic"]["rmse_gain"]
    assert low < gain < high
    assert gain == pytest.approx(measured["identity"]["rmse"] - measured["isotonic"]["rmse"], abs=2e-6)
    assert measured["affine"]["mae"] > measured["isotonic"]["mae"]


def test_a_straight_scale_gets_the_line_and_nothing_is_gained_by_chance():
    generator = np.random.default_rng(5)
    helped = 0
    for _ in range(10):
        ratings = generator.random(80)
        scores = np.clip(ratings + generator.normal(0, 0.02, 80), 0, 1)
        method, _, measured = fit_own_scale(scores, ratings)
        assert method == "affine"
        helped += measured["helps"]
    assert helped <= 1


def test_scores_that_run_against_the_ratings_are_not_helped():
    scores, ratings = bent(300, 0.05)
    _, _, measured = fit_own_scale(scores, 1 - ratings)
    assert measured["isotonic"]["rmse_gain"][1] > 0  # over the score; the mean rating does as well
    assert not measured["helps"]


def test_one_scene_with_most_photographs_is_no_obstacle():
    scores, ratings = bent(60, 0.05)
    groups = ["big"] * 52 + [str(at) for at in range(8)]
    assert fit_own_scale(scores, ratings, groups)[2]["n"] == 60


BAD = [
    (np.linspace(0, 1, 19), np.linspace(0, 1, 19), None, "19 photographs of 19 scenes .* at least 20 of 5 scenes"),
    (np.linspace(0, 1, 40), np.linspace(0, 1, 40), ["a"] * 40, "40 photographs of 1 scenes"),
    (np.full(40, 0.5), np.linspace(0, 1, 40), None, "all 40 scores are alike"),
    (np.linspace(0, 1, 40), np.full(40, 0.5), None, "all 40 ratings are alike"),
    (np.linspace(0, 1, 40), np.linspace(0, 2, 40), None, "rating .* lies outside 0 to 1"),
]


@pytest.mark.parametrize(("scores", "ratings", "groups", "words"), BAD)
def test_what_cannot_be_calibrated_is_refused(scores, ratings, groups, words: str):
    with pytest.raises(PocketiqaError, match=words):
        fit_own_scale(scores, ratings, groups)


def test_scores_land_on_the_own_scale(tmp_path: Path):
    scale = OwnScale(MODEL, Calibration(((0.0, 0.1), (0.5, 0.4), (1.0, 0.9))), 1.0, 5.0, date="2026-11-29")
    assert [scale(score) for score in (0.0, 0.25, 1.0)] == pytest.approx([1.4, 2.0, 4.6])
    assert replace(scale, best="low")(0.25) == pytest.approx(4.0)
    (tmp_path / "mine.json").write_bytes(scale.to_bytes())
    assert OwnScale.load(tmp_path / "mine.json") == scale
    scale.check_model(MODEL)
    with pytest.raises(PocketiqaError, match=r"the calibration is of model tiny .*pocketiqa calibrate RATINGS"):
        scale.check_model(ModelName("tiny", "b" * 64))


def test_a_record_with_a_wrong_scale_is_refused(tmp_path: Path):
    fields = {"model": MODEL.as_dict(), "calibration": {"knots": [[0, 0], [1, 1]]}, "method": "affine", "date": ""}
    for scale in ({"low": 5, "high": 1, "best": "high"}, {"low": 1, "high": 5, "best": "up"}):
        content = record_bytes("calibration", {**fields, "measured": {}, "scale": scale})
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(PocketiqaError, match="the scale of the calibration is"):
            OwnScale.load(tmp_path / "a.json")
