"""What a study file may hold, and what is refused before the first run."""

from pathlib import Path
from typing import Any

import pytest

from distill.recipe.load import apply_settings
from distill.study import run_study
from distill.study.config import load_study
from pseudo_labels.errors import PocketiqaError
from tests.helpers.studies import rated_textures, study_tree, write_study


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> str:
    return rated_textures(tmp_path_factory.mktemp("rated"))


def study_of(folder: Path, benchmark: str, **changes: Any) -> str:
    return write_study(folder / "study.yaml", apply_settings(study_tree(benchmark), changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axis": {}}, r"unknown key 'axis'; did you mean 'axes'"),
        ({"arms": {}}, r"arms = \{\}: "),
        ({"arms.a/b": {}}, r"arms\.a/b.* = 'a/b'"),
        ({"repeats": "sed"}, r"repeats is 'sed', which is no axis: known are seed"),
        ({"recipe.out": "x"}, r"recipe\.out is set by the study"),
        ({"compare.baseline": "alon"}, r"compare names the arm 'alon': known are alone, more"),
        ({"compare.goal": {"arm": "alone"}}, r"the goal compares the arm 'alone' with itself"),
        ({"compare.goal": {"arm": "more", "at": {"labels": 8}}}, r"the goal is at labels 8, but the axes"),
        ({"compare.metric": "rmse"}, r"compare\.metric = 'rmse'"),
    ],
)
def test_a_wrong_study_is_refused(tmp_path: Path, benchmark: str, changes: dict[str, Any], message: str):
    with pytest.raises(PocketiqaError, match=message):
        load_study(study_of(tmp_path, benchmark, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"axes.seed": {"0": {}, "1": {"distil.seed": 1}}},
            r"run 'alone-seed1' of the study: unknown key 'distil'; did",
        ),
        ({"arms.more": {"distill.steps": 0}}, r"run 'more-seed0' of the study: distill.steps = 0"),
        ({"arms.more": {"name.x": 0}}, r"run 'more-seed0' of the study: name = \{'x': 0\}"),
        (
            {"arms.more": {"label.shards.x": 0}},
            r"run 'more-seed0' of the study: label.shards.x: 'x' lies inside a plain",
        ),
        ({"arms.more": {"evaluate": []}}, r"'more-seed0' of the study: 'evaluate' has 0 benchmarks"),
        ({"recipe.evaluate": [{"ratings": "csv:x.csv"}]}, r"evaluate.split is not given.*name validation"),
        ({"recipe.evaluate": [{"ratings": "csv:x.csv", "split": "test"}]}, r"evaluate.split is test"),
        ({"arms.more": {"sources": [{"ratings": "csv:gone.csv"}]}}, r"no CSV file gone\.csv"),
        ({"arms.more": {"evaluate": [{"ratings": "csv:x", "split": "all"}]}}, r"evaluated on different benchmarks"),
    ],
)
def test_wrong_settings_of_any_run_are_told_before_the_first_runs(
    tmp_path: Path, benchmark: str, changes: dict[str, Any], message: str
):
    out = tmp_path / "out"
    with pytest.raises(PocketiqaError, match=message):
        run_study(study_of(tmp_path, benchmark, **changes), out=out)
    assert not out.exists()


def test_a_recipe_is_no_study(tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"tiny\.yaml holds no study: the sections 'recipe:', 'axes:' and 'arms:'"):
        load_study("tiny")
    (tmp_path / "broken.yaml").write_text("a: [1")
    with pytest.raises(PocketiqaError, match=r"broken\.yaml is not a YAML study"):
        load_study(str(tmp_path / "broken.yaml"))
