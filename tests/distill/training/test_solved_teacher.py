from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.data.examples import Source
from distill.recipe.training import FitConfig
from distill.training.solved_teacher import fit_solved, is_solved
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.outputs import read_manifest
from teachers.fitted_folder import read_seen
from teachers.registry import build_teacher
from tests.helpers.fit_runs import ratings
from tests.helpers.training import score_of, texture_pool

OPTIONS = {"backbone": "test_efficientnet", "pretrained": False, "head": "new", "max_side_px": 96}


def config(**changes: Any) -> FitConfig:
    settings: dict[str, Any] = {"teacher": "kernel_ridge", "options": OPTIONS, "device": "cpu", "threads": 1}
    return FitConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return ratings(texture_pool(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def folder(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit_solved(config(), [source], tmp_path_factory.mktemp("solved") / "run").folder


def test_a_folder_holds_the_teacher_as_any_fitting(source: Source, folder: Path):
    teacher = build_teacher(str(folder))
    refs = list(source.pool)
    scores = [teacher([teacher.preprocess(source.pool.load(ref), None)]).score.item() for ref in refs]
    assert np.corrcoef(scores, [score_of(ref) for ref in refs])[0, 1] > 0.95
    assert read_seen(str(folder)) == {ref.id for ref in refs}


def test_scores_of_held_out_scenes_are_its_validation(source: Source, folder: Path):
    content = read_manifest(folder).content
    figures = content["validation"]["sources"][source.name]
    assert figures["n"] == len(source.pool)
    assert content["validation"]["score"] == figures["srcc"]
    assert 0.5 < figures["srcc"] < 1


def test_a_finished_run_is_returned_and_an_equal_one_has_equal_bytes(source: Source, folder: Path, tmp_path: Path):
    written = (folder / "teacher" / "fitted.safetensors").stat().st_mtime_ns
    fit_solved(config(), [source], folder)
    assert (folder / "teacher" / "fitted.safetensors").stat().st_mtime_ns == written
    again = fit_solved(config(), [source], tmp_path / "again").folder
    for name in ("fitted.safetensors", "seen.txt"):
        assert (again / "teacher" / name).read_bytes() == (folder / "teacher" / name).read_bytes()


def test_an_image_of_two_sources_counts_once_with_both_weights(source: Source, tmp_path: Path):
    twice = [source, Source("again", source.pool, source.labels, weight=2.0)]
    teacher = build_teacher(str(fit_solved(config(), twice, tmp_path / "twice").folder))
    assert len(teacher.model.support) == len(source.pool)  # pyright: ignore[reportAttributeAccessIssue]


def test_settings_of_steps_are_refused(source: Source, tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"solved at once, .* leave out losses, steps, which would do nothing"):
        fit_solved(config(steps=50, losses={"plcc": 0.0}), [source], tmp_path / "run")
    with pytest.raises(PocketiqaError, match=r"leave out images\.crop_size"):
        fit_solved(config(images={"crop_size": 64}), [source], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_which_teachers_are_solved(folder: Path):
    assert is_solved(config())
    assert is_solved(config(teacher=str(folder), options={}))
    assert not is_solved(FitConfig(teacher="qfm_iqm"))
