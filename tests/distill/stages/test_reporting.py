"""What the report of a run is told, gathered from the folders of its stages."""

import json
from dataclasses import replace

import pytest

from distill.stages.context import Run
from distill.stages.evaluation import held_out, read_results
from distill.stages.reporting import PAGE, reporting_stages
from pseudo_labels.errors import OutputConflictError
from pseudo_labels.outputs import read_manifest, write_manifest
from students.runtime import Scorer


def twin(run: Run) -> dict:
    return json.loads((run.report / "report.json").read_text("utf-8"))


def test_the_page_is_the_students(tiny_run: Run):
    report = twin(tiny_run)
    assert report["title"] == "tiny-student: a pocket-size student of reference"
    page = (tiny_run.report / PAGE).read_text("utf-8")
    assert Scorer(tiny_run.model).digest[:12] in page
    assert tiny_run.command.split()[0] in page


def test_notes_name_the_limits_of_so_small_a_run(tiny_run: Run):
    notes = " ".join(twin(tiny_run)["notes"])
    assert "agreement with a teacher, not with people" in notes
    assert "synthetic distortions alone (gaussian blur, white noise)" in notes
    assert "scenes: a demonstration of the method" in notes


def test_pools_are_counted(tiny_run: Run):
    pools = {pool["name"]: pool for pool in twin(tiny_run)["pools"]}
    assert set(pools) == {"photographs", "synthetic"}
    assert pools["photographs"]["images"] == 6
    assert sum(pools["synthetic"]["distortions"].values()) == 12


def test_the_split_counts_images_and_scenes(tiny_run: Run):
    split = twin(tiny_run)["split"]
    assert sum(part["groups"] for part in split.values()) == 6
    assert split["test"]["images"] == len(held_out(tiny_run).ids)


def test_the_figures_are_those_of_the_evaluation(tiny_run: Run):
    held = read_results(tiny_run)["held_out"]
    metrics = held["models"][0]["selections"][held["headline"]]["metrics"]
    assert f"{metrics['srcc']['value']}" in json.dumps(twin(tiny_run))


@pytest.mark.parametrize("first_version", [False, True])
def test_another_command_of_the_same_run_leaves_the_report_as_it_is(tiny_run: Run, first_version: bool):
    (stage,) = reporting_stages(replace(tiny_run, command="pocketiqa run configs/tiny.yaml"))
    manifest, page = read_manifest(tiny_run.report), (tiny_run.report / PAGE).read_bytes()
    if first_version:
        spec = {**manifest.spec, "command": "pocketiqa run tiny"}
        write_manifest(tiny_run.report, replace(manifest, spec=spec))
    try:
        assert stage.make(False, lambda *_: None) == str(tiny_run.report / PAGE)
        # A changed evaluation is refused, as before.
        write_manifest(tiny_run.report, replace(manifest, spec={**manifest.spec, "evaluation": "other"}))
        with pytest.raises(OutputConflictError, match="evaluation: 'other'"):
            stage.make(False, lambda *_: None)
    finally:
        write_manifest(tiny_run.report, manifest)
    assert (tiny_run.report / PAGE).read_bytes() == page


def test_there_is_one_stage(tiny_run: Run):
    assert [stage.name for stage in reporting_stages(tiny_run)] == ["report"]
