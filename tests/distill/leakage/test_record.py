"""``overlap.json`` as it is read, and its use in an evaluation."""

import json
from pathlib import Path
from typing import Any

import pytest

from distill.evaluation.benchmarks import Benchmark, BenchmarkRow, Scale
from distill.leakage.record import closest, closest_scenes, facts, images_in_words, read_overlap, with_near_duplicates
from pseudo_labels.errors import IntegrityError, PocketiqaError
from pseudo_labels.files import checksummed_json
from tests.helpers.near_duplicate_scenes import compass_record
from tests.helpers.records import alter


@pytest.fixture
def record() -> dict[str, Any]:
    return compass_record({"a": 5.0, "b": 225.0, "c": 95.0, "d": 3.0})


def test_a_record_is_read_from_its_file_or_its_folder(tmp_path: Path, record: dict[str, Any]) -> None:
    (tmp_path / "overlap.json").write_text(json.dumps(record))
    assert read_overlap(tmp_path) == read_overlap(tmp_path / "overlap.json") == record
    for content in ([1], {**record, "kind": "labels"}, {**record, "format": 2}):
        (tmp_path / "other.json").write_text(json.dumps(content))
        with pytest.raises(PocketiqaError, match=r"other\.json is no overlap\.json of format 1"):
            read_overlap(tmp_path / "other.json")
    with pytest.raises(PocketiqaError, match=r"no overlap .* at .*gone"):
        read_overlap(tmp_path / "gone")


def test_an_altered_record_is_refused(tmp_path: Path, record: dict[str, Any]) -> None:
    (tmp_path / "overlap.json").write_bytes(checksummed_json(record))
    assert read_overlap(tmp_path) == json.loads(json.dumps(record))
    alter(tmp_path / "overlap.json", near=0)
    with pytest.raises(IntegrityError, match=r"overlap\.json was altered"):
        read_overlap(tmp_path)


def test_pairs_are_sorted_by_cosine_and_pictures_show_a_scene_once(record: dict[str, Any]) -> None:
    record["images"].append({"id": "x", "cosine": None, "near": False})
    assert [image["id"] for image in closest(record)] == ["d", "a", "c", "b"]
    # a and d show one scene.
    assert [image["id"] for image in closest_scenes(record, 9)] == ["d", "c", "b"]
    assert [image["id"] for image in closest_scenes(record, 1)] == ["d"]


def test_a_benchmark_gets_the_near_duplicates_beside_its_own_marks(record: dict[str, Any]) -> None:
    rows = tuple(BenchmarkRow(id, "", 0.5, 0.5, id, near_training=id == "b") for id in "dcba")
    benchmark = Benchmark("some", rows, Scale(0, 1), citation="", licence="", split_origin="none", notes=("first",))
    marked = with_near_duplicates(benchmark, record)
    assert [row.near_duplicate for row in marked.rows] == [True, True, False, True]
    assert [row.near_training for row in marked.rows] == [False, False, True, False]
    assert marked.notes[0] == "first"
    assert marked.notes[1].startswith("3 of 4 images are near duplicates of one of 4 trained ones (trained)")
    record["images"] = record["images"][1:]
    with pytest.raises(PocketiqaError, match="does not contain 1 of 4 images of some, such as 'a': run"):
        with_near_duplicates(benchmark, record)


def test_an_evaluation_stores_everything_but_the_single_images(record: dict[str, Any]) -> None:
    stored = facts(record)
    assert stored.keys() == {"by", "above", "near", "trained", "tested", "copying_reason", "copying"}
    selections = record["copying"]["models"][0]["selections"]
    assert stored["copying"]["all images"] == {"n": 4, "srcc": selections["all"]["metrics"]["srcc"]}
    assert stored["copying"]["without near ones, found or marked"]["n"] == 1
    # The key stays as files on disk have it; people read other words.
    assert [images_in_words(name) for name in stored["copying"]][:2] == ["all images", "without near duplicates"]
    assert facts(record | {"copying": None})["copying"] is None
