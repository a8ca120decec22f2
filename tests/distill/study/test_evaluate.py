"""Scores of a run on the study's benchmark: written once, and only read where settings and ratings are the same."""

from pathlib import Path

import numpy as np
import pytest

from distill.study.cells import cells_of, study_targets
from distill.study.config import Study, load_study
from distill.study.evaluate import basis_of, evaluation_stage, read_evaluation, read_sensitivity
from distill.study.result import cell_run
from tests.helpers.written_study import score, written_study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return written_study(tmp_path)


def test_scores_come_back_in_the_order_of_the_targets(study: Study):
    cell = cells_of(study)[0]
    targets = study_targets(cells_of(study))
    written = score(study, cell, targets)
    predictions = read_evaluation(cell_run(cell, study.out), targets)
    assert predictions is not None
    assert predictions.ids == targets.ids
    np.testing.assert_array_equal(predictions.scores, written)


def test_nothing_is_read_of_a_run_that_has_not_been_evaluated(study: Study):
    cell = cells_of(study)[0]
    assert read_evaluation(cell_run(cell, study.out), study_targets(cells_of(study))) is None
    assert read_sensitivity(cell_run(cell, study.out)) is None


def test_the_basis_changes_with_settings_and_ratings_but_not_with_the_name(study: Study, tmp_path: Path):
    cells = cells_of(study)
    targets = study_targets(cells)
    basis = basis_of(cells[0].recipe, targets)
    renamed = cells[0].recipe.model_copy(update={"name": "other", "out": tmp_path / "elsewhere"})
    assert basis_of(renamed, targets) == basis
    changed = load_study(str(tmp_path / "study.yaml"), ["recipe.distill.steps=9"], study.out)
    other = basis_of(cells_of(changed)[0].recipe, targets)
    assert (other["recipe"] != basis["recipe"], other["targets"] == basis["targets"]) == (True, True)


def test_the_stage_writes_beside_the_run(study: Study):
    run = cell_run(cells_of(study)[0], study.out)
    assert (evaluation_stage(run).name, evaluation_stage(run).folder) == ("evaluate", run.out / "judged")
