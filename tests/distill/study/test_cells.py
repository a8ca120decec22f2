"""The runs of a study: one for each arm at each combination of values."""

from pathlib import Path
from typing import Any

import pytest

from distill.recipe.load import apply_settings
from distill.study.cells import cells_of, chosen, command_of
from distill.study.config import load_study
from pseudo_labels.errors import PocketiqaError, RenamedWarning
from tests.helpers.studies import rated_textures, study_tree, write_study


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> str:
    return rated_textures(tmp_path_factory.mktemp("rated"))


def study_of(folder: Path, benchmark: str, **changes: Any) -> str:
    return write_study(folder / "study.yaml", apply_settings(study_tree(benchmark), changes))


def test_every_arm_meets_every_value_with_its_settings_on_top(tmp_path: Path, benchmark: str):
    axes = {"size": {"small": None, "large": {"distill.steps": 7}}, "seed": {0: {"seed": 0}, 1: {"seed": 1}}}
    arms = {"alone": {"pool": None, "label": None, "distill.batch_size": 1}, "more": None}
    study = load_study(study_of(tmp_path, benchmark, axes=axes, arms=arms), [], tmp_path / "out")
    cells = cells_of(study)
    assert [cell.name for cell in cells] == [
        f"{arm}-size{size}-seed{seed}" for size in ("small", "large") for seed in (0, 1) for arm in ("alone", "more")
    ]
    values_of = {cell.name: cell.recipe for cell in cells}
    one, other = values_of["alone-sizelarge-seed1"], values_of["more-sizesmall-seed0"]
    assert one.distill
    assert (one.distill.steps, one.distill.batch_size, one.seed, one.pool, one.label) == (7, 1, 1, None, None)
    assert other.distill
    assert (other.distill.steps, other.distill.batch_size, other.seed) == (1, 2, 0)
    assert other.label is not None
    assert one.out == tmp_path / "out" / "alone-sizelarge-seed1"
    assert one.name == "alone-sizelarge-seed1"


def test_settings_are_laid_over_the_study(tmp_path: Path, benchmark: str):
    name = study_of(tmp_path, benchmark)
    study = load_study(name, ["recipe.distill.steps=3", "axes.seed={5: {seed: 5}}", "compare=null"])
    assert [cell.name for cell in cells_of(study)] == ["alone-seed5", "more-seed5"]
    assert all(cell.recipe.distill and cell.recipe.distill.steps == 3 for cell in cells_of(study))


def test_old_names_are_laid_over_new_ones(tmp_path: Path, benchmark: str):
    changes = {"recipe.distill.optimizer.min_learning_rate_ratio": 0.5, "arms": {"alone": None, "more": None}}
    name = study_of(tmp_path, benchmark, **changes, **{"arms.more": {"distill.optimizer.final_share": 0.25}})
    old = "recipe.distill.optimizer.final_share=0.125"
    with pytest.warns(RenamedWarning, match="'final_share'"):
        ratios = [
            [cell.recipe.distill and cell.recipe.distill.optimizer.min_learning_rate_ratio for cell in cells_of(study)]
            for study in (load_study(name), load_study(name, [old]))
        ]
    assert ratios == [[0.5, 0.25] * 2, [0.125, 0.25] * 2]


def test_a_file_of_old_names_takes_old_names_and_new_ones(tmp_path: Path, benchmark: str):
    name = study_of(tmp_path, benchmark, **{"recipe.distill.optimizer.final_share": 0.5})
    for setting in ("final_share", "min_learning_rate_ratio"):
        with pytest.warns(RenamedWarning, match="'final_share'"):
            cells = cells_of(load_study(name, [f"recipe.distill.optimizer.{setting}=0.25"]))
        assert {cell.recipe.distill and cell.recipe.distill.optimizer.min_learning_rate_ratio for cell in cells} == {
            0.25
        }


def test_runs_are_chosen_by_name_or_pattern(tmp_path: Path, benchmark: str):
    cells = cells_of(load_study(study_of(tmp_path, benchmark)))
    assert [cell.name for cell in chosen(cells, "more-*")] == ["more-seed0", "more-seed1"]
    assert [cell.name for cell in chosen(cells, "alone-seed1")] == ["alone-seed1"]
    with pytest.raises(
        PocketiqaError, match=r"no run of the study is called 'alone': they are alone-seed0, more-seed0"
    ):
        chosen(cells, "alone")


def test_a_command_can_be_pasted_into_a_shell():
    command = command_of("my study.yaml", ["a=[1, 2]"], Path("x y"), "more-seed0")
    assert command == "pocketiqa study 'my study.yaml' --set 'a=[1, 2]' --out 'x y' --only more-seed0"
