"""What a run is evaluated on: scenes that training never saw, against the labels of its teacher."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.data.split import Part, read_split
from distill.stages.context import Run, open_run
from distill.stages.demonstration import read_demonstration
from distill.stages.evaluation import (
    held_out,
    image_sets_of,
    labels_are_unseen,
    learned_from,
    read_all_results,
    read_predictions,
    read_results,
)
from pseudo_labels.errors import IntegrityError
from pseudo_labels.files import read_record
from pseudo_labels.outputs import read_manifest
from pseudo_labels.store import LabelStore
from students.runtime import Scorer
from students.storage import load_student
from tests.helpers.records import alter

FIT = "{teacher: qfm_iqm, sources: [{ratings: 'csv:x.csv'}]}"


def test_held_out_scenes_were_never_trained_on(tiny_run: Run):
    out = held_out(tiny_run)
    split = read_split(tiny_run.training)
    assert out.ids
    assert {split.parts[id] for id in out.ids} == {Part.TEST}
    trained_scenes = {out.pool.by_id(id).group for id in out.trained}
    assert not trained_scenes & {out.pool.by_id(id).group for id in out.ids}


def test_targets_are_the_labels_of_the_store(tiny_run: Run):
    out = held_out(tiny_run)
    labels = LabelStore.open(tiny_run.labels).labels().to_pandas().set_index("id")["score"]
    np.testing.assert_allclose(out.targets.scores, labels.loc[out.ids].to_numpy(), rtol=0)
    assert all(out.trained[id] == labels.loc[id] for id in out.trained)


def test_predictions_are_those_of_the_exported_model(tiny_run: Run):
    out, predictions, scorer = held_out(tiny_run), read_predictions(tiny_run), Scorer(tiny_run.model)
    assert list(predictions.ids) == out.ids
    expected = [scorer.score(out.pool.load(out.pool.by_id(id))).score for id in out.ids]
    np.testing.assert_allclose(predictions.scores, expected, atol=1e-6)


def test_the_results_have_leakage_and_every_benchmark(tiny_run: Run):
    results = read_results(tiny_run)
    assert results["overlap"]["same_file"] == 0
    assert results["benchmarks"] == []
    assert [one["name"] for one in results["near"]] == ["Held-out part"]
    assert read_all_results(tiny_run) == [results["held_out"]]


def test_every_json_of_a_run_has_a_checksum_that_its_reader_verifies(tiny_run: Run, tmp_path: Path):
    shutil.copytree(tiny_run.out, tmp_path / "run")
    run = replace(tiny_run, out=tmp_path / "run")
    # A shard's marker has the digests of its files, and the store's manifest has that of the marker.
    others = {"shard.json", "stats.json", "progress.json", "index.json"}
    files = [path for path in run.out.rglob("*.json") if path.name not in others]
    assert {path.name for path in files} >= {
        *("manifest.json", "evaluation.json", "predictions.json", "split.json", "student.json", "report.json"),
        *("scores.json", "overlap.json"),
    }
    for path in files:
        assert "checksum" in json.loads(path.read_text()), path
        read_record(path, what="record")
    for read, path in (
        (lambda: read_results(run), run.evaluation / "evaluation.json"),
        (lambda: read_predictions(run), run.evaluation / "predictions.json"),
        (lambda: read_split(run.training), run.training / "split.json"),
        (lambda: read_demonstration(run), run.demonstration / "scores.json"),
        (lambda: read_manifest(run.pool), run.pool / "manifest.json"),
        (lambda: load_student(run.training / "student"), run.training / "student" / "student.json"),
    ):
        alter(path, new="field")
        with pytest.raises(IntegrityError, match=f"{path.name} was altered"):
            read()
        record = json.loads(path.read_text())
        del record["checksum"], record["new"]
        path.write_text(json.dumps(record))  # as earlier versions wrote it
        read()


def test_a_run_learns_from_its_own_labels(tiny_run: Run):
    (source,) = learned_from(tiny_run)
    assert source.labels.digest == LabelStore.open(tiny_run.labels).digest


def test_of_a_photograph_and_its_copies_one_is_compared(tiny_run: Run):
    out = held_out(tiny_run)
    sets = image_sets_of(out)
    scenes = {out.pool.by_id(id).group for id in out.ids}
    assert len(sets.tested.images) == len(scenes)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ((), False),
        ((f"teachers={{one: {FIT}, two: {FIT}}}", "fuse={}", "label={}", "score=null"), False),
        ((f"teachers={{one: {FIT}, two: {FIT}}}", "fuse={}", "label={unseen: true}", "score=null"), True),
    ],
)
def test_labels_are_unseen_only_with_several_teachers_that_leave_out_what_they_saw(settings: tuple[str, ...], expected):
    assert labels_are_unseen(open_run("tiny", None, settings)) is expected
