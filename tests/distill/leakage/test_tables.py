"""The two CSV files of a comparison: every image with its scene, and a benchmark without a scene in two parts."""

import csv
from dataclasses import replace
from pathlib import Path

from distill.evaluation.benchmarks import load_benchmark
from distill.leakage.embeddings import Embeddings
from distill.leakage.image_sets import NO_SCORE
from distill.leakage.tables import write_groups, write_split
from tests.helpers.near_duplicate_scenes import COMPASS, compass

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
