"""Means, paired differences and goal of runs whose scores are written down."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata

from distill.study.cells import cells_of, study_targets
from distill.study.config import Study, load_study
from distill.study.tables import verdict
from tests.helpers.written_study import GOAL, IMAGES, NOISE, SCENES, result_of, score, written_study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return written_study(tmp_path)


def rank_correlation(measured: np.ndarray, truth: np.ndarray) -> float:
    return float(np.corrcoef(rankdata(measured), rankdata(truth))[0, 1])


def test_differences_agree_with_a_bootstrap_written_out(study: Study):
    cells = cells_of(study)
    targets = study_targets(cells)
    scores = {cell.name: score(study, cell, targets) for cell in cells}
    row = result_of(study, cells)["rows"][1]
    assert row["values"] == {"labels": "20"}
    pairs = [(scores[f"more-labels20-seed{s}"], scores[f"alone-labels20-seed{s}"]) for s in range(3)]

    def gain(chosen: np.ndarray) -> float:
        gains = []
        for own, other in pairs:
            kept = chosen[np.isfinite(own[chosen]) & np.isfinite(other[chosen])]
            gains.append(
                rank_correlation(own[kept], targets.scores[kept]) - rank_correlation(other[kept], targets.scores[kept])
            )
        return float(np.mean(gains))

    value = row["differences"]["more"]
    assert value["n"] == 3
    assert value["difference"] == pytest.approx(gain(np.arange(IMAGES)), abs=1e-12)
    # Other random numbers than ours: the ends agree as far as 1000 resamples let them.
    generator, members = np.random.default_rng(99), [np.arange(scene, IMAGES, SCENES) for scene in range(SCENES)]
    drawn = [gain(np.concatenate([members[s] for s in generator.integers(0, SCENES, SCENES)])) for _ in range(1000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (value["low"], value["high"]) == pytest.approx((low, high), abs=0.2 * (high - low))
    known = [(other[np.isfinite(other)], targets.scores[np.isfinite(other)]) for _, other in pairs]
    values = [rank_correlation(other, truth) for other, truth in known]
    alone = row["arms"]["alone"]
    assert alone["mean"] == pytest.approx(np.mean(values))
    assert alone["deviation"] == pytest.approx(np.std(values, ddof=1))
    assert (alone["low"], alone["high"]) == pytest.approx((min(values), max(values)))


def test_the_goal_is_met_only_by_all_repeats_and_an_interval_above_zero(study: Study):
    cells = cells_of(study)
    targets = study_targets(cells)
    for cell in cells[:-1]:
        score(study, cell, targets)
    early = result_of(study, cells)
    assert early["goal"] == {**GOAL, "at": {"labels": "20"}, "met": None}
    assert verdict(early).startswith(
        "Not known yet (11 of 12 runs are done): more to gain at least 0.050 SRCC over alone"
    )
    score(study, cells[-1], targets)
    late = result_of(study, cells)
    difference = late["rows"][1]["differences"]["more"]
    assert difference["low"] > 0
    assert late["goal"]["met"] is True
    assert verdict(late).startswith("Reached: ")
    assert study.compare
    assert study.compare.goal
    goal = study.compare.goal.model_copy(update={"gain": difference["difference"] + 0.001})
    strict = study.model_copy(update={"compare": study.compare.model_copy(update={"goal": goal})})
    assert result_of(strict, cells)["goal"]["met"] is False


def test_an_interval_over_zero_does_not_reach_the_goal(study: Study, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(NOISE, "alone", 0.21)
    cells = cells_of(study)
    for cell in cells:
        score(study, cell, study_targets(cells))
    assert study.compare
    assert study.compare.goal
    goal = study.compare.goal.model_copy(update={"gain": -1.0})
    outcome = result_of(study.model_copy(update={"compare": study.compare.model_copy(update={"goal": goal})}), cells)
    assert outcome["rows"][1]["differences"]["more"]["low"] < 0
    assert outcome["goal"]["met"] is False


def test_scores_of_other_settings_or_ratings_do_not_count(study: Study, tmp_path: Path):
    cells = cells_of(study)
    score(study, cells[0], study_targets(cells))
    assert result_of(study, cells)["runs"][0]["state"] == "done"
    changed = load_study(str(tmp_path / "study.yaml"), ["recipe.distill.batch_size=3"], study.out)
    assert result_of(changed, cells_of(changed))["runs"][0]["state"] == "to do"
    ratings = tmp_path / "ratings.csv"
    ratings.write_text(ratings.read_text().replace("scene7,", "scene8,"))
    assert result_of(study, cells)["runs"][0]["state"] == "to do"
