import numpy as np
import pytest

from students.meaning.population import star_thresholds, stars_of_all
from students.meaning.thresholds import held_out_stars, measure_stars


def rated(images: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Scores, ratings and scenes of four photographs each."""
    generator = np.random.default_rng(seed)
    ratings = generator.random(images)
    scores = np.clip(ratings + generator.normal(0, noise, images), 0, 1)
    return scores, ratings, [f"scene {at // 4}" for at in range(images)]


def test_a_perfect_model_catches_all():
    scores, ratings, groups = rated(2000, 0.0)
    (record,) = measure_stars(scores, ratings, groups, ["a"] * 2000)
    assert record["n"] == 2000
    assert record["scenes"] == 500
    assert record["poor"] == int((ratings < 0.4).sum())
    # Thresholds of four fifths of the photographs are not exactly those of all.
    assert record["caught"][0] > 0.995
    assert record["false"][0] < 0.005
    assert record["exact"][0] > 0.99


def test_fractions_are_those_of_held_out_stars_with_an_interval_around_them():
    scores, ratings, groups = rated(1200, 0.15)
    parts = ["near" if at < 800 else "far" for at in range(1200)]
    records = measure_stars(scores, ratings, groups, parts)
    assert [record["part"] for record in records] == ["all", "far", "near"]
    stars, poor = held_out_stars(scores, ratings, groups), ratings < 0.4
    for record, keep in zip(records, (slice(None), slice(800, None), slice(0, 800)), strict=True):
        low, bad = stars[keep] <= 2, poor[keep]
        assert record["caught"][0] == pytest.approx(low[bad].mean(), abs=1e-4)
        assert record["false"][0] == pytest.approx(low[~bad].mean(), abs=1e-4)
        for name in ("caught", "false", "exact", "within_1"):
            value, below, above = record[name]
            assert below < value < above
    # The standard error of a fraction of 800 photographs of 200 scenes, four deviations wide.
    value, below, above = records[2]["exact"]
    assert above - below == pytest.approx(4 * np.sqrt(value * (1 - value) / 800), rel=0.25)


def test_thresholds_never_see_the_scenes_that_they_judge():
    generator = np.random.default_rng(3)
    scores, groups = np.repeat(generator.random(100), 5), [f"{at // 5}" for at in range(500)]
    ratings = np.repeat(generator.random(100), 5)  # independent of the scores
    stars = held_out_stars(scores, ratings, groups)
    whole = stars_of_all(scores, star_thresholds(scores, ratings))
    assert 0 < (stars != whole).mean() < 0.3
    for scene in set(groups):
        assert len({stars[at] for at in range(500) if groups[at] == scene}) == 1


def test_a_part_without_poor_photographs_has_no_fraction_of_them():
    scores, ratings, groups = rated(400, 0.05)
    record = measure_stars(scores, 0.5 + ratings / 2, groups, ["a"] * 400)[0]
    assert record["caught"] == [None, None, None]
    assert record["false"][0] == 0.0
