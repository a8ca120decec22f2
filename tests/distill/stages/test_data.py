"""Which stages of pool, distort, label and fuse a recipe has, and what they read."""

from pathlib import Path

from distill.stages.context import Run, open_run
from distill.stages.data import BUNDLED, data_stages
from pseudo_labels.pool import Pool
from pseudo_labels.store import LabelStore
from tests.helpers.pools import write_photographs

FIT = "{teacher: qfm_iqm, sources: [{ratings: 'csv:x.csv'}]}"


def names_of(out: Path, *settings: str) -> list[str]:
    return [stage.name for stage in data_stages(open_run("tiny", out, settings))]


def test_a_section_that_is_left_out_is_no_stage(tmp_path: Path):
    assert names_of(tmp_path) == ["pool", "distort", "label"]
    assert names_of(tmp_path, "distort=null") == ["pool", "label"]
    source = "sources=[{ratings: 'csv:x.csv'}]"
    assert names_of(tmp_path, "pool=null", "distort=null", "label=null", "score=null", source) == []


def test_several_teachers_label_one_after_another_and_are_fused(tmp_path: Path):
    settings = (f"teachers={{one: {FIT}, two: {FIT}}}", "fuse={}", "label={}", "score=null")
    assert names_of(tmp_path, *settings) == ["pool", "distort", "label-one", "label-two", "fuse"]
    averaged = "weight_average={names: [one, two], label: true, crops: [{seed: 1}, {seed: 2}]}"
    expected = ["pool", "distort", "label-one", "label-two", "label-merged", "label-crop1", "label-crop2", "fuse"]
    assert names_of(tmp_path, *settings, averaged) == expected


def test_the_stages_made_what_the_recipe_says(tiny_run: Run):
    clean, synthetic, store = Pool.open(tiny_run.pool), Pool.open(tiny_run.synthetic), LabelStore.open(tiny_run.labels)
    assert len(clean) == 6
    assert len([ref for ref in synthetic if ref.ref_id]) == 12
    assert {ref.distortion for ref in synthetic} <= {"", "gaussian_blur", "white_noise"}
    assert (store.spec.shards, store.spec.rows, store.spec.stamp.name) == (2, len(synthetic), "reference")


def test_the_pool_of_a_benchmark_is_its_train_part(tmp_path: Path):
    paths = write_photographs(tmp_path / "photographs", images=4)
    lines = [f"{path},{number / 4},{'test' if number else 'train'}" for number, path in enumerate(paths)]
    (tmp_path / "rated.csv").write_text("\n".join(["image,mos,split", *lines]))
    run = open_run("tiny", tmp_path / "run", [f'pool.sources=["csv:{tmp_path / "rated.csv"}"]'])
    stage = data_stages(run)[0]
    assert "1 images (1 ok)" in stage.make(False, lambda done, total: None)
    assert Path(Pool.open(run.pool).ok()[0].uri).name == paths[0].name


def test_bundled_photographs_are_copied_into_the_run(tmp_path: Path):
    run = open_run("tiny", tmp_path / "run", [f'pool.sources=["{BUNDLED}"]'])
    data_stages(run)[0].make(False, lambda done, total: None)
    assert len(list(run.photographs.iterdir())) == len(Pool.open(run.pool))


def test_random_crops_are_labelled_and_fused_beside_the_images(tmp_path: Path):
    write_photographs(tmp_path / "photographs", images=3)
    run = open_run(
        "tiny",
        tmp_path / "out",
        [
            f'pool.sources=["{tmp_path / "photographs"}"]', "distort=null", "score=null", "fuse={min_teachers: 1}",
            "label={teacher: 'tests.helpers.own_teacher:build', crops: [{seed: 1}, {seed: 2}]}",
        ],
    )  # fmt: skip
    stages = data_stages(run)
    assert [stage.name for stage in stages] == [
        "pool", "label", "labels-teacher-crop1", "labels-teacher-crop2", "fuse", "fuse-crop1", "fuse-crop2",
    ]  # fmt: skip
    for stage in stages:
        stage.make(False, lambda done, total: None)
    whole, first, second = (LabelStore.open(tmp_path / "out" / f"labels{end}") for end in ("", "-crop1", "-crop2"))
    assert [store.spec.of_crops for store in (whole, first, second)] == [False, True, True]
    views = [store.labels()["view"].to_pylist() for store in (first, second)]
    assert all(view.startswith("crop") for view in views[0] + views[1])
    assert views[0] != views[1]
    assert first.labels()["score"].to_pylist() != whole.labels()["score"].to_pylist()
