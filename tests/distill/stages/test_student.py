"""From labels to the exported student: sources, settings, refusals."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from distill.recipe.stages import ExportSection
from distill.stages.context import Run, open_run, walk
from distill.stages.pipeline import run_recipe
from distill.stages.student import distill_recipe, label_sources, student_stages
from distill.training.history import read_history
from pseudo_labels.crops import RandomCrops
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.store import LabelStore
from students.runtime import Scorer
from teachers.label import label
from tests.distill.conftest import SETTINGS
from tests.helpers.pools import write_photographs


def test_training_and_export_are_the_stages_of_a_student(tiny_run: Run):
    assert [stage.name for stage in student_stages(tiny_run)] == ["distill", "export"]
    assert Scorer(tiny_run.model).contract.name == "tiny-student"


def test_the_own_labels_come_first(tiny_run: Run):
    (source,) = label_sources(tiny_run)
    assert isinstance(source.labels, LabelStore)
    assert (source.pool.folder, source.labels.folder) == (tiny_run.synthetic, tiny_run.labels)


def test_a_first_source_of_crops_is_refused(tiny_run: Run, tmp_path: Path):
    crops = label(tiny_run.pool, "tests.helpers.own_teacher:build", tmp_path / "crops", crops=RandomCrops())
    source = f"{{pool: {tiny_run.pool}, labels: {crops.folder}}}"
    settings = [f"sources=[{source}]", "label=null", "pool=null", "distort=null", "score=null"]
    with pytest.raises(PocketiqaError, match="holds labels of crops, not of whole images: name another source first"):
        label_sources(open_run("tiny", tmp_path / "run", settings))


LEVELS = (
    "levels={names: [white_noise, gaussian_blur], per_image: 4, drops: [{distortions: [noise], least: 0.03}]}",
    "distill.losses={level_ranking: 1.0}", "label.options={metrics: gmsd}", "score=null",
)  # fmt: skip


def test_a_recipe_makes_copies_and_learns_their_order(tmp_path: Path):
    write_photographs(tmp_path / "photographs", images=5, max_side=96)
    settings = [*SETTINGS, *LEVELS, f'pool.sources=["{tmp_path / "photographs"}"]']
    run_recipe("tiny", out=tmp_path / "run", settings=settings)
    run = open_run("tiny", tmp_path / "run", settings)
    own, ordered = label_sources(run)
    assert (own.pool.folder, ordered.pool.folder) == (run.synthetic, run.levels)
    assert ordered.levels is not None
    assert {len(one.places) for one in ordered.levels} == {3}  # a clean picture and two levels of noise
    assert {one.distortion for one in ordered.levels} == {"white_noise"}
    history = read_history(run.training / "history.jsonl")
    assert "level_ranking" in history[0]
    validated = next(record for record in history if record["kind"] == "validation")
    assert validated["sources"][ordered.name]["n"] == 1
    # The pool of levels stands in the report among the recipe's own, and is no source that it names.
    pools = [one["name"] for one in json.loads((run.report / "report.json").read_text())["pools"]]
    assert pools == ["photographs", "synthetic", "levels"]


def test_an_order_of_levels_as_first_source_is_refused(tiny_run: Run, tmp_path: Path):
    source = f"{{pool: {tiny_run.synthetic}, drops: [{{distortions: [all]}}]}}"
    settings = [f"sources=[{source}]", "label=null", "pool=null", "distort=null", "score=null"]
    with pytest.raises(PocketiqaError, match="has an order of levels and no scores: name a source with labels"):
        label_sources(open_run("tiny", tmp_path / "run", settings))


def test_a_live_teacher_without_a_name_is_that_of_the_labels(tmp_path: Path):
    settings = [
        "distill.live={}",
        "label=null",
        "pool=null",
        "distort=null",
        "score=null",
        "sources=[{ratings: 'csv:x'}]",
    ]
    run = open_run("tiny", tmp_path / "run", settings)
    with pytest.raises(PocketiqaError, match=r"csv"):  # the ratings are read before the teacher
        student_stages(run)[0].make(False, lambda done, total: None)


def test_a_recipe_without_student_is_not_distilled(tmp_path: Path):
    fit = "fit={teacher: qfm_iqm, sources: [{ratings: 'csv:x.csv'}]}"
    with pytest.raises(PocketiqaError, match="has no section 'distill'"):
        distill_recipe("tiny", out=tmp_path, settings=["distill=null", "score=null", fit])


def test_an_export_is_made_again_when_the_file_was_changed(tiny_run: Run):
    export = student_stages(tiny_run)[1]
    assert export.make(False, lambda done, total: None).startswith(str(tiny_run.model))


def test_a_recipe_can_ask_for_half_the_file(tiny_run: Run, tmp_path: Path):
    copied = tmp_path / "run"
    shutil.copytree(tiny_run.out, copied)
    halved = tiny_run.recipe.model_copy(update={"export": ExportSection(half=True)})
    run = replace(tiny_run, recipe=halved, out=copied)
    whole = run.model.read_bytes()
    walk(student_stages(run)[1], overwrite=True)
    assert run.model.stat().st_size < 0.7 * len(whole)
    parity = Scorer(run.model).contract.parity
    assert parity is not None
    assert parity["limit"] == 1e-2


def test_a_student_whose_earlier_stages_have_not_run_names_the_command(tmp_path: Path):
    out = tmp_path / "run"
    with pytest.raises(PocketiqaError) as caught:
        distill_recipe("tiny", out=out, settings=["distill.steps=4"])
    message = str(caught.value)
    assert f"have not run to their end (pool, distort, label: {out / 'pool'}, " in message
    assert f"run `pocketiqa run tiny --set distill.steps=4 --out {out}`" in message
    assert not out.exists()


def test_a_student_whose_labels_are_unfinished_names_the_command(tiny_run: Run, tmp_path: Path):
    for folder in ("pool", "synthetic"):
        shutil.copytree(tiny_run.out / folder, tmp_path / "run" / folder)
    with pytest.raises(PocketiqaError, match=r"have not run to their end \(label: .*/labels\)"):
        distill_recipe("tiny", out=tmp_path / "run")
