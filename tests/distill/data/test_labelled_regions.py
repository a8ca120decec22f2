"""Labelled regions as a teacher learns them: every label of the store in SEAGULL's words, with its mask."""

import math
from dataclasses import replace

import numpy as np
import pytest

from distill.data.examples import LabelTable, Source
from distill.data.labelled_regions import labels_of, region_examples
from distill.data.regions import RegionTable
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import Pool
from pseudo_labels.regions.store import RegionLabelStore
from teachers.regions import label_regions
from teachers.seagull.tuning import instructions
from tests.helpers.regions import METRICS, region_folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Copies that are distorted in one of six regions, labelled by comparison."""
    folder = region_folder(tmp_path_factory.mktemp("regions"))
    label_regions(folder / "copies", folder / "regions", "reference", folder / "labels", options=METRICS)
    pool = Pool.open(folder / "copies")
    table = RegionTable.open(pool, folder / "regions", folder / "labels")
    return Source("copies", pool, LabelTable([], []), regions=table)


def test_every_label_becomes_an_example(source: Source):
    examples = region_examples([source])
    stored = {
        (row.image, row.region): row for row in RegionLabelStore.open(source.pool.folder.parent / "labels").rows()
    }
    assert len(examples.regions) == len(stored) == 9 * 6
    for region in examples.regions:
        ref, row = source.pool.by_id(region.image), stored[region.image, region.name]
        assert region.labels.quality == pytest.approx(row.quality)
        assert region.labels.importance == pytest.approx(row.importance)
        assert region.mask().shape == (ref.height, ref.width) == examples.pixels(region.image).shape[:2]
        expected = {"gaussian_blur": "blur", "white_noise": "noise", "jpeg": "compression", "": "none"}[row.type]
        assert region.labels.type == expected
        # Of an untouched region nothing is severe, not even mildly.
        assert math.isnan(region.labels.severity) == (expected == "none")
        asked = {pair.grade for pair in instructions(region.labels)}
        assert ("severity" in asked) == (expected != "none")
    # A copy and its clean original are one scene.
    scenes = {region.image: region.group for region in examples.regions}
    assert len(set(scenes.values())) == 3
    assert all(scenes[ref.id] == scenes[ref.ref_id] for ref in source.pool if ref.ref_id)
    assert np.array_equal(examples.pixels(examples.regions[0].image), source.pool.load(source.pool[0]))


def test_the_digest_is_of_the_labels(source: Source):
    one, again = region_examples([source]), region_examples([source])
    assert one.digest == again.digest
    changed = replace(one, regions=[replace(one.regions[0], name="other"), *one.regions[1:]])
    assert changed.digest != one.digest
    # The same image twice, as two teachers may have labelled it: all of its labels.
    both = region_examples([source, replace(source, name="second")])
    assert len(both.regions) == 2 * len(one.regions)
    assert [about["name"] for about in both.about["sources"]] == ["copies", "second"]


def test_what_is_not_known_stays_unknown(source: Source):
    table = source.regions
    assert table is not None
    regions = table.at(0)
    assert regions is not None
    unknown = np.full(len(regions.names), np.nan, np.float32)
    bare = replace(regions, severity=unknown, types=("pixelate",) * len(regions.names), importance=unknown)
    labels = labels_of(bare, 0)
    assert labels.type == ""  # SEAGULL has no word for it
    assert math.isnan(labels.severity)
    assert instructions(labels)[0].grade == "quality"
    assert not any(pair.grade == "importance" for pair in instructions(labels))


def test_sources_without_labels_of_regions_are_refused(source: Source):
    with pytest.raises(
        PocketiqaError, match="source plain has no labels of regions: give pool, regions and region_lab"
    ):
        region_examples([source, replace(source, name="plain", regions=None)])
    with pytest.raises(PocketiqaError, match=r"source \(none\) has no labels"):
        region_examples([])
