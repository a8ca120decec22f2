"""Which crops the batches show, and what they hold."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from distill.data.examples import Collected, LabelTable, Source, collect
from distill.data.pixel_cache import PixelCache, build_pixels
from distill.data.regions import RegionReader, RegionTable
from distill.recipe.training import ImageSettings
from distill.training.batches import (
    BatchMaker,
    FeatureReader,
    RegionShower,
    Sampler,
    Standard,
    packed,
    whole_image_batches,
)
from pseudo_labels.crops import RandomCrops
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import Pool, build_pool
from pseudo_labels.regions.make import build_regions
from pseudo_labels.regions.readers import TableSource
from pseudo_labels.remote import location
from pseudo_labels.store import LabelStore
from students.preprocess import Preprocess
from teachers.regions import label_regions
from tests.helpers.training import level_source, texture_store

CROPS = ImageSettings(crop_size=64)
WHOLE = ImageSettings(crop_size=None, horizontal_flip=False)


def maker(measured: Collected, caches: list[PixelCache], images: ImageSettings = CROPS, **options: Any) -> BatchMaker:
    defaults: dict[str, Any] = {"per_process": 4, "rank": 0, "world": 1, "seed": 7}
    weights = options.pop("weights", [1.0] * len(caches))
    order = Sampler(measured.examples, weights, options.get("seed", 7), batch=options.pop("batch", 1))
    return BatchMaker(measured.examples, caches, order, images, **{**defaults, **options})


def _find(image: np.ndarray, crop: np.ndarray) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(image, crop.shape[:2], axis=(0, 1))  # type: ignore[call-overload]
    near = np.argwhere((windows[..., 0, 0] == crop[0, 0]).all(-1))
    return any((image[y : y + crop.shape[0], x : x + crop.shape[1]] == crop).all() for y, x in near)


def cropped(pool: Pool, folder: Path) -> Source:
    """Labels of one window of each image."""
    crops = RandomCrops(0.4, 0.8)
    views = {row: {"view": crops.of(ref.id).view} for row, ref in enumerate(pool)}
    return Source("cropped", pool, texture_store(folder, pool, changes=views))


def crops_of(measured: Collected, cache: PixelCache) -> list[np.ndarray]:
    """The pixels that each label is of."""
    pixels = (cache.read(int(row)) for row in measured.examples.row)
    return [
        RandomCrops(0.4, 0.8).of(ref.id).cut(image) if index >= len(cache.sizes) else image
        for index, (image, ref) in enumerate(zip(pixels, measured.refs, strict=True))
    ]


def featured(pool: Pool, folder: Path, shape: tuple[int, ...] = (5, 3, 4)) -> tuple[Source, np.ndarray]:
    values = np.random.default_rng(0).normal(3, 2, (len(pool), *shape)).astype(np.float16).astype(np.float32)
    return Source("featured", pool, texture_store(folder, pool, features={"map": values, "other": values * 0})), values


def test_batches_are_functions_of_the_seed_and_the_number_alone(source: Source, cache: PixelCache):
    examples = collect([source], [cache])
    first, again = maker(examples, [cache]), maker(examples, [cache])
    for number in (9, 0, 3):  # in any order
        one, two = first.make(number), again.make(number)
        assert (one.pixels == two.pixels).all()
        assert (one.target == two.target).all()
    assert (first.make(0).pixels != maker(examples, [cache], seed=8).make(0).pixels).any()
    assert (first.make(0).pixels != first.make(6).pixels).any()  # the second pass: other order, other crops


def test_two_processes_and_two_micro_batches_share_the_batch_of_one(source: Source, cache: PixelCache):
    examples = collect([source], [cache])
    whole = maker(examples, [cache], per_process=8).make(2)
    halves = [maker(examples, [cache], per_process=4, rank=rank, world=2).make(2) for rank in range(2)]
    micro = [maker(examples, [cache], per_process=4).make(number) for number in (4, 5)]
    for parts in (halves, micro):
        for name in ("pixels", "target", "weight", "valid"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            np.testing.assert_array_equal(joined, getattr(whole, name))


def test_crops_are_cut_from_their_image_and_half_are_mirrored(source: Source, cache: PixelCache):
    examples = collect([source], [cache])
    batches = maker(examples, [cache])
    order = Sampler(examples.examples, [1.0], 7)
    mirrored = 0
    for number in range(12):
        batch = batches.make(number)
        for index, pixels, target in zip(order.at(number * 4, 4), batch.pixels.numpy(), batch.target, strict=True):
            assert target == examples.examples.target[index]
            image = cache.read(int(index))
            positions = [_find(image, candidate) for candidate in (pixels, pixels[:, ::-1])]
            assert sum(positions) == 1
            mirrored += positions[1]
    assert 12 <= mirrored <= 36  # of 48; binomial, 0.0005 of the mass lies outside


def test_images_smaller_than_the_crop_are_filled_with_their_mirror(source: Source, cache: PixelCache):
    examples = collect([source], [cache])
    batches = maker(examples, [cache], ImageSettings(crop_size=80, horizontal_flip=False))
    small = [
        pixels.numpy()
        for number in range(6)
        for pixels, valid in zip(batches.make(number).pixels, batches.make(number).valid, strict=True)
        if np.allclose(valid, 0.8)
    ]
    assert len(small) == 8  # two of six scenes are 64x64
    for pixels in small:
        np.testing.assert_array_equal(pixels[:, 64:], pixels[:, 48:64][:, ::-1])
        np.testing.assert_array_equal(pixels[64:], pixels[48:64][::-1])


def test_whole_images_lie_at_the_top_left_of_one_canvas(source: Source, cache: PixelCache):
    examples = collect([source], [cache])
    batch = maker(examples, [cache], WHOLE, per_process=24).make(0)
    order = Sampler(examples.examples, [1.0], 7).at(0, 24)
    assert tuple(batch.pixels.shape) == (24, 96, 96, 3)
    for index, pixels, valid in zip(order, batch.pixels.numpy(), batch.valid.numpy(), strict=True):
        height, width = cache.sizes[index]
        np.testing.assert_array_equal(pixels[:height, :width], cache.read(int(index)))
        np.testing.assert_allclose(valid, [height / 96, width / 96])


def test_weights_are_confidences_with_mean_one(pool: Pool, cache: PixelCache):
    ids = [ref.id for ref in pool]
    table = LabelTable(ids, [0.5] * 24, [1.0] * 12 + [0.2] * 12)
    examples = collect([Source("people", pool, table)], [cache])
    weight = maker(examples, [cache], per_process=24).make(0).weight.numpy()
    assert weight.mean() == pytest.approx(1)
    np.testing.assert_allclose(np.unique(weight), [0.2 / 0.6, 1 / 0.6], rtol=1e-6)


def test_source_weights_say_how_often_an_image_is_drawn(source: Source, pool: Pool, cache: PixelCache):
    people = LabelTable([pool[row].id for row in range(4)], [0.5] * 4)
    examples = collect([source, Source("people", pool, people)], [cache, cache])
    order = Sampler(examples.examples, [0.5, 2.25], 3)
    for number in range(5):  # a pass is 12 of 24 and 9 = 2 * 4 + 1
        drawn = Counter(order.at(number * 21, 21).tolist())
        assert sum(count for index, count in drawn.items() if index < 24) == 12
        assert max(count for index, count in drawn.items() if index < 24) == 1
        assert sorted(drawn[index] for index in range(24, 28)) == [2, 2, 2, 3]
    assert set(order.at(0, 2100).tolist()) == set(range(28))
    assert set(Sampler(examples.examples, [0.0, 1.0], 3).at(0, 100).tolist()) == set(range(24, 28))


def test_without_lists_the_order_is_that_of_plain_permutations(source: Source, cache: PixelCache):
    """As every version before drew it: a run that began then goes on with the same images."""
    examples = collect([source], [cache])
    order = Sampler(examples.examples, [1.25], 3, batch=5)
    for number in range(3):
        generator = np.random.default_rng([3, 1, number])
        drawn = np.concatenate([np.arange(24), generator.permutation(np.arange(24))[:6]])
        np.testing.assert_array_equal(order.at(30 * number, 30), generator.permutation(drawn))


def test_pictures_of_a_list_come_together_in_one_batch(source: Source, pool: Pool, cache: PixelCache, tmp_path: Path):
    ordered = level_source(tmp_path / "levels", pool)
    caches = [cache, build_pixels(ordered.pool, Preprocess(max_side=96), tmp_path / "cache")]
    examples = collect([source, ordered], caches).examples
    assert len(examples) == 24 + 24  # six lists of a clean picture and three copies
    order = Sampler(examples, [1.0, 1.5], 3, batch=7)
    batches = order.at(0, 7 * 200).reshape(200, 7)
    whole = 0
    for batch in batches:
        lists = Counter(examples.levels[batch, 0].tolist())
        lists.pop(-1.0, None)
        whole += sum(count == 4 for count in lists.values())
    # 1.5 times six lists in a pass of 24 + 36 images. Where a list may begin anywhere, 4 of 7 are whole; here it is all
    # but those at the end of a pass, when no single image is left to fill a batch.
    assert whole >= 0.8 * 9 * 1400 / 60
    # Every list of the source once or twice a pass, all its pictures alike.
    drawn = Counter(order.at(0, 60).tolist())
    assert sorted(drawn[index] for index in range(24)) == [1] * 24
    assert sorted(drawn[index] for index in range(24, 48)) == [1] * 12 + [2] * 12
    # A later batch is the same whatever was drawn before it.
    again = Sampler(examples, [1.0, 1.5], 3, batch=7)
    np.testing.assert_array_equal(again.at(7 * 150, 7), batches[150])


def test_a_list_shows_one_crop_in_rising_levels(source: Source, pool: Pool, cache: PixelCache, tmp_path: Path):
    ordered = level_source(tmp_path / "levels", pool)
    caches = [cache, build_pixels(ordered.pool, Preprocess(max_side=96), tmp_path / "cache")]
    measured = collect([source, ordered], caches)
    made = maker(measured, caches, weights=[1.0, 1.0], per_process=8, batch=8)
    batch = made.make(0)
    assert batch.levels is not None
    flips, whole = set[bool](), 0
    for number in range(12):
        crops = made._crops.draw(number)
        places = measured.examples.levels[[crop.index for crop in crops]]
        np.testing.assert_array_equal(made.make(number).levels, places)
        for own in set(places[:, 0].tolist()) - {-1.0}:
            rows = np.flatnonzero(places[:, 0] == own)
            whole += len(rows) == 4
            assert (np.diff(places[rows, 1]) > 0).all()
            assert len({(crops[row].top, crops[row].left, crops[row].flip) for row in rows}) == 1
            flips.add(crops[rows[0]].flip)
    assert flips == {True, False}
    assert whole > 5
    # Labels weigh as they would without the lists, whose pictures have none.
    weights = measured.examples.with_mean_weight_one().weight
    assert set(weights[:24]) == {1.0}
    assert set(weights[24:]) == {0.0}
    without = collect([source], [cache])
    assert maker(without, [cache]).make(0).levels is None


def test_packing_tears_only_what_cannot_stay_whole():
    generator = np.random.default_rng(0)
    lengths = generator.choice([1, 1, 1, 4, 6], 500).tolist()
    order = packed(lengths, 5, 16)
    assert sorted(order) == list(range(500))
    ends = np.cumsum([lengths[unit] for unit in order]) + 5
    starts = ends - [lengths[unit] for unit in order]
    assert ((starts // 16) != ((ends - 1) // 16)).sum() <= 2
    # Nothing waits for ever: each comes near its turn.
    assert max(abs(place - unit) for place, unit in enumerate(order)) < 64
    assert packed([1] * 9, 3, 4) == list(range(9))
    # No single images fill the rest of a batch of 8 behind a list of 6: lists are torn, and all come.
    assert sorted(packed([6] * 200, 0, 8)) == list(range(200))
    assert sorted(packed([9, 1, 9], 0, 4)) == [0, 1, 2]


def test_a_weight_that_leaves_nothing_is_refused(source: Source, cache: PixelCache):
    with pytest.raises(PocketiqaError, match=r"\[0\.001\]"):
        Sampler(collect([source], [cache]).examples, [0.001], 0)


def test_labels_of_mirror_images_replace_random_flips(source: Source, pool: Pool, cache: PixelCache, tmp_path: Path):
    mirrored = Source("mirrored", pool, texture_store(tmp_path / "mirrored", pool, view="flip"))
    examples = collect([source, mirrored], [cache, cache])
    batch = maker(examples, [cache, cache], ImageSettings(crop_size=None), per_process=48).make(0)
    order = Sampler(examples.examples, [1.0, 1.0], 7).at(0, 48)
    assert examples.examples.flipped.sum() == 24
    for index, pixels in zip(order, batch.pixels.numpy(), strict=True):
        expected = cache.read(int(examples.examples.row[index]))
        expected = expected[:, ::-1] if examples.examples.flipped[index] else expected
        np.testing.assert_array_equal(pixels[: expected.shape[0], : expected.shape[1]], expected)


def test_labels_of_windows_are_learned_of_these_windows(source: Source, pool: Pool, cache: PixelCache, tmp_path: Path):
    both, caches = [source, cropped(pool, tmp_path / "cropped")], [cache, cache]
    examples = collect(both, caches)
    shown = crops_of(examples, cache)
    batch = maker(examples, caches, WHOLE, per_process=48).make(0)
    assert batch.pixels.shape[1:3] == (96, 96)
    for index, pixels, valid in zip(
        Sampler(examples.examples, [1, 1], 7).at(0, 48), batch.pixels, batch.valid, strict=True
    ):
        height, width = shown[index].shape[:2]
        np.testing.assert_array_equal(pixels[:height, :width], shown[index])
        np.testing.assert_allclose(valid, (height / 96, width / 96), rtol=1e-6)
    crops = maker(examples, caches, ImageSettings(crop_size=64, horizontal_flip=False), per_process=48).make(0)
    for index, pixels in zip(Sampler(examples.examples, [1, 1], 7).at(0, 48), crops.pixels.numpy(), strict=True):
        height, width = (min(64, side) for side in shown[index].shape[:2])
        assert _find(shown[index], pixels[:height, :width])


def test_windows_are_validated_as_the_runtime_sees_them(pool: Pool, cache: PixelCache, tmp_path: Path):
    examples = collect([source := cropped(pool, tmp_path / "cropped")], [cache])
    assert len(examples.examples) == len(source.pool)
    seen: list[int] = []
    for indices, read in whole_image_batches(examples.examples, [cache], batch_size=5):
        for index, image in zip(indices, read().numpy(), strict=True):
            window = RandomCrops(0.4, 0.8).of(examples.refs[index].id)
            np.testing.assert_array_equal(image, window.cut(cache.read(int(examples.examples.row[index]))))
        seen += indices.tolist()
    assert sorted(seen) == list(range(24))


def test_opinions_are_learned_with_the_features_of_a_teacher(pool: Pool, cache: PixelCache, tmp_path: Path):
    shown, values = featured(pool, tmp_path / "labels")
    rated, store = [pool[row].id for row in (20, 3, 9)], shown.labels
    assert isinstance(store, LabelStore)
    people = Source("people", pool, LabelTable(rated, [0.1, 0.2, 0.3]), features=store)
    bare = Source("bare", pool, LabelTable(rated, [0.1, 0.2, 0.3]))
    examples = collect([people, bare], [cache, cache], "map")
    assert (examples.examples.shard >= 0).tolist() == [True] * 3 + [False] * 3
    reader = FeatureReader([people, bare], "map", examples.examples, seed=0)
    standard = values[[3, 9, 20]]
    mean, deviation = standard.mean((0, 2, 3), keepdims=True), standard.std((0, 2, 3), keepdims=True)
    for index, row in enumerate((3, 9, 20)):
        expected = (values[row] - mean[0]) / deviation[0]
        np.testing.assert_allclose(reader.read(examples.examples, index), expected, rtol=1e-3, atol=1e-4)
        assert not reader.read(examples.examples, index + 3).any()
    assert people.describe()["features"] == store.digest
    assert "features" not in bare.describe()


def test_features_are_row_aligned_and_standardised(pool: Pool, cache: PixelCache, tmp_path: Path):
    source, values = featured(pool, tmp_path / "labels")
    examples = collect([source], [cache], "map")
    reader = FeatureReader([source], "map", examples.examples, seed=0)
    batch = maker(examples, [cache], WHOLE, per_process=24, features=reader).make(0)
    order = Sampler(examples.examples, [1.0], 7).at(0, 24)
    expected = (values - values.mean((0, 2, 3), keepdims=True)) / values.std((0, 2, 3), keepdims=True)
    assert batch.feature is not None
    np.testing.assert_allclose(batch.feature.numpy(), expected[order], rtol=1e-4, atol=1e-5)
    assert batch.feature_weight is not None
    np.testing.assert_array_equal(batch.feature_weight, batch.weight)


@pytest.mark.parametrize("cache_gb", ["1", "0.00001"])
def test_features_of_an_object_store_are_those_of_a_disk(
    pool: Pool, cache: PixelCache, tmp_path: Path, cache_gb: str, monkeypatch: pytest.MonkeyPatch
):
    """Also where the cache of this machine is too small for one shard, or its files go while they are mapped."""
    monkeypatch.setenv("POCKETIQA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("POCKETIQA_CACHE_GB", cache_gb)
    read: list[np.ndarray] = []
    for folder in (tmp_path / "labels", location("memory://training/labels")):
        source, _ = featured(pool, folder)
        examples = collect([source], [cache], "map").examples
        reader = FeatureReader([source], "map", examples, seed=0)
        read.append(np.stack([reader.read(examples, index) for index in range(24)]))
    assert (read[0] == read[1]).all()
    kept = sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*") if file.is_file())
    assert (kept > 0) if cache_gb == "1" else (kept <= 10_000)
    shutil.rmtree(tmp_path / "cache")
    fsspec.filesystem("memory").store.clear()
    assert (reader.read(examples, 0) == read[1][0]).all()  # what is open is read on


@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567], ids=str)
def test_a_channel_that_is_constant_in_the_sample_has_weight_0(value: float):
    values = np.random.default_rng(0).normal(size=(200, 3, 4, 4)).astype(np.float32)
    values[:, 1] = value
    standard = Standard(values)
    # A row outside of the sample that differs a little must not outweigh all others.
    other = (np.full((3, 4, 4), value + 0.01, np.float32) - standard.mean) * standard.scale
    assert (other[1] == 0).all()
    # As before for the others: to the bit, as the loss of a resumed run must be.
    deviation = values.std((0, 2, 3), dtype=np.float64).astype(np.float32)
    assert (standard.scale.ravel()[[0, 2]] == 1 / deviation[[0, 2]]).all()
    assert standard.scale.dtype == np.float32


def test_the_map_of_a_mirrored_view_is_mirrored(pool: Pool, cache: PixelCache, tmp_path: Path):
    source, values = featured(pool, tmp_path / "labels")
    examples = collect([source], [cache], "map")
    reader = FeatureReader([source], "map", examples.examples, seed=0)
    batch = maker(
        examples, [cache], WHOLE.model_copy(update={"horizontal_flip": True}), per_process=24, features=reader
    )
    order = Sampler(examples.examples, [1.0], 7).at(0, 24)
    made = batch.make(0)
    assert made.feature is not None
    flips = 0
    for index, pixels, feature in zip(order, made.pixels.numpy(), made.feature.numpy(), strict=True):
        whole = cache.read(int(examples.examples.row[index]))
        flip = bool((pixels[: whole.shape[0], : whole.shape[1]] != whole).any())
        expected = (values[index] - values.mean((0, 2, 3))[:, None, None]) / values.std((0, 2, 3))[:, None, None]
        np.testing.assert_allclose(feature, expected[..., ::-1] if flip else expected, rtol=1e-4, atol=1e-5)
        flips += flip
    assert 4 < flips < 20


def test_rows_without_a_feature_take_no_part_in_its_loss(pool: Pool, cache: PixelCache, tmp_path: Path):
    source, _ = featured(pool, tmp_path / "labels")
    people = Source("people", pool, LabelTable([pool[0].id, pool[9].id], [0.5, 0.6]))
    examples = collect([source, people], [cache, cache], "map")
    reader = FeatureReader([source, people], "map", examples.examples, seed=0)
    batch = maker(examples, [cache, cache], WHOLE, per_process=26, features=reader).make(0)
    order = Sampler(examples.examples, [1.0, 1.0], 7).at(0, 26)
    assert batch.feature is not None
    assert batch.feature_weight is not None
    for index, feature, weight in zip(order, batch.feature, batch.feature_weight, strict=True):
        assert (weight.item() > 0) == (index < 24) == (feature.abs().sum().item() > 0)


def test_features_of_two_shapes_are_refused(pool: Pool, cache: PixelCache, tmp_path: Path):
    one, _ = featured(pool, tmp_path / "one")
    two, _ = featured(pool, tmp_path / "two", (5, 3, 3))
    sources = [one, Source("second", pool, two.labels)]
    examples = collect(sources, [cache, cache], "map")
    with pytest.raises(PocketiqaError, match=r"\(5, 3, 3\) in one source and \(5, 3, 4\)"):
        FeatureReader(sources, "map", examples.examples, seed=0)


def test_validation_sees_whole_images_by_size(source: Source, cache: PixelCache):
    examples = collect([source], [cache])
    seen: list[int] = []
    for indices, read in whole_image_batches(examples.examples, [cache], batch_size=5):
        pixels = read().numpy()
        assert len(pixels) <= 5
        for index, image in zip(indices, pixels, strict=True):
            np.testing.assert_array_equal(image, cache.read(int(examples.examples.row[index])))
        seen += indices.tolist()
    assert sorted(seen) == list(range(24))


def rectangles(folder: Path) -> tuple[Pool, RegionTable]:
    """Black images of two sizes with one white rectangle each, which is their labelled region."""
    (folder / "images").mkdir()
    rows = ["image,x,y,width,height,quality"]
    for number, (height, width) in enumerate(((128, 96), (96, 112), (128, 96))):
        box = (10 + 8 * number, 5 + 20 * number, 50, 41)
        image = np.zeros((height, width, 3), np.uint8)
        image[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = 255
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        rows.append(f"{number}.png,{box[0]},{box[1]},{box[2]},{box[3]},{0.25 * number}")
    (folder / "boxes.csv").write_text("\n".join(rows))
    pool = build_pool([str(folder / "images")], folder / "pool")
    build_regions(pool, TableSource(folder / "boxes.csv"), folder / "regions", preview=0)
    label_regions(folder / "pool", folder / "regions", "annotated", folder / "labels")
    return pool, RegionTable.open(pool, folder / "regions", folder / "labels")


@pytest.mark.parametrize("crop_size", [None, 64])
def test_masks_are_cropped_mirrored_and_filled_up_as_the_pixels(tmp_path: Path, crop_size: int | None):
    pool, table = rectangles(tmp_path)
    cache = build_pixels(pool, Preprocess(max_side=128), tmp_path / "cache")
    ids = [ref.id for ref in pool]
    # Their regions alone: the scores of the images have no confidence.
    source = Source("regions", pool, LabelTable(ids, [0.0] * 3, [0.0] * 3), regions=table)
    examples = collect([source], [cache])
    assert len(examples.examples) == 3
    rows = list(zip(examples.examples.source.tolist(), examples.examples.row.tolist(), strict=True))
    shower = RegionShower(RegionReader([table], rows), 16, lambda size: (size[0] // 16, size[1] // 16))
    made = maker(examples, [cache], ImageSettings(crop_size=crop_size), regions=shower)
    mirrored = 0
    for number in range(4):
        batch = made.make(number)
        assert batch.regions is not None
        assert not batch.weight.any()
        white = batch.pixels[..., 0].numpy().astype(float) / 255
        height, width = white.shape[1:]
        image_fraction = np.zeros_like(white)
        for image, (tall, wide) in enumerate((batch.valid.numpy() * (height, width)).round().astype(int)):
            white[image, tall:] = white[image, :, wide:] = 0  # filled up: no region, though its mirror image may be
            image_fraction[image, :tall, :wide] = 1

        def cells(values: np.ndarray) -> np.ndarray:
            return values.reshape(-1, values.shape[1] // 16, 16, values.shape[2] // 16, 16).mean((2, 4))

        assert batch.regions.image.tolist() == [0, 1, 2, 3]
        parts = cells(image_fraction)
        np.testing.assert_allclose(batch.regions.overlap.numpy(), cells(white) / np.maximum(parts, 1e-9), atol=1e-6)
        np.testing.assert_array_equal(batch.regions.inside.numpy(), parts > 0)
        if crop_size is None:
            assert set(batch.regions.weight.tolist()) == {1.0}
        mirrored += len({str(values) for values in batch.regions.overlap.numpy().round(3).tolist()})
    assert mirrored > 3  # images and their mirror images
