"""The loop that labels regions: rows for everything, resume to the byte, faults, refusals."""

import json
from pathlib import Path
from typing import Any

import pytest

from pseudo_labels.distort import build_synthetic_pool
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import Pool, build_pool
from pseudo_labels.regions.make import Limits, build_regions
from pseudo_labels.regions.readers import source_named
from pseudo_labels.regions.sources import Grid, Slic
from pseudo_labels.regions.store import RegionLabelStore
from teachers.regions import label_regions
from tests.helpers.campaign import WHOLE
from tests.helpers.killing import kill_and_resume
from tests.helpers.labelling import shard_bytes
from tests.helpers.regions import region_folder

OWN = "tests.helpers.own_teacher:build"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return region_folder(tmp_path_factory.mktemp("regions"))


def test_what_the_source_states_is_stored_as_labels(folder: Path, tmp_path: Path):
    pool = Pool.open(folder / "clean")
    boxes = [
        {"image": "0-astronaut", "box": [0, 0, 60, 60], "quality": 0.25, "importance": 0.75, "type": "blur"},
        {"image": "0-astronaut", "box": [60, 60, 60, 60], "importance": 0.5},
        {"image": "1-coffee", "box": [0, 0, 500, 1], "quality": 7},
    ]
    (tmp_path / "table.json").write_text(json.dumps(boxes))
    build_regions(pool, source_named("boxes", tmp_path / "table.json"), tmp_path / "regions", preview=0)
    store = label_regions(folder / "clean", tmp_path / "regions", "annotated", tmp_path / "labels")
    rows = list(store.rows())
    assert [(row.quality, row.importance, row.type) for row in rows if row.status == "ok"] == [(0.25, 0.75, "blur")]
    assert [row.reason for row in rows if row.status != "ok"] == [
        "the source of the regions (boxes) states no quality",
        "quality is 7, outside 0 to 1",
        "the source gives no region",
    ]
    with pytest.raises(PocketiqaError, match="takes no options"):
        label_regions(folder / "clean", tmp_path / "regions", "annotated", tmp_path / "other", options={"a": 1})


def test_regions_of_another_size_and_images_that_vanished_are_rows(folder: Path, tmp_path: Path):
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for path in sorted((folder / "photographs").iterdir()):
        (photographs / path.name).write_bytes(path.read_bytes())
    pool = build_pool([str(photographs)], tmp_path / "pool")
    regions = build_regions(pool, Grid(2, 2), tmp_path / "regions", preview=0)
    shrunk = build_synthetic_pool(pool, tmp_path / "shrunk", per_image=1, names=["jpeg"], max_side=90)
    (photographs / "2-cat.png").unlink()
    store = label_regions(pool.folder, regions.folder, f"crop:{OWN}", tmp_path / "labels", max_failed_fraction=0.5)
    assert store.manifest.content["status"] == {"missing": 4, "ok": 8}
    # The shrunk references have other bytes, so other ids than the images of the regions.
    with pytest.raises(PocketiqaError, match="has no region that fits an image of the pool"):
        label_regions(shrunk.folder, regions.folder, f"crop:{OWN}", tmp_path / "other")


def test_it_resumes_to_the_same_bytes_and_repairs(folder: Path, tmp_path: Path):
    def run(out: Path, **options: Any) -> RegionLabelStore:
        return label_regions(folder / "copies", folder / "regions", f"crop:{OWN}", out, shards=3, **options)

    first, second = run(tmp_path / "first", batch_size=2), run(tmp_path / "second", batch_size=2, decode_workers=1)
    assert shard_bytes(first.folder) == shard_bytes(second.folder)
    broken = second.folder / "shard-00001" / "labels.parquet"
    broken.write_bytes(broken.read_bytes()[:-1] + b"x")
    told: list[str] = []
    done: list[tuple[int, int]] = []
    run(second.folder, batch_size=2, warn=told.append, progress=lambda *step: done.append(step))
    assert told == ["shard 1 is labelled again: labels.parquet does not match its recorded SHA-256"]
    assert (done[0], done[-1]) == ((6, 9), (9, 9))
    assert shard_bytes(first.folder) == shard_bytes(second.folder)
    assert RegionLabelStore.open(second.folder).digest == first.digest


def relabel(pool: str, regions: str, out: str) -> None:
    """For processes that are killed."""
    label_regions(pool, regions, f"crop:{OWN}", out, shards=4, batch_size=2, device="cpu")


@pytest.mark.skipif(not WHOLE, reason="a campaign: each life imports torch")
def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(folder: Path, tmp_path: Path):
    arguments, unbroken = (
        [str(folder / "copies"), str(folder / "regions"), str(tmp_path / name)] for name in ("broken", "whole")
    )
    name = "tests.teachers.test_regions:relabel"
    kill_and_resume(name, arguments, unbroken_args=unbroken, kills=20, seed=1)
    assert shard_bytes(tmp_path / "broken") == shard_bytes(tmp_path / "whole")


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        (OWN, "give crop:tests.helpers.own_teacher:build to score the crops"),
        ("reference", "has no distorted images"),
        ("crop:reference", "has no distorted images"),
        ("nobody", "unknown teacher 'nobody'"),
    ],
)
def test_teachers_that_cannot_label_these_regions_say_why(folder: Path, tmp_path: Path, teacher: str, words: str):
    with pytest.raises(PocketiqaError, match=words):
        label_regions(folder / "clean", folder / "regions", teacher, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong", [{"patch": "round"}, {"batch_size": 0}, {"decode_workers": 0}, {"shards": 99}], ids=lambda one: str(one)
)
def test_numbers_out_of_range_are_refused(folder: Path, tmp_path: Path, wrong: dict[str, Any]):
    with pytest.raises(PocketiqaError, match=r"choose|at least 1"):
        label_regions(folder / "clean", folder / "regions", "annotated", tmp_path / "out", **wrong)


def test_a_manifest_in_work_is_refused(folder: Path, tmp_path: Path):
    pool = Pool.open(folder / "clean")
    store = build_regions(pool, Slic(4), tmp_path / "regions", limits=Limits(), shards=2, preview=0)
    store.discard(1)
    with pytest.raises(PocketiqaError, match="run the same regions command again"):
        label_regions(pool.folder, store.folder, f"crop:{OWN}", tmp_path / "out")
