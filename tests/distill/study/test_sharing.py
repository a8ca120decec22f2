"""Which folders runs of a study have in common: those whose settings are equal, and no others."""

from pathlib import Path

import pytest

from distill.study.cells import cells_of
from distill.study.config import load_study
from distill.study.result import cell_run
from distill.study.sharing import CellRun, pool_stages
from pseudo_labels.errors import PocketiqaError
from tests.helpers.studies import rated_textures, study_tree, write_study


def runs_of(folder: Path, *settings: str) -> dict[str, CellRun]:
    study = load_study(write_study(folder / "study.yaml", study_tree(rated_textures(folder))), settings, folder / "out")
    return {cell.name: cell_run(cell, study.out) for cell in cells_of(study)}


def test_runs_of_another_seed_have_other_pools_and_labels(tmp_path: Path):
    runs = runs_of(tmp_path)
    first, second = runs["more-seed0"], runs["more-seed1"]
    assert first.pool != second.pool  # the seed draws which images are rated, and these are left out
    assert first.labels != second.labels
    assert first.training != second.training


def test_runs_that_differ_in_training_alone_use_one_pool_and_one_store(tmp_path: Path):
    runs = runs_of(tmp_path, "arms={short: {}, long: {distill.steps: 2}}", "compare=null")
    short, long = runs["short-seed0"], runs["long-seed0"]
    assert (short.pool, short.labels, short.photographs) == (long.pool, long.labels, long.photographs)
    assert short.training != long.training
    assert short.evaluation != long.evaluation


def test_another_teacher_has_another_store_of_the_same_pool(tmp_path: Path):
    runs = runs_of(tmp_path, "arms={one: {}, two: {label.threads: 2}}", "compare=null")
    one, two = runs["one-seed0"], runs["two-seed0"]
    assert one.pool == two.pool
    assert one.labels != two.labels


def test_a_benchmark_is_the_only_source_of_a_pool(tmp_path: Path):
    benchmark = rated_textures(tmp_path)
    tree = study_tree(benchmark)
    tree["recipe"]["pool"]["sources"] = [benchmark, str(tmp_path)]
    study = load_study(write_study(tmp_path / "study.yaml", tree), [], tmp_path / "out")
    run = cell_run(cells_of(study)[1], study.out)
    with pytest.raises(PocketiqaError, match=r"has 2 sources and one is the benchmark.*name the benchmark alone"):
        pool_stages(run)
