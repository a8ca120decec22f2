"""Regions and their labels, audited: against the rows themselves, and with shards that were altered or are missing."""

from pathlib import Path

import numpy as np
import pytest

from pseudo_labels.audit.regions import audit_regions
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.regions.store import RegionLabelStore
from tests.pseudo_labels.audit.region_stores import labels_in, regions_in


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> RegionLabelStore:
    return labels_in(tmp_path_factory.mktemp("labels") / "labels")


def test_an_audit_of_labels_counts_what_the_rows_hold(labels: RegionLabelStore):
    report = audit_regions(labels.folder)
    rows = list(labels.rows())
    good = [row for row in rows if row.status == "ok"]
    assert report.ok
    assert (report.kind, report.images, report.shards, report.regions) == ("region-labels", 8, 4, len(good))
    assert {status: one["count"] for status, one in report.coverage.items()} == {"failed": 4, "missing": 1, "ok": 17}
    (reason,) = report.coverage["failed"]["reasons"]
    assert (reason["count"], reason["reason"]) == (4, "the answer 0 has no level word")
    values = np.array([row.quality for row in good])
    assert report.numbers["quality"]["mean"] == pytest.approx(values.mean())
    assert report.numbers["quality"]["median"] == pytest.approx(np.median(values))
    assert report.histograms["quality"]["counts"] == np.histogram(values, 20, (0, 1))[0].tolist()
    assert "importance" not in report.numbers
    assert report.per_image == {"n": 7, "mean": pytest.approx(17 / 7), "min": 2, "max": 3}
    blur = [row.quality for row in good if row.type == "blur"]
    assert report.by_type["blur"] == {"n": len(blur), "quality": pytest.approx(np.mean(blur))}
    assert report.names == {"type": {"blur": 10, "noise": 7}}
    assert report.warnings == []
    assert report.as_dict()["made_by"]["teacher"]["name"] == "judge <b>"


def test_an_audit_of_a_manifest_says_from_where_and_how_large(tmp_path: Path):
    report = audit_regions(regions_in(tmp_path / "regions").folder)
    assert report.ok
    assert report.made_by == {"source": "boxes", "options": {"high": 5}, "limits": {"min_area": 0.1}}
    assert report.numbers["area"] == {
        "n": 2, "distinct": 2, "mean": 0.3125, "std": 0.1875, "min": 0.125, "max": 0.5, "median": 0.3125,
    }  # fmt: skip
    assert report.names == {"source": {"boxes": 2}, "level": {"part": 2}, "distortion": {"blur": 1}}
    assert report.coverage["dropped"]["count"] == 1


def test_altered_and_missing_shards_are_faults(tmp_path: Path):
    store = labels_in(tmp_path / "labels")
    file = store.shard_folder(1) / "labels.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    report = audit_regions(store.folder)
    assert not report.ok
    assert [fault.index for fault in report.faults] == [1]
    assert "run the same label-regions command again, it makes them anew" in report.warnings[0]
    # The others are counted still.
    assert report.regions == 17 - sum(row.status == "ok" for row in labels_in(tmp_path / "b").shard_rows_of(1))
    store.discard(1)
    report = audit_regions(store.folder)
    assert (report.ok, report.missing, report.finished) == (False, [1], False)


def test_what_stands_out_is_said(tmp_path: Path):
    report = audit_regions(labels_in(tmp_path / "labels", constant=True).folder)
    assert report.ok
    assert report.warnings[0].startswith("the teacher is constant: 17 scores")
    unfinished = audit_regions(labels_in(tmp_path / "unfinished", finish=False).folder)
    assert unfinished.warnings == ["the store is not finished: run the same label-regions command again"]


def test_another_folder_is_refused(tmp_path: Path):
    with pytest.raises(PocketiqaError, match="manifest"):
        audit_regions(tmp_path)
