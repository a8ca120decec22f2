import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.data.regions import RegionReader, RegionTable, Shown, distortion_in, region_targets
from distill.training.student import region_map_size
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import Pool
from pseudo_labels.regions.masks import Cells, cell_overlap, inner_of
from pseudo_labels.regions.store import RegionLabelStore, RegionSet
from students.regions import cells_of
from teachers.regions import label_regions
from tests.helpers.regions import METRICS, region_folder
from tests.helpers.tiny_students import TINY


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = region_folder(tmp_path_factory.mktemp("regions"))
    label_regions(made / "copies", made / "regions", "reference", made / "labels", options=METRICS)
    return made


@pytest.fixture
def pool(folder: Path) -> Pool:
    return Pool.open(folder / "copies")


@pytest.fixture
def table(folder: Path, pool: Pool) -> RegionTable:
    return RegionTable.open(pool, folder / "regions", folder / "labels")


def test_a_table_has_the_masks_and_labels_of_every_image(table: RegionTable, pool: Pool, folder: Path):
    stored = {(row.image, row.region): row for row in RegionLabelStore.open(folder / "labels").rows()}
    masks = {row.region: row.mask() for row in RegionSet.open(folder / "regions").rows()}
    assert table.rows == list(range(len(pool)))
    for row in table.rows:
        regions = table.at(row)
        assert regions is not None
        assert regions.distorted == pool[row].region
        assert len(regions.names) == 6
        for number, (name, mask) in enumerate(zip(regions.names, regions.masks(), strict=True)):
            label = stored[pool[row].id, name]
            assert (regions.quality[number], regions.importance[number]) == pytest.approx(
                (label.quality, label.importance), rel=1e-6
            )
            assert np.array_equal(mask, masks[name])


def test_labels_of_another_pool_or_other_regions_are_refused(folder: Path, pool: Pool):
    regions, labels = RegionSet.open(folder / "regions"), RegionLabelStore.open(folder / "labels")
    with pytest.raises(PocketiqaError, match=r"not of the pool in .*whole: make them with pocketiqa label-regions"):
        RegionTable(Pool.open(folder / "whole"), regions, labels)
    labels.manifest = replace(labels.manifest, spec=json.loads(json.dumps(labels.manifest.spec)) | {"regions": "other"})
    with pytest.raises(PocketiqaError, match="not of the regions in"):
        RegionTable(pool, regions, labels)


def test_a_whole_image_is_pooled_as_the_runtime_pools_it():
    mask = np.random.default_rng(0).random((37, 53)) > 0.5
    shown = Shown((3, 4), 8, resized=(20, 29), crop=(0, 0, 29, 20))
    assert shown.whole()
    # The last cells reach beyond the image: of them, the part that shows it counts.
    parts = np.outer([1, 1, 0.5], [1, 1, 1, 0.625])
    assert shown.pooled(mask) == pytest.approx(cell_overlap(mask, 3, 4, resized=(20, 29), stride=8) / parts, abs=1e-6)
    assert shown.inside().all()


@pytest.mark.parametrize("flip", [False, True])
def test_masks_are_cropped_and_mirrored_as_pixels_are(flip: bool):
    # The image keeps its size, so that the mask can be cut as an image is.
    mask = np.random.default_rng(1).random((40, 60)) > 0.6
    left, top, width, height = 7, 5, 33, 24
    cut = mask[top : top + height, left : left + width]
    cut = cut[:, ::-1] if flip else cut
    # Filled up to 40x48 as a batch is; what is filled up is no region.
    canvas, image = np.zeros((40, 48)), np.zeros((40, 48))
    canvas[:height, :width], image[:height, :width] = cut, 1
    parts = [whole.reshape(5, 8, 6, 8).mean((1, 3)) for whole in (canvas, image)]
    shown = Shown((5, 6), 8, resized=(40, 60), crop=(left, top, width, height), flip=flip)
    assert shown.pooled(mask) == pytest.approx(parts[0] / np.maximum(parts[1], 1e-9), abs=1e-6)
    assert np.array_equal(shown.inside(), parts[1] > 0)
    assert not shown.inside()[3:].any()
    assert not shown.whole()


def test_a_crop_of_a_resized_image_cuts_through_pixels_of_the_mask():
    # 6 columns shrunk to 4: each resized pixel is one and a half wide; the crop begins at the second.
    mask = np.zeros((6, 6), bool)
    mask[:, 2] = True
    shown = Shown((1, 1), 2, resized=(4, 4), crop=(1, 0, 2, 2))
    # It shows columns 1.5 to 4.5, and one of three columns is inside.
    assert shown.pooled(mask) == pytest.approx(np.array([[1 / 3]]))
    with pytest.raises(PocketiqaError, match="lies outside the resized image"):
        Cells((6, 6), (1, 1), resized=(4, 4), stride=2, crop=(3, 0, 2, 2))


def whole(map_size: tuple[int, int] = (6, 8)) -> Shown:
    return Shown(map_size, 16, resized=(96, 128), crop=(0, 0, 128, 96))


def test_batches_have_labels_and_confidences_of_mean_one(table: RegionTable, pool: Pool):
    reader = RegionReader([None, table], [(1, row) for row in table.rows])
    copies = [row for row in table.rows if pool[row].region]
    batch = reader.read([(0, 0, whole()), (1, copies[0], whole()), (1, copies[1], whole())])
    first = table.at(copies[0])
    assert first is not None
    assert batch.image.tolist() == [1] * 6 + [2] * 6  # an image of a source without regions has none
    assert batch.quality[:6] == pytest.approx(first.quality)
    assert batch.importance[:6] == pytest.approx(first.importance)
    assert batch.weight == pytest.approx(np.ones(12))
    assert batch.importance_weight == pytest.approx(np.ones(12))
    assert batch.inside == pytest.approx(np.ones((3, 6, 8)))
    # A grid: its regions fill the picture.
    assert batch.overlap[:6].sum(0) == pytest.approx(np.ones((6, 8)), abs=1e-6)
    assert reader.read([(0, 0, whole())]).overlap.shape == (0, 6, 8)


def test_clean_images_and_crops_say_nothing_on_importance(table: RegionTable, pool: Pool):
    reader = RegionReader([table], [(0, row) for row in table.rows])
    clean = next(row for row in table.rows if not pool[row].ref_id)
    copy = next(row for row in table.rows if pool[row].ref_id)
    assert not reader.read([(0, clean, whole())]).importance_weight.any()
    crop = replace(whole((3, 4)), crop=(0, 0, 64, 48))
    batch = reader.read([(0, copy, crop)])
    assert not batch.importance_weight.any()
    # 3 columns of 42 or 43 pixels and 2 rows of 48: the crop shows one region whole and half of the next.
    assert batch.weight == pytest.approx([1, 0.5, 0, 0, 0, 0], abs=0.03)


def test_training_without_any_region_is_refused(table: RegionTable):
    with pytest.raises(PocketiqaError, match="name regions and region_labels"):
        RegionReader([None, table], [(0, 0)])


def test_targets_for_the_evaluation(table: RegionTable, pool: Pool):
    copy = next(row for row in table.rows if pool[row].ref_id)
    targets = region_targets(table, pool, [copy])
    assert targets.picture == [pool[copy].id] * 6
    assert set(targets.scene) == {pool[copy].group}
    assert targets.distorted.sum() == 1
    assert targets.quality[targets.distorted] < 1
    with pytest.raises(PocketiqaError, match="nothing to evaluate on"):
        region_targets(table, pool, [])


@pytest.mark.parametrize("pad_type", ["", "same"])
@pytest.mark.parametrize("size", [(96, 128), (72, 104), (65, 99)])
def test_training_and_runtime_agree_on_sides_that_the_stride_does_not_divide(pad_type: str, size: tuple[int, int]):
    config = replace(TINY, pad_type=pad_type)
    shape = region_map_size(config, size)
    assert shape[0] in (size[0] // 16, -(-size[0] // 16))
    shown = Shown(shape, 16, resized=size, crop=(0, 0, size[1], size[0]))
    cells = cells_of((40, 60), shape, size, 16)
    generator = np.random.default_rng(2)
    tiles = generator.integers(0, 3, (40, 60))
    pooled = [shown.pooled(tiles == number) for number in range(3)]
    for number, ours in enumerate(pooled):
        assert cells.fractions(*inner_of(tiles == number)) == pytest.approx(ours, abs=1e-6)
    # Every cell shows some of the image, and all of it lies in one of the regions: also what is left over at the ends.
    assert sum(pooled) == pytest.approx(np.ones(shape), abs=1e-5)
    edge = np.zeros((40, 60), bool)
    edge[-1, -1] = True
    assert shown.pooled(edge)[-1, -1] > 0


def test_of_several_distorted_regions_none_is_pointed_at(pool: Pool, table: RegionTable):
    row = next(row for row in table.rows if pool[row].ref_id)
    regions = table.at(row)
    assert regions is not None
    assert distortion_in(pool[row], regions.distorted) == (pool[row].distortion, pool[row].level)
    assert distortion_in(pool[row], "other") == ("", 0.0)
    several = replace(pool[row], region="a+b", distortion="jpeg:1.50+darken:2.00", level=2.0)
    assert [distortion_in(several, name) for name in ("a", "b", "c")] == [("jpeg", 1.5), ("darken", 2.0), ("", 0.0)]
    whole = replace(pool[row], region="", distortion="jpeg", level=3.0)
    assert distortion_in(whole, "any") == ("jpeg", 3.0)
