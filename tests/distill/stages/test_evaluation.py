"""What a run is evaluated on: scenes that training never saw, against the labels of its teacher."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.data.split import Part, read_split
from distill.stages.check import check_run
from distill.stages.context import Run, open_run
from distill.stages.demonstration import read_demonstration
from distill.stages.evaluation import (
    evaluation_stages,
    held_out,
    image_sets_of,
    labels_are_unseen,
    learned_from,
    read_all_results,
    read_predictions,
    read_region_results,
    read_results,
    score_regions,
)
from distill.stages.pipeline import run_recipe
from distill.stages.student import label_sources
from pseudo_labels.errors import IntegrityError, PocketiqaError
from pseudo_labels.files import read_record
from pseudo_labels.outputs import read_manifest
from pseudo_labels.pool import Pool
from pseudo_labels.regions.store import RegionSet
from pseudo_labels.store import LabelStore
from students.runtime import Scorer
from students.storage import load_student
from tests.distill.conftest import REGIONS, SETTINGS
from tests.helpers.pools import write_photographs
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


def test_a_recipe_makes_regions_learns_and_evaluates_them(region_run: Run):
    own, copies = label_sources(region_run)
    assert own.regions is not None
    assert copies.regions is not None
    assert (own.selects, copies.selects) == (True, True)
    assert len(own.regions.rows) == 15  # five photographs and two copies of each
    assert {ref.region for ref in copies.pool if ref.ref_id} <= {
        region.region for region in RegionSet.open(region_run.regions).rows()
    }
    results = read_region_results(region_run)
    assert results["part"] == "test"
    # Of the copies also those alone in which one region was distorted: the clean pictures are among them.
    assert list(results["sources"]) == [own.name, copies.name, f"{copies.name}, one distorted region"]
    whole, single, *_ = results["sources"].values()
    assert set(whole["quality"]["models"]) == {"student", "before", "crop", "whole"}
    assert set(whole["importance"]["models"]) == {"student", "before", "area"}
    assert "pointing" not in whole["quality"]["models"]["student"]
    assert single["quality"]["models"]["student"]["pointing"]["n"] == 2
    assert single["quality"]["models"]["whole"]["within"]["value"] == 0


def test_only_regions_of_held_out_scenes_are_evaluated(region_run: Run):
    split = read_split(region_run.training)
    results = read_region_results(region_run)["sources"]
    for source in label_sources(region_run):
        held = [ref for ref in source.pool.ok() if split.parts[ref.id] == Part.TEST]
        trained = {ref.group for ref in source.pool.ok() if split.parts[ref.id] == Part.TRAIN}
        assert held
        assert not trained & {ref.group for ref in held}
        assert results[source.name]["pictures"] == len(held)
        assert results[source.name]["regions"] == 6 * len(held)


def test_scores_of_regions_are_pooled_from_the_maps_of_the_whole_image(region_run: Run):
    source = label_sources(region_run)[1]
    assert source.regions is not None
    student = load_student(region_run.training / "student")
    row = source.regions.rows[1]
    regions, image = source.regions.at(row), source.pool.load(source.pool[row])
    assert regions is not None
    scored = score_regions(student, image, regions)
    # A grid: its regions fill the image, so their weighted mean is the score.
    assert scored.importance.sum() == pytest.approx(1, abs=1e-5)
    assert (scored.quality * scored.importance).sum() == pytest.approx(scored.score, abs=1e-5)


def test_a_region_run_is_finished_once(region_run: Run):
    before = (region_run.region_evaluation / "manifest.json").read_bytes()
    for stage in evaluation_stages(region_run):
        stage.make(False, lambda done, total: None)
    assert (region_run.region_evaluation / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["regions={by: grid, per_image: 0}", "distort=null"], "nothing distorted"),
        (["regions={by: grid}"], "distort.max_side would not fit the masks"),
        (
            ["regions={by: grid}", "distort=null", "label=null", "sources=[{ratings: 'csv:x'}]"],
            "needs the section 'label'",
        ),
        (["sources=[{pool: a, regions: b}]"], "give all three"),
        (["sources=[{labels: a, regions: b, region_labels: c}]"], "give all three"),
    ],
)
def test_recipes_with_regions_that_cannot_run_are_refused(settings: list[str], message: str, tmp_path: Path):
    with pytest.raises(PocketiqaError, match=message):
        open_run("tiny", tmp_path, settings)


def test_faults_of_the_section_are_noted_before_the_first_stage(tmp_path: Path):
    settings = ["distort.max_side=null", "regions={by: hexagons, names: [nonsense], min_area: 0.9, max_area: 0.1}"]
    with pytest.raises(PocketiqaError) as refused:
        check_run(open_run("tiny", tmp_path, settings))
    assert all(key in str(refused.value) for key in ("regions.by", "regions.names", "min_area 0.9"))


def test_regions_of_other_photographs_are_learned_from_or_only_test(tmp_path: Path):
    write_photographs(tmp_path / "photographs", images=4, max_side=96)
    write_photographs(tmp_path / "others", images=6, max_side=112)
    section = f"sources: ['{tmp_path / 'others'}'], by: 'grid:2x2', names: [jpeg], teacher_options: {{metrics: gmsd}}"
    settings = [
        *SETTINGS, *REGIONS, f'pool.sources=["{tmp_path / "photographs"}"]', "distill.student.regions={}",
        f"more_regions=[{{name: learned, images: 4, per_image: 2, regions_per_copy: [1, 3], {section}}}, "
        f"{{name: seen_never, images: 2, per_image: 1, test: true, {section}}}]",
    ]  # fmt: skip
    run_recipe("tiny", out=tmp_path / "run", settings=settings)
    run = open_run("tiny", tmp_path / "run", settings)
    learned, test = (Pool.open(run.more_regions(name, "pool")) for name in ("learned", "seen_never"))
    # A smaller number of photographs is part of a larger one.
    assert (len(learned), len(test)) == (4, 2)
    assert {ref.id for ref in test} < {ref.id for ref in learned}
    assert [source.pool.folder for source in label_sources(run)][2] == run.more_regions("learned", "copies")
    sources = read_region_results(run)["sources"]
    assert "seen_never" in sources
    assert sources["seen_never"]["regions"] == 2 * 4
    assert not any(name.startswith("learned") for name in sources)
    scorer = Scorer(run.model)
    assert scorer.contract.regions is not None
    assert "reference" in scorer.contract.regions["scale"]
    validation = scorer.contract.regions["metrics"]["validation"]
    # Of so few scenes, not each source has one that validates.
    assert set(validation)
    assert set(validation) <= {source.name for source in label_sources(run)}


def test_names_of_more_regions_differ(tmp_path: Path):
    section = "{name: one, sources: [a], by: 'grid:2x2'}"
    with pytest.raises(PocketiqaError, match=r"more_regions has the names \['one', 'one'\]"):
        open_run("tiny", tmp_path, [*REGIONS, f"more_regions=[{section}, {section}]"])
    with pytest.raises(PocketiqaError, match="'more_regions' needs the section 'regions'"):
        open_run("tiny", tmp_path, [f"more_regions=[{section}]"])
