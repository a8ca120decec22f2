"""Distortions inside one region: nothing outside changes, links, chance, feathered edges, images without regions."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pseudo_labels import outputs
from pseudo_labels.distort import CATALOGUE, build_synthetic_pool, distort
from pseudo_labels.distort.maker import RegionMask, deal_regions
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import Pool
from pseudo_labels.records import Status
from pseudo_labels.regions.make import Limits, build_regions
from pseudo_labels.regions.masks import encode
from pseudo_labels.regions.sources import Grid
from pseudo_labels.regions.store import RegionSet
from tests.helpers.pools import clean_pool


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return clean_pool(tmp_path_factory.mktemp("regions"), images=3, max_side=80)


@pytest.fixture(scope="module")
def regions(pool: Pool) -> RegionSet:
    return build_regions(pool, Grid(3, 2), pool.folder.parent / "grid", preview=0)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.p*") if path.is_file()}


def test_all_distortions_stay_inside_the_region_that_the_row_names(pool: Pool, regions: RegionSet, tmp_path: Path):
    per_image = len(CATALOGUE)
    made = build_synthetic_pool(pool, tmp_path / "out", per_image=per_image, names=["all"], regions=regions)
    copies = [ref for ref in made if ref.ref_id]
    assert {ref.distortion for ref in copies} == set(CATALOGUE)
    changed = 0
    for ref in copies:
        own = {region.region: region for region in regions.regions_of(ref.ref_id)}
        if ref.status == Status.DUPLICATE:
            continue
        mask, clean, image = own[ref.region].mask(), pool.load(pool.by_id(ref.ref_id)), made.load(ref)
        differs = (image != clean).any(2)
        assert not differs[~mask].any(), ref.distortion
        whole = distort(clean, ref.distortion, ref.level, seed=0, image_id=ref.ref_id)
        assert np.array_equal(image[mask], whole[mask])
        changed += differs.any()
    assert changed > 0.9 * len(copies)
    # Each region has its turn before one comes again.
    for image in pool.ok():
        dealt = Counter(ref.region for ref in copies if ref.ref_id == image.id)
        assert len(dealt) == 6
        assert max(dealt.values()) - min(dealt.values()) <= 1


def test_seed_and_id_decide_and_a_second_run_changes_nothing(pool: Pool, regions: RegionSet, tmp_path: Path):
    for name, seed, workers in (("one", 1, 1), ("same", 1, 2), ("other", 2, 1)):
        build_synthetic_pool(
            pool, tmp_path / name, per_image=3, names=["jpeg", "darken"], seed=seed, regions=regions, feather_px=3,
            workers=workers,
        )  # fmt: skip
    one, same, other = (content(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same
    assert one.keys() != other.keys()
    links = [(ref.ref_id, ref.region, ref.distortion, ref.level) for ref in Pool.open(tmp_path / "one")]
    (tmp_path / "one" / "pool.parquet").unlink()
    manifest = outputs.read_manifest(tmp_path / "one")
    outputs.write_manifest(tmp_path / "one", replace(manifest, complete=False))
    again = build_synthetic_pool(
        pool, tmp_path / "one", per_image=3, names=["jpeg", "darken"], seed=1, regions=regions, feather_px=3
    )
    assert [(ref.ref_id, ref.region, ref.distortion, ref.level) for ref in again] == links
    assert content(tmp_path / "one") == same
    settings = {"regions": regions.digest, "feather_px": 3.0}
    assert settings.items() <= again.manifest.spec.items()


def test_the_order_of_regions_has_no_influence():
    masks = [RegionMask(f"{number}", 4, 4, "") for number in range(5)]
    dealt = deal_regions("image", masks, [1] * 12, 3)
    assert deal_regions("image", masks[::-1], [1] * 12, 3) == dealt
    assert deal_regions("image", masks, [1] * 12, 4) != dealt != deal_regions("other", masks, [1] * 12, 3)
    names = [own[0].region for own in dealt]
    assert Counter(map(len, (set(names[:5]), set(names[5:10])))) == {5: 2}
    several = [[one.region for one in own] for own in deal_regions("image", masks, [3, 1, 3, 9], 3)]
    assert [len(set(own)) for own in several] == [len(own) for own in several] == [3, 1, 3, 5]
    # The same deck: the first five regions are all different.
    assert len({*several[0], *several[1], several[2][0]}) == 5


def test_several_regions_of_a_copy_are_distorted_each_by_its_own(pool: Pool, regions: RegionSet, tmp_path: Path):
    options = {"per_image": 4, "names": ["jpeg", "darken", "white_noise"], "regions": regions}
    made = build_synthetic_pool(pool, tmp_path / "out", regions_per_copy=(1, 3), feather_px=2, **options)
    copies = [ref for ref in made if ref.ref_id]
    assert [len(ref.distorted_regions) for ref in copies] == [1, 3, 1, 3] * 3
    for ref in copies:
        own = {region.region: region for region in regions.regions_of(ref.ref_id)}
        clean, image = pool.load(pool.by_id(ref.ref_id)), made.load(ref)
        expected = clean
        for done in ref.distorted_regions:
            whole = distort(clean, done.distortion, done.level, seed=0, image_id=ref.ref_id)
            region = own[done.region]
            mask = RegionMask(region.region, region.height, region.width, region.counts)
            inside = mask.blended(clean, whole, 2)
            expected = np.where(region.mask()[..., None], inside, expected)
        assert np.array_equal(image, expected), ref.distortion
        assert ref.level == max(done.level for done in ref.distorted_regions)
    assert made.manifest.spec["regions_per_copy"] == [1, 3]
    # One region each is what it was before this could be chosen.
    plain = build_synthetic_pool(pool, tmp_path / "plain", **options)
    named = build_synthetic_pool(pool, tmp_path / "named", regions_per_copy=(1,), **options)
    assert plain.digest == named.digest
    assert "regions_per_copy" not in plain.manifest.spec


def test_an_image_with_fewer_regions_is_distorted_in_all(pool: Pool, regions: RegionSet, tmp_path: Path):
    made = build_synthetic_pool(
        pool, tmp_path / "out", per_image=2, names=["jpeg"], regions=regions, regions_per_copy=(9,)
    )
    assert {len({one.region for one in ref.distorted_regions}) for ref in made if ref.ref_id} == {6}


def test_a_feathered_edge_grows_inside_and_leaves_the_outside():
    mask = np.zeros((30, 40), bool)
    mask[5:25, 0:20] = True
    clean, distorted = np.zeros((30, 40, 3), np.uint8), np.full((30, 40, 3), 200, np.uint8)
    blended = RegionMask("r", 30, 40, encode(mask)).blended(clean, distorted, 4)
    assert not blended[~mask].any()
    # Rows from the upper edge: 1, 2, 3 and 4 pixels from the first one outside; the image's own edge is none.
    assert blended[5:10, 2, 0].tolist() == [50, 100, 150, 200, 200]
    assert blended[15, 0:20, 0].tolist() == [200] * 17 + [150, 100, 50]
    sharp = RegionMask("r", 30, 40, encode(mask)).blended(clean, distorted, 0)
    assert np.array_equal(sharp, np.where(mask[..., None], distorted, clean))
    whole = RegionMask("r", 30, 40, encode(np.ones((30, 40), bool))).blended(clean, distorted, 4)
    assert np.array_equal(whole, distorted)


def test_copies_of_an_image_without_regions_are_rows_that_say_so(pool: Pool, tmp_path: Path):
    none = build_regions(pool, Grid(1, 1), tmp_path / "none", limits=Limits(max_area=0.5), preview=0)
    made = build_synthetic_pool(pool, tmp_path / "out", per_image=2, names=["jpeg"], regions=none)
    assert [ref.status for ref in made] == [Status.OK, Status.DROPPED, Status.DROPPED] * 3
    assert made[1].reason == "not made: the clean image has no region"
    assert (made[1].ref_id, made[1].distortion, made[1].region) == (made[0].id, "jpeg", "")


def test_what_does_not_fit_together_is_refused(pool: Pool, regions: RegionSet, tmp_path: Path):
    other = clean_pool(tmp_path / "other", images=1, max_side=80)
    with pytest.raises(PocketiqaError, match="are not those of the pool"):
        build_synthetic_pool(other, tmp_path / "out", per_image=1, regions=regions)
    with pytest.raises(PocketiqaError, match="max_side 64 would not fit the masks"):
        build_synthetic_pool(pool, tmp_path / "out", per_image=1, max_side=64, regions=regions)
    with pytest.raises(PocketiqaError, match="there are no regions"):
        build_synthetic_pool(pool, tmp_path / "out", per_image=1, feather_px=2)
    with pytest.raises(PocketiqaError, match=r"regions_per_copy is \[2\], but there are no regions"):
        build_synthetic_pool(pool, tmp_path / "out", per_image=1, regions_per_copy=(2,))
    for counts in ((), (0,), (1, 101)):
        with pytest.raises(PocketiqaError, match="whole numbers from 1 to 100"):
            build_synthetic_pool(pool, tmp_path / "out", per_image=1, regions=regions, regions_per_copy=counts)
    for wrong in (-1, float("nan")):
        with pytest.raises(PocketiqaError, match="at least 0"):
            build_synthetic_pool(pool, tmp_path / "out", per_image=1, regions=regions, feather_px=wrong)
    small = RegionMask("r", 30, 40, encode(np.ones((30, 40), bool)))
    with pytest.raises(PocketiqaError, match="region r is of 40x30, but the image 5x5"):
        small.blended(np.zeros((5, 5, 3), np.uint8), np.zeros((5, 5, 3), np.uint8), 0)
