from pathlib import Path

import numpy as np
import pytest

from pseudo_labels.errors import PocketiqaError
from students.meaning.intervals import (
    LEVELS,
    Intervals,
    Spread,
    bounds_of,
    conformal_radius,
    fit_intervals,
    fit_spread,
    measure_intervals,
)
from students.meaning.model_record import ModelName, record_bytes

MODEL = ModelName("tiny", "a" * 64)


def uneven(images: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Scores whose errors are large where they are low, each of a scene of its own."""
    generator = np.random.default_rng(seed)
    scores = generator.uniform(0.3, 0.8, images)
    ratings = np.clip(scores + generator.normal(0, 1, images) * (0.2 - 0.2 * scores), 0, 1)
    return scores, ratings, [str(at) for at in range(images)]


def test_with_one_photograph_a_scene_it_is_the_textbook_rank():
    errors = np.random.default_rng(0).random(199)
    groups = [str(at) for at in range(199)]
    for level in (0.8, 0.95):
        rank = int(np.ceil(200 * level - 1e-9))
        assert conformal_radius(errors, groups, level) == np.sort(errors)[rank - 1]


def test_new_photographs_are_covered_as_often_as_said():
    """Over many draws of the calibration part: between the level and the level plus 1 / (n + 1)."""
    generator = np.random.default_rng(1)
    held = {80: 0, 95: 0}
    for _ in range(4000):
        errors = generator.exponential(size=40)
        for level in held:
            held[level] += errors[-1] <= conformal_radius(errors[:-1], [str(at) for at in range(39)], level / 100)
    assert held[80] / 4000 == pytest.approx(0.8 + 0.0, abs=0.02)
    assert held[95] / 4000 == pytest.approx(0.95, abs=0.011)


def test_a_scene_with_many_photographs_counts_once():
    """99 scenes of one good photograph and one of 900 bad ones: a new scene is hardly ever like the last."""
    errors = np.concatenate([np.linspace(0.01, 0.1, 99), np.full(900, 0.9)])
    groups = [str(at) for at in range(99)] + ["big"] * 900
    assert conformal_radius(errors, groups, 0.95) < 0.11
    assert conformal_radius(errors, [str(at) for at in range(999)], 0.95) == 0.9


def test_photographs_of_new_scenes_are_covered_though_scenes_differ_in_size_and_difficulty():
    """Scenes of ten photographs are easy, those of one are hard: counted singly, photographs would cover too little."""
    generator, held = np.random.default_rng(2), {"scenes": 0, "photographs": 0}
    for _ in range(1000):
        easy = generator.random(81) < 0.5
        sizes = np.where(easy, 10, 1)
        groups = np.repeat(np.arange(81), sizes)
        errors = np.abs(generator.normal(0, np.repeat(np.where(easy, 0.5, 1.0), sizes)))
        new = errors[groups == 80][0]
        known = errors[groups < 80]
        names = [str(group) for group in groups[groups < 80]]
        held["scenes"] += new <= conformal_radius(known, names, 0.8)
        held["photographs"] += new <= conformal_radius(known, [str(at) for at in range(len(known))], 0.8)
    assert held["scenes"] / 1000 == pytest.approx(0.8, abs=0.03)
    assert held["photographs"] / 1000 < 0.75


def test_too_few_scenes_are_refused_with_their_number():
    with pytest.raises(PocketiqaError, match=r"18 scenes are too few for an interval of 95%: at least 19 .* of 29"):
        conformal_radius(np.ones(18), [str(at) for at in range(18)], 0.95)
    assert conformal_radius(np.linspace(0, 1, 19), [str(at) for at in range(19)], 0.95) == 1.0
    # 29 scenes, as the message says, are enough.
    assert fit_intervals(*uneven(29, 0))[1][95] > 0
    with pytest.raises(PocketiqaError, match="too few"):
        fit_intervals(*uneven(27, 0))


def test_the_spread_follows_errors_that_follow_the_score():
    scores, ratings, _ = uneven(4000, 3)
    spread = fit_spread(scores, np.abs(scores - ratings))
    expected = (0.2 - 0.2 * np.array([0.4, 0.7])) * np.sqrt(2 / np.pi)  # mean of |normal|
    np.testing.assert_allclose(spread([0.4, 0.7]), expected, rtol=0.07)
    even = np.random.default_rng(0).normal(0, 0.1, 4000)
    assert fit_spread(scores, np.abs(even)) == Spread()


def test_normalised_intervals_cover_everywhere_and_are_narrower():
    scores, ratings, groups = uneven(3000, 4)
    normalised = {(one["part"], one["level"]): one for one in measure_intervals(scores, ratings, groups, ["a"] * 3000)}
    plain = {
        (one["part"], one["level"]): one for one in measure_intervals(scores, ratings, groups, ["a"] * 3000, plain=True)
    }
    for level in LEVELS:
        thirds = [part for part, own in normalised if own == level and "third" in part]
        assert len(thirds) == 3
        for part in ("all", *thirds):
            assert normalised[part, level]["coverage"][0] == pytest.approx(level / 100, abs=0.035)
        assert plain["all", level]["coverage"][0] == pytest.approx(level / 100, abs=0.02)
        # One width for all: too wide where errors are small, too narrow where they are large.
        assert plain[thirds[0], level]["coverage"][0] < normalised[thirds[0], level]["coverage"][0] - 0.02
    assert normalised["all", 95]["width"] < plain["all", 95]["width"]
    low, high = normalised["all", 95]["coverage"][1:]
    assert high - low == pytest.approx(4 * np.sqrt(0.05 * 0.95 / 3000), rel=0.3)


def test_parts_are_measured_alone():
    scores, ratings, groups = uneven(600, 5)
    parts = ["here" if at % 2 else "there" for at in range(600)]
    names = [record["part"] for record in measure_intervals(scores, ratings, groups, parts)]
    assert names[:3] == ["all", "here", "there"]
    assert len(names) == 12


def test_bounds_stay_within_the_scale():
    low, high = bounds_of(np.array([0.02, 0.5, 0.97]), Spread((0.0, 1.0), (0.1, 0.2)), 2.0)
    np.testing.assert_allclose(low, [0.0, 0.2, 0.97 - 2 * 0.197])
    np.testing.assert_allclose(high, [0.02 + 2 * 0.102, 0.8, 1.0])


def test_a_record_comes_back_and_is_for_one_model(tmp_path: Path):
    record = Intervals(MODEL, "of trees", 90, 80, Spread((0.2, 0.8), (0.2, 0.1)), {80: 1.2, 95: 2.0}, "2026-11-29")
    (tmp_path / "a.json").write_bytes(record.to_bytes())
    assert Intervals.load(tmp_path / "a.json") == record
    assert record.bounds(0.8, 80) == pytest.approx((0.68, 0.92))
    with pytest.raises(PocketiqaError, match=r"interval record is of model tiny .*pocketiqa intervals RATINGS"):
        record.check_model(ModelName("other", "b" * 64))


def test_records_with_wrong_radii_are_refused(tmp_path: Path):
    fields = {"model": MODEL.as_dict(), "domain": "", "n": 1, "scenes": 1, "date": "", "measured": []}
    for radius in ({"80": 1.0}, {"80": 2.0, "95": 1.0}, [1, 2]):
        spread = {"scores": [0.0], "errors": [1.0]}
        (tmp_path / "a.json").write_bytes(
            record_bytes("interval record", {**fields, "spread": spread, "radius": radius})
        )
        with pytest.raises(PocketiqaError, match="radii"):
            Intervals.load(tmp_path / "a.json")
