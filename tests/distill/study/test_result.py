"""Means, paired differences, goal and page, of runs whose scores are written down."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata

from distill.evaluation.predictions import Predictions
from distill.evaluation.targets import Targets
from distill.stages.context import make_once
from distill.study.cells import Cell, cells_of, study_targets
from distill.study.config import Study, load_study
from distill.study.costs import record_cost
from distill.study.evaluate import KIND, PREDICTIONS, basis_of
from distill.study.page import study_page
from distill.study.result import build_result, cell_run
from distill.study.tables import result_tables, verdict
from distill.study.worker import FAILURE
from pseudo_labels.files import canonical_json
from pseudo_labels.records import Status
from tests.helpers.markup import parsed
from tests.helpers.studies import study_tree, write_study

IMAGES, SCENES = 90, 30
NOISE = {"alone": 0.5, "more": 0.2}
GOAL = {"arm": "more", "at": {"labels": 20}, "gain": 0.05}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Two arms, two numbers of labels, three seeds."""
    generator = np.random.default_rng(5)
    lines = [f"{row}.png,{generator.random()},scene{row % SCENES},validation" for row in range(IMAGES)]
    (tmp_path / "ratings.csv").write_text("\n".join(["image,mos,group,split", *lines]))
    tree = study_tree(f"csv:{tmp_path / 'ratings.csv'}")
    tree["axes"] = {"labels": {10: {}, 20: {}}, "seed": {0: {}, 1: {}, 2: {}}}
    tree["compare"]["goal"] = GOAL
    return load_study(write_study(tmp_path / "study.yaml", tree), out=tmp_path / "out")


def score(study: Study, cell: Cell, targets: Targets) -> np.ndarray:
    """Scores of a run, as its process would leave them: the ratings under noise, and one image without a score."""
    spread = NOISE[cell.arm] * (2 if cell.values["labels"] == "10" else 1)
    generator = np.random.default_rng([list(NOISE).index(cell.arm), int(cell.values["seed"])])
    scores = targets.scores + generator.normal(0, spread, IMAGES)
    scores[int(cell.values["seed"])] = np.nan
    statuses = tuple(Status.FAILED if np.isnan(score) else Status.OK for score in scores)
    found = Predictions(cell.name, "onnx", targets.ids, scores, statuses, ("",) * IMAGES)

    def make(folder: Path) -> dict[str, Any]:
        (folder / PREDICTIONS).write_bytes(canonical_json(found.as_dict()))
        return {}

    run = cell_run(cell, study.out)
    make_once(run.evaluation, KIND, basis_of(run.recipe, targets), make, overwrite=False)
    record_cost(run.out, "distill", 12.5, resumed=cell.values["seed"] == "2")
    return scores


def rank_correlation(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.corrcoef(rankdata(found), rankdata(truth))[0, 1])


def result_of(study: Study, cells: list[Cell]) -> dict[str, Any]:
    commands = {cell.name: f"again {cell.name}" for cell in cells} | {"": "again"}
    return build_result(study, cells, study_targets(cells), commands)


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

    found = row["differences"]["more"]
    assert found["n"] == 3
    assert found["difference"] == pytest.approx(gain(np.arange(IMAGES)), abs=1e-12)
    # Other random numbers than ours: the ends agree as far as 1000 resamples let them.
    generator, members = np.random.default_rng(99), [np.arange(scene, IMAGES, SCENES) for scene in range(SCENES)]
    drawn = [gain(np.concatenate([members[s] for s in generator.integers(0, SCENES, SCENES)])) for _ in range(1000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.2 * (high - low))
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
    found = result_of(study.model_copy(update={"compare": study.compare.model_copy(update={"goal": goal})}), cells)
    assert found["rows"][1]["differences"]["more"]["low"] < 0
    assert found["goal"]["met"] is False


def test_scores_of_other_settings_or_ratings_do_not_count(study: Study, tmp_path: Path):
    cells = cells_of(study)
    score(study, cells[0], study_targets(cells))
    assert result_of(study, cells)["runs"][0]["state"] == "done"
    changed = load_study(str(tmp_path / "study.yaml"), ["recipe.distill.batch_size=3"], study.out)
    assert result_of(changed, cells_of(changed))["runs"][0]["state"] == "to do"
    ratings = tmp_path / "ratings.csv"
    ratings.write_text(ratings.read_text().replace("scene7,", "scene8,"))
    assert result_of(study, cells)["runs"][0]["state"] == "to do"


def test_the_page_shows_curve_table_costs_failures_and_commands_and_links_nowhere(study: Study):
    cells = cells_of(study)
    targets = study_targets(cells)
    for cell in cells[:-1]:
        score(study, cell, targets)
    cells[-1].recipe.out.mkdir(parents=True)
    (cells[-1].recipe.out / FAILURE).write_text("the <teacher> was ill\n\nTraceback: here\n")
    result = result_of(study, cells)
    page = study_page(result)
    found = parsed(page)
    assert "http" not in page
    assert not [attributes for _, attributes in found.tags if {"src", "href"} & set(attributes)]
    assert "SRCC over labels" in found.text
    assert [attributes["class"] for tag, attributes in found.tags if tag == "path"] == [
        "band other", "curve other", "band student", "curve student",
    ]  # fmt: skip
    assert "the <teacher> was ill" in found.text
    assert all(f"again {cell.name}" in found.text for cell in cells)
    assert "more than 12 s" in found.text  # of seed 2, which was resumed
    numbers = {attributes["value"] for tag, attributes in found.tags if tag == "data"}
    assert repr(result["rows"][0]["differences"]["more"]["difference"]) in numbers
    assert page == study_page(result_of(study, cells))


def test_a_study_without_numbers_on_its_axis_shows_differences_in_place_of_a_curve(study: Study):
    cells = cells_of(study)
    for cell in cells:
        score(study, cell, study_targets(cells))
    result = result_of(study, cells)
    for row, name in zip(result["rows"], ("few", "many"), strict=True):
        row["values"] = {"labels": name}
    found = parsed(study_page(result))
    assert "difference in SRCC to alone" in found.text
    assert "SRCC over labels" not in found.text


def test_before_the_first_run_there_is_a_page_and_a_table(study: Study):
    result = result_of(study, cells_of(study))
    assert "0 of 12 runs are done" in study_page(result)
    assert [table.row_count for table in result_tables(result)] == [4, 12]
    assert result["rows"][0]["differences"]["more"]["reason"] == "no repeat has both"
