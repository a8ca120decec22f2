"""Near duplicates from images to files, their use in an evaluation, and a second call that computes nothing."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from distill.cli import app
from distill.data.examples import LabelTable, Source
from distill.data.ratings import targets_of
from distill.evaluation.benchmarks import load_benchmark
from distill.evaluation.targets import targets_from_benchmark
from distill.leakage.embeddings import Embeddings
from distill.leakage.extractor import FeatureExtractor
from distill.leakage.extractors import open_extractor
from distill.leakage.find import find_near_duplicates, write_groups, write_split
from distill.leakage.image_sets import NO_SCORE, evaluation_image_set, pool_image_set, training_image_set
from distill.leakage.record import closest_scenes, read_overlap, with_near_duplicates
from distill.recipe.stages import BenchmarkSection
from distill.stages.benchmark import evaluate_on
from distill.stages.leakage import (
    Comparison,
    held_out_image_sets,
    near_duplicate_ids,
    near_duplicates_held_out,
    near_duplicates_in_benchmarks,
)
from distill.terminal import console
from pseudo_labels.errors import IntegrityError, OutputConflictError, PocketiqaError
from pseudo_labels.pool import build_pool, write_pool
from tests.helpers.markup import parsed
from tests.helpers.near_duplicate_scenes import AGAIN, COMPASS, NEW, TRAINED, compass, rated_scenes, write_ratings
from tests.helpers.pools import synthetic_pool
from tests.helpers.shared import shared_data
from tests.helpers.tiny_students import export_tiny
from tests.helpers.training import score_of, texture_pool

NEAR_DUPLICATES = [f"again-{name}.jpg" for name in AGAIN]


def overlap_of(out: Path, trained: str, tested: str, **options: object) -> dict:
    image_sets = training_image_set(trained), evaluation_image_set(tested)
    return find_near_duplicates(*image_sets, open_extractor(), out, **{"above": 0.5, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return rated_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, benchmarks: tuple[str, str]) -> Path:
    out = tmp_path_factory.mktemp("made") / "overlap"
    overlap_of(out, *benchmarks)
    return out


def test_other_shots_of_a_trained_scene_are_near_duplicates_and_new_scenes_are_not(made: Path) -> None:
    record = read_overlap(made)
    assert [image["id"] for image in record["images"] if image["near"]] == NEAR_DUPLICATES
    assert [image["nearest"] for image in record["images"]][:3] == [f"{name}.png" for name in AGAIN]
    assert record["near"] == 3
    assert (record["trained"]["compared"], record["tested"]["compared"]) == (6, 4)
    assert record["scenes"] == {"scenes": 7, "on_both_sides": 3, "largest": 2}


def test_copying_is_evaluated_like_a_model(made: Path) -> None:
    record = read_overlap(made)
    pairs = [(image["score"], image["nearest_score"]) for image in record["images"]]
    expected: Any = spearmanr(pairs)
    whole = record["copying"]["models"][0]["selections"]["all"]
    assert whole["metrics"]["srcc"]["value"] == pytest.approx(expected.statistic)
    assert whole["n"] == 4
    assert record["copying"]["models"][0]["selections"]["clean"]["n"] == 1


def test_groups_and_split_keep_scenes_whole(made: Path) -> None:
    with open(made / "groups.csv", newline="") as file:
        scene_of = {(row["set"], row["image"]): row["group"] for row in csv.DictReader(file)}
    assert len(scene_of) == len(TRAINED) + len(AGAIN) + len(NEW)
    assert all(scene_of["trained", f"{name}.png"] == scene_of["tested", f"again-{name}.jpg"] for name in AGAIN)
    assert len(set(scene_of.values())) == 7
    split = load_benchmark(f"csv:{made / 'split.csv'}")  # which refuses a group in two parts
    parts = {Path(row.path).name: row.split for row in split.rows}
    assert {name for name, part in parts.items() if part == "test"} == {*NEAR_DUPLICATES, f"again-{NEW[0]}.jpg"}
    assert {name for name, part in parts.items() if part != "test"} == {f"{name}.png" for name in TRAINED[3:]}
    assert sorted(part for part in parts.values() if part != "test") == ["train", "train", "validation"]
    assert read_overlap(made)["split"] == {
        "images": {"near test": 3, "test": 4, "train": 2, "validation": 1},
        "reason": "",
    }


def test_the_page_shows_the_pairs_and_loads_nothing(made: Path) -> None:
    page = (made / "overlap.html").read_text("utf-8")
    seen = parsed(page)
    pictures = [attributes for name, attributes in seen.tags if name == "img"]
    assert len(pictures) == 2 * (4 + 3 + 1)  # all pairs, and those on both sides of the threshold
    assert all(str(one["src"]).startswith("data:image/jpeg") for one in pictures)
    assert "http" not in page
    assert "3 of 4 images are near duplicates of one of 6 trained ones" in seen.text


def test_the_same_call_computes_nothing_and_another_threshold_keeps_the_features(
    tmp_path: Path, benchmarks: tuple[str, str]
) -> None:
    image_sets, calls, layout = (
        (training_image_set(benchmarks[0]), evaluation_image_set(benchmarks[1])),
        [],
        open_extractor(),
    )

    def extract(rgb: np.ndarray, reference: np.ndarray | None) -> np.ndarray:
        calls.append(rgb.shape)
        return layout.extract(rgb, reference)

    counted = FeatureExtractor("counted", "layout", "edges", {}, extract)
    steps: list[tuple[int, int]] = []
    first = find_near_duplicates(
        *image_sets, counted, tmp_path / "out", above=0.5, progress=lambda *step: steps.append(step)
    )
    assert (len(calls), steps) == (10, [(done, 10) for done in range(1, 11)])
    assert find_near_duplicates(*image_sets, counted, tmp_path / "out", above=0.5) == first
    with pytest.raises(OutputConflictError, match=r"above: 0\.5 -> 0\.99"):
        find_near_duplicates(*image_sets, counted, tmp_path / "out", above=0.99)
    assert find_near_duplicates(*image_sets, counted, tmp_path / "out", above=0.99, overwrite=True)["near"] == 0
    assert len(calls) == 10
    part = tmp_path / "out" / "features-tested" / "part-00000.npz"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    find_near_duplicates(*image_sets, counted, tmp_path / "out", above=0.6, overwrite=True)
    assert len(calls) == 14  # features of the altered part are computed again
    other = FeatureExtractor("other", "layout", "edges", {"version": 2}, extract)
    find_near_duplicates(*image_sets, other, tmp_path / "out", above=0.6, overwrite=True)
    assert len(calls) == 24
    (tmp_path / "out" / "overlap.json").write_text("{}")
    with pytest.raises(IntegrityError, match="not what was written"):
        find_near_duplicates(*image_sets, other, tmp_path / "out", above=0.6)


def test_a_pool_has_no_scores_to_copy_and_copies_stand_behind_their_originals(
    tmp_path: Path, benchmarks: tuple[str, str]
) -> None:
    pool = synthetic_pool(tmp_path, images=3, per_image=2, max_side=160)
    record = overlap_of(tmp_path / "out", str(pool.folder), benchmarks[1], above=0.2)
    assert record["trained"]["images"] == 3
    assert [image["near"] for image in record["images"]] == [True, True, True, False]
    assert record["images"][0]["nearest_name"] == "0-astronaut.png"
    assert record["copying"] is None
    assert "no scores to copy" in record["copying_reason"]
    assert "no files with scores" in record["split"]["reason"]
    assert "Not measured: the trained images have no scores" in (tmp_path / "out/overlap.html").read_text("utf-8")


def test_images_that_cannot_be_read_are_counted_with_a_reason(tmp_path: Path) -> None:
    trained, tested = rated_scenes(tmp_path)
    (tmp_path / "again-coffee.jpg").write_text("no image")
    (tmp_path / "rocket.png").unlink()
    record = overlap_of(tmp_path / "out", trained, tested)
    assert record["trained"]["without"] == {"missing": 1}
    assert record["tested"]["without"] == {"not_an_image": 1}
    assert [image["cosine"] is None for image in record["images"]] == [False, True, False, False]
    assert record["copying"]["models"][0]["coverage"]["scored"] == 3


def test_an_evaluation_gives_each_metric_with_and_without_near_duplicates(
    tmp_path: Path, made: Path, benchmarks: tuple[str, str]
) -> None:
    export_tiny(tmp_path / "tiny.onnx")
    result = evaluate_on([str(tmp_path / "tiny.onnx")], benchmarks[1], near=made)
    assert {name: selection["n"] for name, selection in result["selections"].items()} == {"clean": 1, "all": 4}
    assert (result["headline"], result["excluded"]["near_train"]) == ("clean", 3)
    assert result["near"]["copying"]["all images"]["n"] == 4
    marked = with_near_duplicates(load_benchmark(benchmarks[1]), read_overlap(made))
    rows = tuple(replace(row, near_training=index == 3) for index, row in enumerate(marked.rows))
    targets = targets_from_benchmark(replace(marked, rows=rows))
    assert targets.near_training == tuple(row.near_duplicate or index == 3 for index, row in enumerate(rows))
    assert sum(row.near_duplicate for row in rows) == 3
    assert targets.marked == (False, False, False, True)
    assert result["target"]["about"]["notes"][-1].startswith("3 of 4 images are near")
    with pytest.raises(PocketiqaError, match=r"does not contain 6 of 6 images of trained, such as 'astronaut\.png'"):
        with_near_duplicates(load_benchmark(benchmarks[0]), read_overlap(made))
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(PocketiqaError, match=r"other\.json is no overlap\.json of format 1"):
        read_overlap(tmp_path / "other.json")
    with pytest.raises(PocketiqaError, match=r"no overlap .* at .*gone"):
        read_overlap(tmp_path / "gone")


def test_a_recipe_compares_its_benchmarks_unless_it_is_turned_off(tmp_path: Path, benchmarks: tuple[str, str]) -> None:
    folder = Path(benchmarks[0].partition(":")[2]).parent
    pool = build_pool([str(folder / f"{name}.png") for name in TRAINED], tmp_path / "pool")
    source = Source("own", pool, LabelTable([ref.id for ref in pool], np.linspace(0.2, 0.8, len(pool))))
    silent = BenchmarkSection(ratings=benchmarks[1], near_duplicate_cosine=None)
    section = BenchmarkSection(ratings=benchmarks[1])
    comparisons = near_duplicates_in_benchmarks([source], [silent, section], tmp_path, seed=0)
    assert comparisons == [
        Comparison("csv", reason="the recipe says near_duplicate_cosine: null"),
        Comparison("csv", "near-1"),
    ]
    assert [comparison.under(tmp_path) for comparison in comparisons] == [None, tmp_path / "near-1"]
    record = read_overlap(tmp_path / "near-1")
    assert (record["by"]["kind"], record["by"]["feature"], record["above"]) == ("backbone", "final", 0.7)
    assert record["copying"]["models"][0]["coverage"]["scored"] == 4
    assert record["by"]["name"] == "the embedded teacher's backbone"
    assert len(closest_scenes(record, 9)) == len({image["scene"] for image in record["images"]})
    # Photographs of a pool are files with scores: the split to learn from names them.
    split = load_benchmark(f"csv:{tmp_path / 'near-1' / 'split.csv'}")
    assert {Path(row.path).parent for row in split.rows} == {folder}
    assert {row.split for row in split.rows} == {"train", "validation", "test"}
    # A second benchmark is compared with features that are there already.
    features = tmp_path / "near-features" / "manifest.json"
    before = features.stat().st_mtime_ns
    assert near_duplicates_in_benchmarks([source], [silent, section, section], tmp_path, seed=0)[2] == Comparison(
        "csv", "near-2"
    )
    assert features.stat().st_mtime_ns == before
    lone = replace(source, pool=write_pool(tmp_path / "lone", list(pool)[:1], spec={}))
    (few,) = near_duplicates_in_benchmarks([lone], [section], tmp_path / "few", seed=0)
    assert (few.folder, few.reason.partition(":")[0]) == ("", "lone has 1 images to compare")
    gone = write_ratings(tmp_path, "gone", [("a.png", 0.5), ("b.png", 0.6)])
    (none,) = near_duplicates_in_benchmarks([source], [BenchmarkSection(ratings=gone)], tmp_path / "gone", seed=0)
    assert "has features for none of the 2 images of gone" in none.reason


def test_each_photograph_of_the_held_out_part_is_compared_once(tmp_path: Path) -> None:
    pool = texture_pool(tmp_path, scenes=6, versions=3, sizes=((64, 64),))
    table = LabelTable([ref.id for ref in pool], [score_of(ref) for ref in pool])
    shown = {ref.id for ref in pool if ref.group in ("scene4", "scene5") and (ref.ref_id or ref.group == "scene5")}
    trained = {ref.id: 0.1 * int(ref.group[-1]) for ref in pool if ref.group < "scene4"}
    targets = targets_of(Source("own", pool, table), [ref.id for ref in pool if ref.id in shown])
    image_sets = held_out_image_sets(pool, trained, targets)
    assert [len(one.images) for one in (image_sets.trained, image_sets.tested)] == [4, 2]
    # Of scene 4 only the copies are tested, so that one of them is compared; of scene 5 the original.
    assert [bool(pool.by_id(image.sample.id).ref_id) for image in image_sets.tested.images] == [True, False]
    assert image_sets.tested.targets is not None
    assert image_sets.tested.targets.ids == image_sets.tested.ids
    assert near_duplicates_held_out(image_sets, tmp_path, seed=0) == Comparison("Held-out part", "near-held-out")
    record = read_overlap(tmp_path / "near-held-out")
    assert record["copying"]["models"][0]["coverage"]["scored"] == 2
    near = {pool.by_id(one["id"]).group for one in record["images"] if one["near"]}
    assert near_duplicate_ids(tmp_path / "near-held-out", pool, shown) == {
        id for id in shown if pool.by_id(id).group in near
    }
    none = near_duplicates_held_out(held_out_image_sets(pool, {}, targets), tmp_path / "none", seed=0)
    assert none.under(tmp_path) is None
    assert none.reason.startswith("training part has 0 images to compare: at least 2")


def test_copies_of_a_near_duplicate_are_near_duplicates_too(tmp_path: Path) -> None:
    pool = texture_pool(tmp_path, scenes=3, versions=3, sizes=((64, 64),))
    copies = {ref.id for ref in pool if ref.ref_id}
    again = pool_image_set(pool, ids=copies, name="copies")
    find_near_duplicates(
        pool_image_set(pool), again, open_extractor(), tmp_path / "out", above=-0.99
    )  # everything is near
    assert [image["near"] for image in read_overlap(tmp_path / "out")["images"]] == [True] * 3
    assert near_duplicate_ids(tmp_path / "out", pool, copies) == copies


def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path: Path, benchmarks: tuple[str, str]) -> None:
    alone = write_ratings(Path(benchmarks[0].partition(":")[2]).parent, "alone", [("cat.png", 0.5)])
    with pytest.raises(PocketiqaError, match="alone has 1 images to compare: at least 2"):
        overlap_of(tmp_path / "out", alone, benchmarks[1])
    with pytest.raises(PocketiqaError, match=r"above is 1\.5, but it is a cosine"):
        overlap_of(tmp_path / "out", *benchmarks, above=1.5)
    with pytest.raises(PocketiqaError, match="validation is 1: give a fraction"):
        overlap_of(tmp_path / "out", *benchmarks, validation=1.0)
    gone = write_ratings(tmp_path, "gone", [("a.png", 0.5), ("b.png", 0.6)])
    with pytest.raises(PocketiqaError, match=r"layout has features for none of the 2 images of gone, such as a\.png"):
        overlap_of(tmp_path / "out", gone, benchmarks[1])
    with pytest.raises(PocketiqaError, match="'/nowhere' is neither the folder of a pool"):
        training_image_set("/nowhere")
    only_train = write_ratings(tmp_path, "parts", [("a.png", 0.5, "train")], "image,mos,split")
    with pytest.raises(PocketiqaError, match="benchmark parts has no split 'test': known splits: train"):
        evaluation_image_set(only_train)


def test_the_command(tmp_path: Path, benchmarks: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    def pocketiqa(*words: object) -> int:
        return console.run_cli(app, [str(word) for word in words])

    export_tiny(tmp_path / "tiny.onnx")
    words = ("overlap", *benchmarks, "--out", tmp_path / "out", "--above", 0.5, "--by", "layout")
    assert pocketiqa(*words) == 0
    printed = capsys.readouterr().out
    assert (
        "3 of 4 images are near duplicates of one of 6 trained ones (trained) by feature 'edges' of layout" in printed
    )
    assert "all images" in printed
    model, result = tmp_path / "tiny.onnx", tmp_path / "result.json"
    assert pocketiqa("evaluate", model, "--on", benchmarks[1], "--near", tmp_path / "out", "--out", result) == 0
    assert json.loads(result.read_text())["near"]["near"] == 3
    capsys.readouterr()
    for wrong, message in (
        (("--above", "-1"), "above is -1"),
        (("--by", model, "--feature", "colour"), "choose backbone, map"),
        (("--split", "validation"), "no split 'validation'"),
        (("--above", "0.6"), "add --overwrite"),
    ):
        assert pocketiqa(*words, *wrong) == 1
        lines = capsys.readouterr().err.strip().splitlines()
        assert lines[-1].startswith("error: ")
        assert message in lines[-1]


def test_near_duplicates_of_a_real_benchmark_are_detected_without_a_model(tmp_path: Path) -> None:
    benchmark = load_benchmark(f"biq2021:{shared_data('biq2021')}")
    tested = [row for row in benchmark.rows if row.split == "test" and row.subset == "ss01"]
    near = [row for row in tested if row.near_training][:12]
    clean = [row for row in benchmark.rows if row.split == "test" and not row.near_training][:12]
    groups = {row.group for row in near}
    trained = [row for row in benchmark.rows if row.split == "train" and row.group in groups][:120]
    trained += [row for row in benchmark.rows if row.split == "train" and row.group not in groups][:120]
    sets = {"trained": trained, "tested": [*near, *clean]}
    specs = [write_ratings(tmp_path, name, [(row.path, row.score) for row in rows]) for name, rows in sets.items()]
    record = overlap_of(tmp_path / "out", *specs, above=0.7)
    detected = [image["near"] for image in record["images"]]
    # Measured: 10 and 1; on the whole test part 70 of 92 and 16 of 508.
    assert sum(detected[:12]) >= 8
    assert sum(detected[12:]) <= 2


ANGLES = {"a": 5.0, "b": 225.0}  # a shows the scene of east, b a scene of its own


def test_every_image_is_listed_with_its_scene(tmp_path: Path) -> None:
    compared = compass(ANGLES)
    write_groups(compared, tmp_path / "groups.csv")
    with open(tmp_path / "groups.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["set", "image", "group"]
    assert [(image_set, id) for image_set, id, _ in rows[1:]] == [
        *(("trained", id) for id in COMPASS),
        ("tested", "a"),
        ("tested", "b"),
    ]
    assert {(image_set, id): scene for image_set, id, scene in rows[1:]} == compared.scene_of


def test_the_split_is_a_benchmark_that_shares_no_scene_between_parts(tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    result = write_split(compass(ANGLES, folder="/images"), path, validation=0.34, seed=0)
    assert result == {"images": {"near test": 1, "train": 2, "validation": 1, "test": 2}, "reason": ""}
    rows = load_benchmark(f"csv:{path}").rows  # which refuses a group in two parts
    assert {row.path: row.split for row in rows if row.split == "test"} == {
        "/images/a.png": "test",
        "/images/b.png": "test",
    }
    assert {row.path for row in rows if row.split != "test"} == {f"/images/{id}.png" for id in list(COMPASS)[1:]}
    scores = {row.path: row.score for row in rows}
    assert scores["/images/west.png"] == 0.9 - 0.1 * 2  # every digit is written


@pytest.mark.parametrize("folder", ["/im\rag\nes", os.fsdecode(b"/im\xffages"), '/im"a,ges'])
def test_odd_names_come_back_from_the_split(tmp_path: Path, folder: str) -> None:
    write_split(compass(ANGLES, folder=folder), tmp_path / "split.csv", validation=0.34, seed=0)
    (tmp_path / "split.csv").read_bytes().decode()  # readable anywhere
    rows = load_benchmark(f"csv:{tmp_path / 'split.csv'}").rows
    assert {row.path for row in rows if row.split == "test"} == {f"{folder}/a.png", f"{folder}/b.png"}


def test_without_files_or_scores_there_is_no_split_and_an_earlier_one_goes(tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    path.write_text("of an earlier run")
    expected = {"images": {}, "reason": "the trained images are no files with scores"}
    assert write_split(compass(ANGLES), path, validation=0.34, seed=0) == expected
    assert not path.exists()
    compared = compass(ANGLES, folder="/images")
    unrated = tuple(replace(image, score=NO_SCORE) for image in compared.trained.images)
    trained = Embeddings(unrated, compared.trained.vectors, without=())
    assert write_split(replace(compared, trained=trained), path, validation=0.34, seed=0) == expected


def test_too_few_scenes_to_learn_from_give_the_reason(tmp_path: Path) -> None:
    compared = compass({**COMPASS}, folder="/images")  # every trained scene is tested
    result = write_split(compared, tmp_path / "split.csv", validation=0.34, seed=0)
    assert result["images"] == {}
    assert result["reason"]
    assert not (tmp_path / "split.csv").exists()
