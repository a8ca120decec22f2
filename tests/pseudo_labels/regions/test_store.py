"""Rows of regions and of their labels: what comes back, what is refused, importance on the scale of the pool."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pseudo_labels.errors import IntegrityError, PocketiqaError
from pseudo_labels.records import Status
from pseudo_labels.regions.masks import encode
from pseudo_labels.regions.store import Region, RegionLabel, RegionLabelStore, RegionSet, region_id

COUNTS = encode(np.eye(6, 8, dtype=bool))
REGION = Region("a", region_id(COUNTS, 6, 8), height=6, width=8, counts=COUNTS, box_width=6, box_height=6, area=0.125)
ROWS = [
    replace(REGION, quality=0.5, distortion="blur", source="table", level="part"),
    Region("a", status=Status.EMPTY, reason="the mask has no pixel", source="a\udce9b"),
    Region("b", status=Status.MISSING, reason="no such file"),
]


def stored(folder: Path, rows: list[Region]) -> RegionSet:
    store = RegionSet.claim(folder, {"rows": 2, "shards": 2}, pool_path=folder.parent / "pool")
    store.write_rows(0, [row for row in rows if row.image == "a"])
    store.write_rows(1, [row for row in rows if row.image == "b"])
    store.finish()
    return store


def labelled(folder: Path, importances: list[float], *, scaled: bool = True) -> RegionLabelStore:
    spec = {"rows": len(importances), "shards": 2, "teacher": {"name": "t"}, "scale_importance": scaled}
    store = RegionLabelStore.claim(folder, spec, pool_path=folder.parent / "pool")
    for index in range(2):
        rows = [
            RegionLabel(f"i{row}", "r", quality=0.5, importance=importances[row], importance_std=0.1)
            for row in store.shard_rows(index)
        ]
        store.write_rows(index, rows)
    store.finish()
    return store


def test_regions_come_back_as_they_were_written(tmp_path: Path):
    stored(tmp_path / "regions", ROWS)
    regions = RegionSet.open(tmp_path / "regions")
    first, second, third = regions.rows()
    assert (first.quality, first.distortion, first.level, first.box) == (0.5, "blur", "part", (0, 0, 6, 6))
    assert math.isnan(first.importance)
    assert np.array_equal(first.mask(), np.eye(6, 8, dtype=bool))
    assert (second.status, second.source) == (Status.EMPTY, "a\\udce9b")
    assert third == replace(ROWS[2], quality=third.quality, importance=third.importance, severity=third.severity)
    assert [row.status for row in regions.of_image("a")] == ["ok", "empty"]
    assert [row.region for row in regions.regions_of("a")] == [REGION.region]
    assert regions.regions_of("b") == regions.of_image("c") == []
    assert regions.manifest.content["status"] == {"empty": 1, "missing": 1, "ok": 1}
    assert regions.stats(0)["area"] == {"mean": 0.0625, "min": 0.0, "max": 0.125, "n": 2}


def test_the_id_of_a_region_follows_from_its_pixels_and_the_size(tmp_path: Path):
    assert region_id(COUNTS, 6, 8) != region_id(COUNTS, 8, 6)
    assert len(region_id(COUNTS, 6, 8)) == 16


@pytest.mark.parametrize(
    "wrong",
    [
        {"quality": 1.5},
        {"importance": -0.1},
        {"severity": math.inf},
        {"status": Status.EMPTY},
        {"reason": "ok rows have none"},
    ],
)
def test_rows_that_contradict_themselves_are_refused(tmp_path: Path, wrong: dict[str, Any]):
    store = RegionSet.claim(tmp_path / "regions", {"rows": 1, "shards": 1}, pool_path=tmp_path)
    with pytest.raises(PocketiqaError, match=f"region {REGION.region} of image a"):
        store.write_rows(0, [replace(REGION, **wrong)])
    assert store.missing() == [0]


@pytest.mark.parametrize(
    "wrong",
    [{}, {"quality": 0.5, "quality_std": -1.0}, {"quality": 0.5, "severity_std": math.inf}, {"confidence": 2.0}],
)
def test_labels_that_contradict_themselves_are_refused(tmp_path: Path, wrong: dict[str, Any]):
    spec = {"rows": 1, "shards": 1, "teacher": {}}
    store = RegionLabelStore.claim(tmp_path / "labels", spec, pool_path=tmp_path)
    with pytest.raises(PocketiqaError, match="region r of image a"):
        store.write_rows(0, [RegionLabel("a", "r", **wrong)])


def test_importance_by_comparison_is_read_on_the_scale_of_the_pool(tmp_path: Path):
    measured = [0.0, 0.02, 0.08, 0.04, math.nan]
    store = labelled(tmp_path / "labels", measured)
    rows = list(RegionLabelStore.open(store.folder).rows())
    assert [row.importance for row in rows] == pytest.approx([0, 0.25, 1, 0.5, math.nan], nan_ok=True)
    assert rows[1].importance_std == pytest.approx(0.1 / 0.08)
    assert store.manifest.content["importance_range"] == pytest.approx([0, 0.08])
    assert store.manifest.content["labelled"] == 5
    before = store.digest
    assert store.finish().digest == before  # what was scaled is not measured again


def test_importance_on_a_scale_of_its_own_is_left_alone(tmp_path: Path):
    for folder, scaled, values in (("own", False, [0.2, 0.4, 0.6]), ("flat", True, [0.3, 0.3, 0.3])):
        rows = list(labelled(tmp_path / folder, values, scaled=scaled).rows())
        assert [row.importance for row in rows] == pytest.approx(values)


def test_an_altered_shard_is_refused(tmp_path: Path):
    store = labelled(tmp_path / "labels", [0.1, 0.2, 0.3])
    path = store.shard_folder(1) / "labels.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match="run the same label-regions command again"):
        list(RegionLabelStore.open(store.folder).rows())
    with pytest.raises(PocketiqaError, match="'region-labels', but 'regions' is needed"):
        RegionSet.open(store.folder)
