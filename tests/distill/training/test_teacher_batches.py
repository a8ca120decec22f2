from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.data.examples import LabelTable, Source
from distill.data.pixel_cache import build_pixels
from distill.recipe.training import ViewSettings
from distill.training.teacher import fit_teacher
from distill.training.teacher_batches import TeacherBatchMaker, whole_item_batches
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import write_pool
from pseudo_labels.records import ImageRef, Status
from students.preprocess import Preprocess
from tests.helpers import fitting
from tests.helpers.coordinates import SIZES, Data, Seen, comparing, coordinate_pool, data_of, seen
from tests.helpers.fit_runs import ratings, small_config
from tests.helpers.training import texture_pool


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return data_of(coordinate_pool(tmp_path / "images"), tmp_path)


@pytest.fixture
def even(tmp_path: Path) -> Data:
    """All images of one size."""
    return data_of(coordinate_pool(tmp_path / "images", sizes=((80, 96),)), tmp_path)


def views(maker: TeacherBatchMaker, batches: int) -> list[Seen]:
    return [seen(view) for number in range(batches) for view in maker.make(number).inputs[0]]


def test_a_batch_has_scores_and_weights_of_what_it_shows(even: Data):
    batch = even.maker(images=ViewSettings()).make(0)
    assert len(batch.inputs) == 1
    shown = [seen(view) for view in batch.inputs[0]]
    assert sorted(view.number for view in shown) == list(range(6))
    assert {(view.height, view.width) for view in shown} == {(80, 96)}
    np.testing.assert_allclose(batch.target, [view.number / 100 for view in shown], rtol=1e-6)
    confidence = dict(zip(range(6), np.linspace(0.25, 1, 6), strict=True))
    np.testing.assert_allclose(batch.weight, [confidence[view.number] / 0.625 for view in shown], rtol=1e-6)
    assert batch.target.dtype == batch.weight.dtype == torch.float32


def test_crops_take_their_share_of_each_side_anywhere(even: Data):
    crops_made = views(even.maker(images=ViewSettings(crop_fraction=0.9)), 60)
    assert {(view.height, view.width) for view in crops_made} == {(72, 86)}
    assert {view.top for view in crops_made} == set(range(80 - 72 + 1))
    assert {view.left for view in crops_made} == set(range(96 - 86 + 1))
    assert 0.4 < np.mean([view.flip for view in crops_made]) < 0.6  # of 360: 0.4 is 3.8 standard deviations away


def test_square_crops_fit_into_every_image(data: Data):
    crops_made = views(data.maker(images=ViewSettings(crop_size=64, horizontal_flip=False)), 100)
    assert {(view.height, view.width) for view in crops_made} == {(64, 64)}
    assert not any(view.flip for view in crops_made)
    lefts = {view.left for view in crops_made if view.number == 0}
    assert lefts <= set(range(96 - 64 + 1))
    assert len(lefts) > 25
    assert {view.left for view in crops_made if view.number == 2} == {0}  # as wide as the crop
    wide = ViewSettings(crop_size=90)
    assert wide.crop_of(80, 96) == (80, 90)
    assert ViewSettings(crop_fraction=0.5).crop_of(81, 3) == (40, 2)


def test_images_smaller_than_the_crop_are_filled_up_with_themselves_mirrored(data: Data):
    batch = data.maker(images=ViewSettings(crop_size=90, horizontal_flip=False)).make(0)
    assert {tuple(view.shape) for view in batch.inputs[0]} == {(3, 90, 90)}
    for view in batch.inputs[0]:
        height, width = SIZES[int(view[2, 0, 0]) % len(SIZES)]
        for side, axis in ((height, 1), (width, 2)):
            for past in range(max(0, 90 - side)):
                torch.testing.assert_close(view.select(axis, side + past), view.select(axis, side - 1 - past))


def test_views_follow_from_the_seed_and_the_place_alone(even: Data):
    images = ViewSettings(crop_fraction=0.5)
    expected = views(even.maker(images=images), 4)
    again = even.maker(images=images)
    later = again.make(3)
    assert [seen(view) for view in later.inputs[0]] == expected[18:]
    halves = [even.maker(images=images, per_process=3, rank=rank, world=2) for rank in (0, 1)]
    shared = [seen(view) for number in range(4) for half in halves for view in half.make(number).inputs[0]]
    assert shared == expected
    assert views(even.maker(images=images, seed=1), 4) != expected


def test_validation_shows_each_image_whole_and_once(data: Data):
    batches = whole_item_batches(data.examples, data.caches, 4, data.reader())
    assert sorted(int(index) for indices, _ in batches for index in indices) == list(range(6))
    for indices, load in batches:
        items = load()
        assert len({item.shape for item in items}) == 1
        for index, item in zip(indices, items, strict=True):
            height, width = SIZES[int(index) % 3]
            assert seen(item) == Seen(int(index), 0, left=0, height=height, width=width, flip=False)


def test_a_reference_teacher_sees_the_same_window_of_the_reference(even: Data):
    reader = even.reader(comparing())
    batch = even.maker(reader, images=ViewSettings(crop_fraction=0.6)).make(0)
    images, references = ([seen(view) for view in tensor] for tensor in batch.inputs)
    assert [replace(view, number=view.number - 100) for view in references] == images
    assert len({(view.top, view.left, view.flip) for view in images}) > 3
    flipped = replace(even.examples, flipped=np.ones(6, bool))
    for index, item in ((0, even.reader(comparing()).whole(0)), (1, even.reader(comparing(), flipped).whole(1))):
        image, reference = (seen(view) for view in item)
        assert (image.number, reference.number) == (index, 100 + index)
        assert image.flip == reference.flip == bool(index)


def altered(data: Data, folder: Path, change: Any) -> Data:
    """The same with other rows of the pool."""
    refs = change(list(data.source.pool))
    pool = write_pool(folder / "altered", refs, spec={"altered": True})
    return replace(data, source=replace(data.source, pool=pool), caches=[
        build_pixels(pool, Preprocess(max_side=1024), folder / "altered-pixels")
    ])  # fmt: skip


def test_references_are_found_among_duplicates(even: Data, tmp_path: Path):
    def change(refs: list[ImageRef]) -> list[ImageRef]:
        copies = [replace(ref, status=Status.DUPLICATE, reason="copy") for ref in refs if not ref.ref_id]
        return [*refs, *copies]

    altered_source = altered(even, tmp_path, change)
    image, reference = altered_source.reader(comparing()).whole(2)
    assert (seen(image).number, seen(reference).number) == (2, 102)


def test_an_original_is_its_own_reference_if_others_were_made_from_it(even: Data):
    original = replace(even.examples, row=even.examples.row - 1)
    image, reference = even.reader(comparing(), original).whole(2)
    assert seen(image) == seen(reference)
    assert seen(image).number == 102


@pytest.mark.parametrize("kind", ["unlisted", "missing", "other size", "referred to by none"])
def test_an_image_without_a_reference_is_refused(even: Data, tmp_path: Path, kind: str):
    def change(refs: list[ImageRef]) -> list[ImageRef]:
        if kind == "other size":
            small = coordinate_pool(tmp_path / "small", sizes=((64, 64),))[0]
            return [replace(small, id=refs[0].id), *refs[1:]]
        if kind == "missing":
            return [replace(refs[0], uri=str(tmp_path / "nowhere.png")), *refs[1:]]
        ref_id = "" if kind == "referred to by none" else "f" * 24
        return [refs[0], replace(refs[1], ref_id=ref_id), *refs[2:]]

    altered_source = altered(even, tmp_path, change)
    with pytest.raises(PocketiqaError, match=r"image .*/0\.png of 'coordinates' has no readable reference of its size"):
        altered_source.reader(comparing())
    altered_source.reader()  # a teacher that needs none does not care


def test_views_of_different_shapes_are_refused(data: Data):
    maker = data.maker(images=ViewSettings())
    with pytest.raises(
        PocketiqaError,
        match=r"crops of \((\d+), (\d+)\) and .* become inputs of different shapes.*set images\.crop_size",
    ):
        maker.make(0)
    fixed = data.maker(data.reader(fitting.build(side_px=64)), images=ViewSettings())
    assert fixed.make(0).inputs[0].shape == (6, 3, 64, 64)


def test_views_smaller_than_a_patch_are_refused(even: Data):
    maker = even.maker(even.reader(fitting.build(smallest_px=16)), images=ViewSettings(crop_fraction=0.15))
    with pytest.raises(PocketiqaError, match=r"a crop of 14x12 pixels is refused \(a patch has 16 pixels\): raise"):
        maker.make(0)


def test_contradicting_crops_are_refused():
    with pytest.raises(ValueError, match=r"crop_size 64 and crop_fraction 0\.5: give only one"):
        ViewSettings(crop_size=64, crop_fraction=0.5)


# Through a whole fitting.

SAM_FR: dict[str, Any] = {
    "teacher": "sam_iqa", "steps": 2, "batch_size": 4, "optimizer__warmup_steps": 1, "validate_every_steps": 2,
    "options": {"variant": "tiny", "pretrained": False, "head": "new", "input_side_px": 64, "form": "fr"},
    "images": {"crop_fraction": 0.8},
}  # fmt: skip


def test_the_full_reference_form_of_sam_is_fitted(tmp_path: Path):
    source = ratings(texture_pool(tmp_path, scenes=5, versions=3))
    result = fit_teacher(small_config(**SAM_FR), [source], tmp_path / "run")
    assert result.validation["sources"]["textures"]["n"] == 3
    pool = coordinate_pool(tmp_path / "none", count=8)
    lone = write_pool(tmp_path / "lone", [replace(ref, ref_id="") for ref in pool], spec={})
    source = Source("lone", lone, LabelTable([ref.id for ref in lone], np.linspace(0, 1, 16)))
    with pytest.raises(PocketiqaError, match=r"has no readable reference of its size: .* a teacher that needs none"):
        fit_teacher(small_config(**SAM_FR), [source], tmp_path / "refused")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": {}}, r"crops of .* become inputs of different shapes"),
        ({"options__smallest_px": 65}, r"a crop of 64x64 pixels is refused"),
        ({"images": {"crop_size": 64}, "options__smallest_px": 81}, r"a crop of 64x64 pixels is refused"),
        ({"images": {"max_side": 70}, "options__side_px": 64, "options__smallest_px": 65}, r"a crop of 70x64 pixels"),
    ],
)
def test_what_the_background_thread_finds_ends_the_fitting(tmp_path: Path, changes: dict[str, Any], message: str):
    source = ratings(texture_pool(tmp_path, scenes=4, versions=2, sizes=((80, 96), (80, 88))))
    with pytest.raises(PocketiqaError, match=message):
        fit_teacher(small_config(**changes), [source], tmp_path / "run")
