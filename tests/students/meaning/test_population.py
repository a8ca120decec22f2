from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pseudo_labels.errors import PocketiqaError
from students.meaning.model_record import ModelName, record_bytes
from students.meaning.population import (
    BANDS,
    VERDICTS,
    Population,
    Stars,
    quantiles_of,
    star_thresholds,
    stars_of_all,
)

MODEL = ModelName("tiny", "a" * 64)
SCORES = np.random.default_rng(0).beta(4, 2, 3000)
STARS = Stars((0.2, 0.4, 0.6, 0.8), "somewhere")


def population(scores: np.ndarray = SCORES, stars: Stars | None = None) -> Population:
    return Population("mine", MODEL, "2026-11-29", len(scores), quantiles_of(scores), {"sources": ["a"]}, stars)


def test_percentiles_are_those_of_scipy_to_a_half():
    own = population()
    for score in np.linspace(0, 1, 41):
        expected = stats.percentileofscore(SCORES, score, kind="mean")
        assert own.percentile(score) == pytest.approx(expected, abs=0.5)


def test_photographs_of_one_score_count_half():
    scores = np.array([0.1] * 25 + [0.5] * 50 + [0.9] * 25)
    own = population(scores)
    assert [own.percentile(score) for score in (0.0, 0.5, 1.0)] == [0.0, pytest.approx(50.0, abs=0.5), 100.0]
    assert population(np.full(30, 0.5)).percentile(0.5) == pytest.approx(50.0)


def test_a_population_comes_back_from_its_file(tmp_path: Path):
    own = population(stars=replace(STARS, measured=({"part": "all", "caught": [0.5, None, None]},)))
    (tmp_path / "mine.json").write_bytes(own.to_bytes())
    assert Population.load(tmp_path / "mine.json") == own
    assert len(own.to_bytes()) < 8000


def test_a_record_that_is_not_whole_is_refused(tmp_path: Path):
    record = {"name": "a", "model": MODEL.as_dict(), "date": "", "n": 3, "about": {}, "stars": None}
    for quantiles, words in (([0.5], "1 quantiles: 201 are needed"), ([0.6, 0.5], "do not fall"), ("x", "numbers")):
        (tmp_path / "a.json").write_bytes(record_bytes("population", {**record, "quantiles": quantiles}))
        with pytest.raises(PocketiqaError, match=words):
            Population.load(tmp_path / "a.json")
    stars = {"thresholds": [0.1, 0.2], "source": "a", "measured": []}
    full = {**record, "quantiles": [0.5] * 201, "stars": stars}
    (tmp_path / "a.json").write_bytes(record_bytes("population", full))
    with pytest.raises(PocketiqaError, match="4 thresholds are needed"):
        Population.load(tmp_path / "a.json")


def test_too_few_photographs_are_no_population():
    with pytest.raises(PocketiqaError, match="19 photographs have a score, and a population needs 20: name more"):
        quantiles_of(np.linspace(0, 1, 19))


def test_another_model_is_refused():
    population().check_model(MODEL)
    with pytest.raises(PocketiqaError, match=r"the population 'mine' is of model tiny .*pocketiqa population PHOTO"):
        population().check_model(ModelName("tiny", "b" * 64))
    with pytest.raises(PocketiqaError, match="comes along for pocket-l, pocket-m, pocket-s, and not for tiny"):
        Population.load("biq2021", ModelName("tiny", "b" * 64))


def test_stars_and_verdicts_change_at_the_thresholds():
    own = population(stars=STARS)
    scores = [0.0, 0.19, 0.2, 0.4, 0.59, 0.6, 0.8, 1.0]
    assert [own.stars_of(score) for score in scores] == [1, 1, 2, 3, 3, 4, 5, 5]
    assert [own.verdict(score) for score in scores] == [
        *("poor", "poor", "poor", "fair", "fair", "good", "good", "good"),
    ]
    assert stars_of_all(scores, STARS.thresholds).tolist() == [own.stars_of(score) for score in scores]
    assert population().stars_of(0.5) is None
    assert population().verdict(0.5) is None
    assert len(VERDICTS) == len(BANDS) + 1


def test_as_many_photographs_get_each_number_of_stars_as_by_their_ratings():
    generator = np.random.default_rng(1)
    ratings = generator.beta(3, 2, 2000)
    scores = 0.3 + 0.4 * ratings + generator.normal(0, 0.03, 2000)  # regressed to the middle, as those of students
    stars = stars_of_all(scores, star_thresholds(scores, ratings))
    assert np.bincount(stars).tolist() == np.bincount(stars_of_all(ratings, BANDS)).tolist()
    # A perfect model is always right.
    assert (stars_of_all(ratings**2, star_thresholds(ratings**2, ratings)) == stars_of_all(ratings, BANDS)).all()


def test_a_band_that_nobody_used_has_no_photographs():
    ratings = np.linspace(0.45, 0.55, 50)
    stars = stars_of_all(ratings, star_thresholds(ratings, ratings))
    assert set(stars.tolist()) == {3}
