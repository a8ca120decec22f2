"""Stages that fit teachers and average their weights."""

from pathlib import Path

import pytest

from distill.stages.context import open_run
from distill.stages.fitting import all_fit_sources, averaging_stages, fit_recipe, fit_sources, fitting_stages
from pseudo_labels.errors import PocketiqaError
from tests.helpers.training import score_of, texture_pool

NO_STUDENT = ("distill=null", "score=null", "pool=null", "distort=null", "label=null")


@pytest.fixture
def rated(tmp_path: Path) -> str:
    """Eight textures with scores."""
    pool = texture_pool(tmp_path, scenes=4, versions=2, sizes=((64, 64),))
    lines = [f"{ref.uri},{score_of(ref)},{ref.group}" for ref in pool]
    (tmp_path / "rated.csv").write_text("\n".join(["image,mos,group", *lines]))
    return f"csv:{tmp_path / 'rated.csv'}"


def fit(rated: str) -> str:
    return f"{{teacher: qfm_iqm, sources: [{{ratings: '{rated}'}}]}}"


def test_one_teacher_has_a_stage_without_a_name_and_several_have_theirs(tmp_path: Path, rated: str):
    one = open_run("tiny", tmp_path / "one", [f"fit={fit(rated)}", *NO_STUDENT])
    assert [(stage.name, stage.folder.name) for stage in fitting_stages(one)] == [("fit", "fit")]
    several = [f"teachers={{a: {fit(rated)}, b: {fit(rated)}}}", "fuse={}", "label={}", "score=null"]
    assert [stage.name for stage in fitting_stages(open_run("tiny", tmp_path / "two", several))] == ["fit-a", "fit-b"]


def test_ratings_become_a_pool_of_the_run(tmp_path: Path, rated: str):
    run = open_run("tiny", tmp_path / "run", [f"fit={fit(rated)}", *NO_STUDENT])
    (source,) = fit_sources(run, "")
    assert len(source.pool) == 8
    assert source.pool.folder.is_relative_to(run.out)
    assert [one.labels.digest for one in all_fit_sources(run)] == [source.labels.digest]


def test_weights_are_averaged_only_if_the_recipe_says_so(tmp_path: Path, rated: str):
    several = [f"teachers={{a: {fit(rated)}, b: {fit(rated)}}}", "fuse={}", "label={}", "score=null"]
    assert averaging_stages(open_run("tiny", tmp_path, several)) == []
    (stage,) = averaging_stages(open_run("tiny", tmp_path, [*several, "weight_average={names: [a, b]}"]))
    assert stage.folder == tmp_path / "merged"


def test_a_recipe_that_fits_nothing_is_refused(tmp_path: Path):
    with pytest.raises(PocketiqaError, match="has no section 'fit'"):
        fit_recipe("tiny", out=tmp_path)
