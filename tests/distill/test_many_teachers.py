"""Recipes with several teachers: each is fitted and labels, and the student learns from their fused labels."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from distill.recipe.recipe import load_recipe
from distill.stages.pipeline import run_recipe
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.fusion.report import read_fusion_report
from pseudo_labels.images import load
from pseudo_labels.pool import Pool
from pseudo_labels.store import LabelStore
from teachers.fitted_folder import read_seen
from teachers.registry import build_teacher
from tests.helpers.fitting import NAME
from tests.helpers.training import score_of, texture_pool

STEP: dict[str, Any] = {"batch_size": 8, "threads": 1, "tracker": "none", "device": "cpu"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe of two small teachers that differ in their first weights."""
    folder = tmp_path_factory.mktemp("rated")
    pool = texture_pool(folder, scenes=8, versions=4, sizes=((64, 64),))
    lines = [f"{ref.uri},{score_of(ref)},{ref.group}" for ref in pool]
    (folder / "ratings.csv").write_text("\n".join(["image,mos,group", *lines]))
    ratings = f"csv:{folder / 'ratings.csv'}"
    fit = {
        **STEP, "teacher": NAME, "sources": [{"ratings": ratings}], "steps": 40, "validate_every_steps": 20,
        "checkpoint_every_steps": 20, "split": {"validation": 0.25},
        "optimizer": {"learning_rate": 2e-2, "warmup_steps": 2},
    }  # fmt: skip
    return {
        "name": "pair-student",
        "out": "unused",
        "teachers": {"one": fit, "other": {**fit, "options": {"seed": 1}}},
        "pool": {"sources": [str(folder / "images")]},
        "label": {"shards": 2},
        "fuse": {"max_disagreement": 0.5},
        "distill": {
            **STEP, "student": {"name": "mobilenetv4_conv_small_035", "max_side": 64, "head_width": 8}, "steps": 2,
            "validate_every_steps": 1, "checkpoint_every_steps": 1, "images": {"crop_size": 64},
            "split": {"validation": 0.4}, "optimizer": {"warmup_steps": 0},
        },
        "evaluate": [{"ratings": ratings}],
    }  # fmt: skip


def write(folder: Path, tree: dict[str, Any], **changes: Any) -> str:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in {**tree, **changes}.items() if value is not None}))
    return str(path)


def page(out: Path) -> dict[str, Any]:
    return json.loads((out / "report" / "report.json").read_text())


def test_all_teachers_label_and_the_student_learns_what_they_say_together(tmp_path: Path, tree: dict[str, Any]):
    out = tmp_path / "run"
    run_recipe(write(tmp_path, tree), out=out)
    parts = [LabelStore.open(out / f"labels-{name}") for name in ("one", "other")]
    assert parts[0].spec.stamp.digest != parts[1].spec.stamp.digest
    report = read_fusion_report(out / "labels")
    assert {own["labels"] for own in report.teachers} == {part.digest for part in parts}
    twin = page(out)
    assert (twin["kind"], twin["teacher"]) == ("student", "fused")
    assert [one["teacher"].split()[0] for one in twin["fitting"]] == ["one", "other"]
    (predicted,) = twin["benchmarks"]
    assert [model["name"] for model in predicted["models"]] == ["pair-student", "fused", "one", "other"]


def test_the_folder_of_the_fused_teacher_says_what_the_store_says(tmp_path: Path, tree: dict[str, Any]):
    out = tmp_path / "run"
    run_recipe(write(tmp_path, tree, distill=None), out=out)
    twin = page(out)
    assert twin["kind"] == "teacher"
    assert twin["model"] == "pair-student"
    teacher, store = build_teacher(str(out / "teacher")), LabelStore.open(out / "labels")
    table = [row for shard in range(store.spec.shards) for row in store.shard_labels(shard).to_pylist()]
    kept = [row for row in table if row["status"] == "ok"]
    with torch.inference_mode():
        said = [float(teacher([teacher.preprocess(load(row["uri"]), None)]).score[0]) for row in kept[:6]]
    assert said == pytest.approx([row["score"] for row in kept[:6]], abs=1e-6)
    before = (out / "labels" / "manifest.json").stat().st_mtime_ns
    run_recipe(write(tmp_path, tree, distill=None), out=out)  # unchanged, so nothing is done again
    assert (out / "labels" / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fuse": None}, "'teachers' needs the section 'fuse'"),
        ({"label": None, "pool": None}, "'fuse' needs the section 'label'"),
        ({"label": {"teacher": "reference"}}, "label.teacher = 'reference', but all of 'teachers' label: drop it"),
        ({"fuse": {"calibrate": "guess"}}, r"fuse.calibrate = 'guess'"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    tmp_path: Path, tree: dict[str, Any], changes: dict[str, Any], words: str
):
    with pytest.raises(PocketiqaError, match=words):
        load_recipe(write(tmp_path, tree, **changes))


def test_one_of_several_teachers_is_called_fit(tmp_path: Path, tree: dict[str, Any]):
    one = tree["teachers"]["one"]
    with pytest.raises(PocketiqaError, match="'teachers' has one, 'one': call the section 'fit'"):
        load_recipe(write(tmp_path, tree, teachers={"one": one}))
    with pytest.raises(PocketiqaError, match="both 'fit' and 'teachers'"):
        load_recipe(write(tmp_path, tree, fit=one))


def test_folds_give_every_rated_image_a_label_by_a_teacher_that_never_saw_it(tmp_path: Path, tree: dict[str, Any]):
    more = texture_pool(tmp_path / "more", scenes=8, versions=4, sizes=((64, 72),))  # that nobody has rated
    fit = tree["teachers"]["one"]
    (source,) = fit["sources"]
    teachers = {f"fold{n}": {**fit, "sources": [{**source, "without_fold": f"{n}/3"}]} for n in (1, 2, 3)}
    pool = {"sources": [*tree["pool"]["sources"], str(tmp_path / "more" / "images")]}
    changes = {
        "teachers": teachers, "pool": pool, "label": {"shards": 2, "unseen": True}, "fuse": {"min_teachers": 1},
        "distill": None, "evaluate": None,
    }  # fmt: skip
    out = tmp_path / "run"
    run_recipe(write(tmp_path, tree, **changes), out=out)
    rated = {ref.id for ref in Pool.open(out / "fit-fold1-opinions" / "0-csv")}
    unrated = {ref.id for ref in more}
    predicted: dict[str, int] = Counter()
    for name in teachers:
        seen = read_seen(str(out / f"fit-{name}"))
        rows = LabelStore.open(out / f"labels-{name}").labels().to_pylist()
        assert {row["id"] for row in rows if row["status"] == "seen"} == seen
        predicted.update(row["id"] for row in rows if row["status"] == "ok")
    assert rated  # of two of three folds
    assert {count for id, count in predicted.items() if id in unrated} == {3}
    assert {count for id, count in predicted.items() if id not in unrated} == {1}
    fused = LabelStore.open(out / "labels").labels().to_pylist()
    assert [row["status"] for row in fused] == ["ok"] * (32 + 32)
    # What is evaluated is the word of those that never saw an image, on all images of the first teacher.
    (evaluated_model,) = page(out)["evaluation"]["models"]
    assert evaluated_model["name"] == "pair-student"
    assert page(out)["evaluation"]["target"]["n"] == len(rated)
