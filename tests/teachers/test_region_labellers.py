"""Who labels regions: values against the metric, the teacher and the pixels; answers that cannot be stored."""

import math
from pathlib import Path
from typing import Any

import pytest

from pseudo_labels.distort import build_synthetic_pool
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import Pool
from pseudo_labels.records import Status, confidence
from pseudo_labels.regions.masks import grown
from pseudo_labels.regions.store import RegionLabelStore, RegionSet
from teachers.base import RegionTeacher, check_teacher
from teachers.label import label
from teachers.reference import build_reference
from teachers.regions import label_regions
from teachers.registry import build_teacher
from tests.helpers.regions import BRIGHTNESS, METRICS, Brightness, region_folder

OWN = "tests.helpers.own_teacher:build"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return region_folder(tmp_path_factory.mktemp("regions"))


@pytest.fixture(scope="module")
def compared(folder: Path) -> RegionLabelStore:
    return label_regions(folder / "copies", folder / "regions", "reference", folder / "compared", options=METRICS)


def test_only_the_distorted_region_costs_quality_and_importance(folder: Path, compared: RegionLabelStore):
    pool, rows = Pool.open(folder / "copies"), list(compared.rows())
    assert len(rows) == 9 * 6
    for ref in pool:
        own = {row.region: row for row in rows if row.image == ref.id}
        assert len(own) == 6
        distorted = own.pop(ref.region) if ref.region else None
        assert {(row.quality, row.importance, row.type) for row in own.values()} == {(1.0, 0.0, "")}
        if distorted is not None:
            assert distorted.quality < 0.99
            assert distorted.importance > 0
            assert (distorted.type, distorted.severity) == (ref.distortion, pytest.approx(ref.level / 5))
            assert {row.severity for row in own.values()} == {0.0}
    assert max(row.importance for row in rows) == 1.0


def test_each_of_several_distorted_regions_has_its_own_label(folder: Path, tmp_path: Path):
    regions = RegionSet.open(folder / "regions")
    build_synthetic_pool(
        Pool.open(folder / "clean"), tmp_path / "several", per_image=1, names=["white_noise", "jpeg"], regions=regions,
        regions_per_copy=(3,),
    )  # fmt: skip
    store = label_regions(tmp_path / "several", folder / "regions", "reference", tmp_path / "labels", options=METRICS)
    pool, rows = Pool.open(tmp_path / "several"), list(store.rows())
    for ref in pool:
        done = {one.region: one for one in ref.distorted_regions}
        assert len(done) == (3 if ref.ref_id else 0)
        for row in rows:
            if row.image == ref.id and row.region in done:
                known = done[row.region]
                assert (row.type, row.severity) == (known.distortion, pytest.approx(known.level / 5))
                assert row.quality < 1
            elif row.image == ref.id:
                # Masked patches: a distorted neighbour costs nothing.
                assert (row.quality, row.type) == (1.0, "")


def test_labels_by_comparison_are_those_of_the_metric(folder: Path, compared: RegionLabelStore):
    """Computed again here, region by region, from the pixels and the metric alone."""
    pool, regions = Pool.open(folder / "copies"), RegionSet.open(folder / "regions")
    teacher = build_reference(**METRICS)
    measured = {}
    for ref in [ref for ref in pool if ref.region][:3]:
        image, clean = pool.load(ref), pool.load(pool.by_id(ref.ref_id))
        region = next(one for one in regions.regions_of(ref.ref_id) if one.region == ref.region)
        left, top, width, height = grown(region.box, *image.shape[:2], least=64)
        part = slice(top, top + height), slice(left, left + width)
        whole = teacher([teacher.preprocess(image, clean)]).score
        patch = teacher([teacher.preprocess(image[part].copy(), clean[part].copy())]).score
        measured[ref.id, ref.region] = (float(patch[0]), 1 - float(whole[0]))
    low, high = compared.manifest.content["importance_range"]
    for row in compared.rows():
        if (row.image, row.region) in measured:
            quality, importance = measured.pop((row.image, row.region))
            assert row.quality == pytest.approx(quality, abs=1e-6)
            assert row.importance == pytest.approx((importance - low) / (high - low), abs=1e-5)
    assert not measured


def test_boxes_show_distorted_neighbours_and_masks_do_not(folder: Path, tmp_path: Path):
    stores = {
        patch: label_regions(
            folder / "copies", folder / "regions", "reference", tmp_path / patch, options=METRICS, patch=patch
        )
        for patch in ("box", "masked")
    }
    refs = {ref.id: ref for ref in Pool.open(folder / "copies")}
    neighbours = {
        patch: [row.quality for row in store.rows() if refs[row.image].region not in ("", row.region)]
        for patch, store in stores.items()
    }
    assert set(neighbours["masked"]) == {1.0}
    assert min(neighbours["box"]) < 0.99
    whole = label_regions(folder / "whole", folder / "regions", "reference", tmp_path / "whole", options=METRICS)
    copies = {ref.id for ref in Pool.open(folder / "whole") if ref.ref_id}
    rows = [row for row in whole.rows() if row.image in copies]
    assert all(row.type and row.severity > 0 for row in rows)
    with pytest.raises(PocketiqaError, match=r"preprocessing\.patch: 'box' -> 'masked'"):
        label_regions(
            folder / "copies", folder / "regions", "reference", tmp_path / "box", options=METRICS, patch="masked"
        )


def test_crops_are_scored_as_the_teacher_scores_them(folder: Path, tmp_path: Path):
    store = label_regions(folder / "clean", folder / "regions", f"crop:{OWN}", tmp_path / "crops", batch_size=3)
    pool, regions, teacher = Pool.open(folder / "clean"), RegionSet.open(folder / "regions"), build_teacher(OWN)
    rows = list(store.rows())
    assert len(rows) == 18
    for row in rows:
        region = next(one for one in regions.regions_of(row.image) if one.region == row.region)
        left, top, width, height = grown(region.box, region.height, region.width, least=64)
        crop = pool.load(pool.by_id(row.image))[top : top + height, left : left + width]
        expected = float(teacher([teacher.preprocess(crop, None)]).score[0])
        assert row.quality == pytest.approx(expected, abs=1e-6)
        assert row.confidence == pytest.approx(confidence(0.1))
    assert all(math.isnan(row.importance) for row in rows)
    assert store.manifest.content["importance_range"] is None


def test_a_teacher_of_regions_gives_all_columns_and_reasons(folder: Path, tmp_path: Path):
    store = label_regions(
        folder / "clean", folder / "regions", BRIGHTNESS, tmp_path / "out", max_failed_fraction=0.9, options={}
    )
    regions, rows = RegionSet.open(folder / "regions"), list(store.rows())
    pool = Pool.open(folder / "clean")
    for ref in pool:
        image, own = pool.load(ref), [row for row in rows if row.image == ref.id]
        masks = [region.mask() for region in regions.regions_of(ref.id)]
        assert [row.quality for row in own[:-1]] == pytest.approx([image[mask].mean() / 255 for mask in masks[:-1]])
        assert [row.importance for row in own[:-1]] == pytest.approx([mask.mean() for mask in masks[:-1]])
        assert [row.type for row in own[:-1]] == ["dark", "", "", "", ""]
        assert (own[-1].status, own[-1].reason) == (Status.FAILED, "no level word in the answer 'hm'")
    assert store.manifest.content["status"] == {"failed": 3, "ok": 15}
    assert isinstance(Brightness(), RegionTeacher)
    assert check_teacher(Brightness(), "own") is not None
    with pytest.raises(PocketiqaError, match="use pocketiqa label-regions"):
        label(folder / "clean", BRIGHTNESS, tmp_path / "images")
    with pytest.raises(PocketiqaError, match="leave 'crop:' out"):
        label_regions(folder / "clean", folder / "regions", f"crop:{BRIGHTNESS}", tmp_path / "crops")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"answers": 2}, "gave 2 answers for 6 regions"),
        ({"scale": 100.0}, r"map its scale in the teacher"),
    ],
)
def test_answers_that_cannot_be_stored_end_the_work(folder: Path, tmp_path: Path, options: dict[str, Any], words: str):
    with pytest.raises(PocketiqaError, match=words):
        label_regions(folder / "clean", folder / "regions", BRIGHTNESS, tmp_path / "out", options=options)


@pytest.mark.parametrize(
    ("options", "words"), [({"limit_px": 100}, "too wide for me"), ({"memory": False}, "out of memory with 6 regions")]
)
def test_an_image_that_fails_gives_a_row_for_each_region(
    folder: Path, tmp_path: Path, options: dict[str, Any], words: str
):
    run = {"options": options, "max_failed_fraction": 1.0}
    store = label_regions(folder / "clean", folder / "regions", BRIGHTNESS, tmp_path / "out", **run)
    failed = [row.reason for row in store.rows() if words in row.reason]
    assert len(failed) >= 6
    run["max_failed_fraction"] = 0.1
    with pytest.raises(PocketiqaError, match="of 18 regions got no label"):
        label_regions(folder / "clean", folder / "regions", BRIGHTNESS, tmp_path / "again", **run)
