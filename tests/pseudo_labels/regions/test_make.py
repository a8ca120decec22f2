"""The region manifest: limits, one row for everything, resume to the byte, ten thousand regions, the preview."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.pool import Pool, build_pool
from pseudo_labels.records import ImageRef, Status
from pseudo_labels.regions.make import Limits, build_regions, limited
from pseudo_labels.regions.masks import encode, from_box, outline, overlap
from pseudo_labels.regions.readers import source_named
from pseudo_labels.regions.sources import Grid, Proposal, Slic
from pseudo_labels.regions.store import RegionSet
from tests.helpers.campaign import kills
from tests.helpers.killing import kill_and_resume
from tests.helpers.pools import clean_pool
from tests.helpers.shared import shared_data

REF = ImageRef("id", "a.png", height=100, width=100)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Four photographs, a copy of one, and a file that is none."""
    folder = tmp_path_factory.mktemp("pool")
    clean_pool(folder, images=4, max_side=96)
    first = sorted((folder / "photographs").iterdir())[0]
    (folder / "photographs" / "z-copy.png").write_bytes(first.read_bytes())
    (folder / "photographs" / "z-corrupt.png").write_bytes(first.read_bytes()[:500])
    return build_pool([str(folder / "photographs")], folder / "pool")


def boxes(*boxes: list[float]) -> list[Proposal]:
    return [Proposal(from_box(box, 100, 100)) for box in boxes]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("shard-*/*"))}


def test_every_proposal_is_a_region_or_a_row_that_says_why_not():
    empty, lie = Proposal(encode(np.zeros((100, 100), bool))), Proposal(encode(np.ones((90, 100), bool)))
    proposals = [
        *boxes([0, 0, 50, 50], [1, 1, 50, 50], [0, 0, 50, 50], [70, 70, 1, 1], [0, 0, 100, 100], [60, 0, 40, 40]),
        *(empty, lie, Proposal("", status=Status.EMPTY, reason="outside")),
    ]
    rows = limited(proposals, REF, "boxes", Limits(max_overlap=0.9))
    assert [str(row.status) for row in rows] == [
        *("ok", "dropped", "dropped", "dropped", "dropped", "ok", "empty", "corrupt", "empty"),
    ]
    assert [row.area for row in rows if row.status == Status.OK] == [0.25, 0.16]
    reasons = [row.reason for row in rows if row.status != Status.OK]
    assert reasons[0] == f"overlap of {2401 / 2599:.3f} with the earlier region {rows[0].region}"
    assert reasons[1].startswith("overlap of 1.000")
    assert reasons[2] == "1 pixels, a fraction 0.0001 of the image: outside 0.002 to 0.95"
    assert reasons[4] == "the mask has no pixel"
    assert reasons[5] == "the run lengths cover 9000 pixels, but 100x100 are 10000"
    assert rows[0].box == (0, 0, 50, 50)
    assert rows[0].mask().sum() == 2500


def test_one_pixel_is_a_region_where_the_limits_let_it_pass():
    (row,) = limited(boxes([70, 30, 1, 1]), REF, "boxes", Limits(min_area=0))
    assert (row.status, row.box, row.area) == (Status.OK, (70, 30, 1, 1), 0.0001)


def test_equal_masks_are_one_region_whatever_the_limits():
    rows = limited(boxes([0, 0, 50, 50], [0, 0, 50, 50], [1, 0, 50, 50]), REF, "boxes", Limits(max_overlap=1))
    assert [str(row.status) for row in rows] == ["ok", "dropped", "ok"]
    assert len({row.region for row in rows if row.region}) == 2


def test_overlaps_that_remain_are_within_the_limit():
    rng = np.random.default_rng(0)
    proposals = boxes(*[[*rng.integers(0, 60, 2).tolist(), *rng.integers(5, 40, 2).tolist()] for _ in range(150)])
    rows = limited(proposals, REF, "boxes", Limits(max_overlap=0.3, max_regions=1000))
    good = [row.counts for row in rows if row.status == Status.OK]
    assert 10 < len(good) < 140
    for index, counts in enumerate(good):
        assert (overlap(counts, good[:index], 100, 100) <= 0.3).all()


def test_ten_thousand_regions_take_seconds_and_each_has_a_row():
    proposals = list(Grid(100, 100).propose(REF, None))  # a pixel each
    start = time.process_time()
    few = limited(proposals, REF, "grid", Limits(min_area=0))
    assert Counter(row.status for row in few) == {Status.OK: 64, Status.DROPPED: 9936}
    every = limited(proposals, REF, "grid", Limits(min_area=0, max_regions=10_000))
    assert Counter(row.status for row in every) == {Status.OK: 10_000}
    # Linear in the number of regions but for a few microseconds each; about 3 s here.
    assert time.process_time() - start < 15


@pytest.mark.parametrize("wrong", [{"min_area": 0.9, "max_area": 0.1}, {"max_overlap": 2}, {"max_regions": 0}])
def test_limits_out_of_range_are_refused(wrong: dict[str, Any]):
    with pytest.raises(PocketiqaError, match=r"fractions from 0 to 1|at least 1"):
        Limits(**wrong)


def test_every_image_has_rows_and_the_digest_follows_the_options(pool: Pool, tmp_path: Path):
    regions = build_regions(pool, Grid(), tmp_path / "grid")
    assert regions.manifest.content["status"] == {"corrupt": 1, "duplicate": 1, "ok": 48}
    assert (regions.manifest.content["regions"], regions.manifest.content["images"]) == (48, 4)
    assert {row.image for row in regions.rows()} == {ref.id for ref in pool}
    for ref in pool.ok():
        masks = np.stack([region.mask() for region in regions.regions_of(ref.id)])
        assert (masks.sum(0) == 1).all()
        assert masks.shape[1:] == (ref.height, ref.width)
    assert regions.regions_of("unknown") == []
    other = build_regions(pool, Grid(3, 3), tmp_path / "other", preview=0)
    assert other.digest != regions.digest
    assert not (tmp_path / "other" / "preview.png").exists()
    with pytest.raises(OutputConflictError, match=r"options\.columns: 4 -> 3"):
        build_regions(pool, Grid(3, 3), tmp_path / "grid")


def test_it_resumes_to_the_same_bytes_and_repairs_a_corrupt_shard(pool: Pool, tmp_path: Path):
    first = build_regions(pool, Slic(8), tmp_path / "first", shards=3, workers=2)
    second = build_regions(pool, Slic(8), tmp_path / "second", shards=3, workers=1)
    assert content(first.folder) == content(second.folder)
    before = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*") if path.is_file()}
    assert build_regions(pool, Slic(8), first.folder).digest == second.digest
    assert before == {path: path.stat().st_mtime_ns for path in first.folder.rglob("*") if path.is_file()}
    broken = second.folder / "shard-00001" / "regions.parquet"
    broken.write_bytes(broken.read_bytes()[:-1] + b"x")
    with pytest.raises(PocketiqaError, match="run the same regions command again"):
        list(RegionSet.open(second.folder).rows())
    told: list[str] = []
    build_regions(pool, Slic(8), second.folder, warn=told.append)
    assert told == ["shard 1 is made again: regions.parquet does not match its recorded SHA-256"]
    assert content(first.folder) == content(second.folder)


def test_a_manifest_in_a_bucket_is_that_of_a_disk(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POCKETIQA_CACHE", str(tmp_path / "cache"))
    local, out = build_regions(pool, Slic(8), tmp_path / "regions", shards=3), "memory://bucket/made/regions"
    made = build_regions(pool, Slic(8), out, shards=3, preview=2)
    assert made.digest == local.digest
    assert [row.counts for row in RegionSet.open(out).rows()] == [row.counts for row in local.rows()]
    assert (made.folder / "preview.png").read_bytes().startswith(b"\x89PNG")
    made.discard(1)
    assert build_regions(pool, Slic(8), out).digest == local.digest
    fsspec.filesystem("memory").rm("/bucket/made", recursive=True)


def remake(pool: str, out: str) -> None:
    """For processes that are killed."""
    build_regions(Pool.open(Path(pool)), Slic(12), Path(out), shards=4, preview=2)


def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(pool: Pool, tmp_path: Path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    arguments, unbroken = ([str(pool.folder), str(out)] for out in (broken, whole))
    name = "tests.pseudo_labels.regions.test_make:remake"
    kill_and_resume(name, arguments, unbroken_args=unbroken, kills=kills(20, short=2), seed=1)
    assert content(broken) == content(whole)
    assert RegionSet.open(broken).digest == RegionSet.open(whole).digest
    assert sorted(path.name for path in broken.iterdir()) == sorted(path.name for path in whole.iterdir())


def test_names_of_a_file_that_fit_no_image_are_noted(pool: Pool, tmp_path: Path):
    names = {"0-astronaut.png": [[0, 0, 30, 30]], "unknown.png": [[0, 0, 30, 30]]}
    (tmp_path / "boxes.json").write_text(json.dumps(names))
    told: list[str] = []
    regions = build_regions(pool, source_named("boxes", tmp_path / "boxes.json"), tmp_path / "out", warn=told.append)
    assert regions.manifest.content["regions"] == 1
    assert regions.manifest.notes["unmatched_images"] == ["unknown.png"]
    assert "1 records name no image" in told[0]
    assert sorted(path.name for path in regions.folder.iterdir() if path.is_file()) == ["manifest.json", "preview.png"]
    missing = [row for row in regions.rows() if row.reason == "the source gives no region"]
    assert len(missing) == 3


def test_a_table_that_is_corrupt_leaves_no_region_out_in_silence(pool: Pool, tmp_path: Path):
    (tmp_path / "boxes.json").write_text('[{"image": "0-astronaut.png", "box": [0, 0, 30, 30]}, {"ima')
    with pytest.raises(PocketiqaError, match=r"behind its first 1 record \("):
        build_regions(pool, source_named("boxes", tmp_path / "boxes.json"), tmp_path / "out")
    assert not RegionSet.open(tmp_path / "out").is_complete


@pytest.mark.parametrize(
    ("by", "file", "options", "words"),
    [
        ("circle", None, {}, "unknown source of regions 'circle': choose grid"),
        ("grid", "a.json", {}, "reads no file"),
        ("boxes", None, {}, "needs one file"),
        ("boxes:a.json", "b.json", {}, "needs one file"),
        ("grid:4", None, {}, "grid:4x3"),
        ("grid:axb", None, {}, "grid:4x3"),
        ("slic:-3", None, {}, "slic:50"),
        ("grid", None, {"rowz": 3}, "its options are: columns, rows"),
        ("bsds", "nowhere", {}, "is no folder"),
    ],
)
def test_sources_that_cannot_be_are_refused(by: str, file: str | None, options: dict[str, Any], words: str):
    with pytest.raises(PocketiqaError, match=words):
        source_named(by, file, options)


def test_the_preview_shows_outlines(pool: Pool, tmp_path: Path):
    regions = build_regions(pool, Grid(2, 1), tmp_path / "grid", preview=3)
    sheet = np.array(Image.open(regions.folder / "preview.png").convert("RGB")).astype(int)
    assert sheet.shape[1] == 3 * (320 + 8) + 8
    reds = (sheet[..., 0] > 200) & (sheet[..., 1] < 40) & (sheet[..., 2] < 40)
    assert reds.sum() > 3 * 320
    mask = np.zeros((5, 6), bool)
    mask[1:4, 1:5] = True
    assert outline(mask).sum() == 10
    assert outline(np.ones((4, 4), bool)).sum() == 12


def test_people_s_regions_of_bsds500_tile_their_photographs(tmp_path: Path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for path in sorted(shared_data("bsds500", "images").glob("*.jpg"))[:4]:
        (folder / path.name).write_bytes(path.read_bytes())
    pool = build_pool([str(folder)], tmp_path / "pool")
    source = source_named("bsds", shared_data("bsds500", "ground_truth"))
    regions = build_regions(pool, source, tmp_path / "regions", limits=Limits(0, 1, 1, 1000))
    assert set(regions.manifest.content["status"]) == {"ok"}
    for ref in pool:
        assert (np.stack([region.mask() for region in regions.regions_of(ref.id)]).sum(0) == 1).all()
