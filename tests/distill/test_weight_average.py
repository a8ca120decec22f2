"""A recipe whose teachers differ in folds alone: they become one teacher, from which a student starts."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from distill.recipe.recipe import first_weights, load_recipe
from distill.stages.context import Stage
from distill.stages.pipeline import run_recipe
from distill.stages.student import distill_recipe
from distill.study import run
from distill.study.cells import cells_of, study_targets
from distill.study.config import load_study
from distill.study.result import build_result
from distill.study.run import record_cost
from distill.training.history import HISTORY, read_history
from pseudo_labels.crops import RandomCrops
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import Pool
from pseudo_labels.records import TeacherStamp
from pseudo_labels.store import LabelStore
from students.storage import read_record
from teachers.embedded import FOLDER
from teachers.fitted_folder import read_fitted_folder
from teachers.registry import build_teacher
from tests.helpers.training import score_of, texture_pool

STEP: dict[str, Any] = {"batch_size": 8, "threads": 1, "tracker": "none", "device": "cpu", "split": {"validation": 0.4}}


def written(folder: Path, side: int = 64, **changes: Any) -> str:
    pool = texture_pool(folder, scenes=8, versions=3, sizes=((side, side),))
    lines = [f"{ref.uri},{score_of(ref)},{ref.group}" for ref in pool]
    (folder / "ratings.csv").write_text("\n".join(["image,mos,group", *lines]))
    ratings = f"csv:{folder / 'ratings.csv'}"
    fit = {
        **STEP, "teacher": "qfm_iqm", "steps": 2, "validate_every_steps": 2, "checkpoint_every_steps": 2,
        "options": {
            "backbone": "test_efficientnet", "pretrained": False, "head": "new", "max_side_px": 64, "cells": 2,
            "width": 8, "heads": 1, "noise_weight": 0, "trainable": ["blocks.2"],
        },
        "optimizer": {"warmup_steps": 0},
    }  # fmt: skip
    tree = {
        "name": "started",
        "out": str(folder / "run"),
        "teachers": {
            f"fold{n}": {**fit, "sources": [{"ratings": ratings, "without_fold": f"{n}/2"}]} for n in (1, 2)
        },
        "weight_average": {"names": ["fold1", "fold2"]},
        "pool": {"sources": [ratings]},
        "label": {"shards": 2},
        "fuse": {},
        "distill": {
            **STEP, "student": {"name": "test_efficientnet", "levels": [4, 8], "map_stride": 8, "max_side": 64,
                                "head_width": 8, "init": str(folder / "run" / "merged")},
            "steps": 2, "validate_every_steps": 2, "checkpoint_every_steps": 2, "images": {"crop_size": None},
            "optimizer": {"warmup_steps": 0},
        },
        "evaluate": [{"ratings": ratings}],
    } | changes  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return str(path)


def test_folds_are_averaged_and_a_student_starts_from_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run_recipe(written(tmp_path))
    out = tmp_path / "run"
    said = capsys.readouterr().out
    assert "merged from fold1, fold2" in said.replace("\n", "")
    averaged = build_teacher(str(out / "merged"))
    assert averaged.stamp.scale.startswith("ratings of 0-ratings")
    assert len(Pool.open(out / "pool")) == 24  # the benchmark's images
    assert first_weights(str(out / "merged")) == out / "merged" / "teacher" / "backbone.safetensors"
    run_recipe(str(tmp_path / "recipe.yaml"))
    assert capsys.readouterr().out.count("unchanged, skipped") == 11


def test_a_student_learns_ratings_with_features_and_crops_from_the_weight_average(tmp_path: Path):
    crops = [{"smallest": 0.7, "seed": 1}, {"smallest": 0.8, "largest": 0.8}]
    average = {"names": ["fold1", "fold2"], "label": True, "crops": crops}
    path = Path(written(tmp_path, side=96, weight_average=average))
    recipe, out = yaml.safe_load(path.read_text()), tmp_path / "run"
    recipe["sources"] = [
        {"ratings": recipe["pool"]["sources"][0], "features": str(out / "merged-labels")},
        *({"pool": str(out / "pool"), "labels": str(out / f"merged-crop{n}")} for n in (1, 2)),
    ]
    recipe["distill"]["losses"] = {"feature": 0.5, "feature_name": "pooled"}
    path.write_text(yaml.safe_dump(recipe))
    run_recipe(str(path))
    averaged = build_teacher(str(out / "merged"))
    whole = LabelStore.open(out / "merged-labels")
    assert whole.spec.stamp == averaged.stamp
    assert all(row["status"] == "ok" for row in whole.labels().to_pylist())  # those it learned from included
    for number, windows in ((1, RandomCrops(0.7, seed=1)), (2, RandomCrops(0.8, 0.8))):
        store = LabelStore.open(out / f"merged-crop{number}")
        assert store.spec.stamp == averaged.stamp
        assert set(store.spec.features) == set(averaged.feature_names)
        for row in store.labels().to_pylist():
            assert (row["view"], row["status"]) == (windows.of(row["id"]).view, "ok")
    about = read_record(out / "training" / "student")["about"]
    assert averaged.stamp.digest in [TeacherStamp(**stamp).digest for stamp in about["teachers"]]
    steps = [record for record in read_history(out / "training" / HISTORY) if record["kind"] == "train"]
    assert all(record["feature"] > 0 for record in steps)
    assert (out / "report" / "report.html").is_file()
    recipe["sources"] = recipe["sources"][1:]
    del recipe["pool"], recipe["label"], recipe["fuse"], recipe["teachers"], recipe["weight_average"]
    path.write_text(yaml.safe_dump(recipe))
    with pytest.raises(
        PocketiqaError, match=r"'0-qfm_iqm' holds labels of crops, not of whole images: name another source first"
    ):
        distill_recipe(str(path))


def test_a_study_makes_the_average_before_it_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = yaml.safe_load(Path(written(tmp_path)).read_text())
    ratings = f"{recipe['evaluate'][0]['ratings']}?validation=0.3"
    del recipe["name"], recipe["out"], recipe["distill"]["student"]["init"]
    recipe["evaluate"] = [{"ratings": ratings, "split": "validation"}]
    recipe["weight_average"]["label"] = True
    tree = {"name": "s", "out": str(tmp_path / "study"), "recipe": recipe, "axes": {"seed": {0: {}}}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**tree, "arms": {"one": {}}}))
    study = load_study(str(tmp_path / "study.yaml"))
    (cell,) = cells = cells_of(study)
    walked: list[Stage] = []
    monkeypatch.setattr(run, "_walk", lambda stage, overwrite: walked.append(stage))
    run.walk_run(cell.recipe, study.out / "shared", "again", overwrite=False)
    names = [stage.name for stage in walked]
    assert names[:4] == ["fit-fold1", "fit-fold2", "merge", "pool"]
    assert "label-merged" in names
    assert walked[2].folder == study.out / "one-seed0" / "merged"
    # What it cost is shown at its place.
    for name in ("evaluate", "merge", "distill"):
        record_cost(study.out / "one-seed0", name, 1.0, resumed=False)
    result = build_result(study, cells, study_targets(cells), {"": "", "one-seed0": ""})
    assert list(result["runs"][0]["stages"]) == ["merge", "distill", "evaluate"]


def test_where_a_student_may_start_from():
    assert first_weights("some/file.safetensors") == Path("some/file.safetensors")
    assert first_weights("embedded") == FOLDER / "backbone.safetensors" == read_fitted_folder(str(FOLDER))[1]["weights"]


def test_a_weight_average_of_unknown_teachers_is_refused(tmp_path: Path):
    path = written(tmp_path, weight_average={"names": ["fold1", "fold3"]})
    with pytest.raises(PocketiqaError, match="weight_average names 'fold3': choose from fold1, fold2"):
        load_recipe(path)
