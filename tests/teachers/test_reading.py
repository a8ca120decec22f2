"""Rows of a pool become teacher input, ahead of the teacher, in order."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pseudo_labels.crops import FULL, RandomCrops
from pseudo_labels.images import DEFAULT_LIMITS
from pseudo_labels.pool import Pool, build_pool
from pseudo_labels.records import Status
from teachers.reading import Preparer, read_ahead
from tests.helpers.own_teacher import Contrast
from tests.helpers.pools import synthetic_pool, write_photographs


class Comparing(Contrast):
    """A full-reference teacher: its input is the image and its reference, both whole."""

    needs_reference = True

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> Any:
        return torch.from_numpy(image), torch.from_numpy(reference)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    write_photographs(tmp_path / "photographs", images=3)
    (tmp_path / "photographs" / "broken.png").write_bytes(b"no picture")
    return build_pool([str(tmp_path / "photographs")], tmp_path / "pool")


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_come_in_order_with_their_pixels_or_their_reason(pool: Pool, workers: int):
    prepared = list(read_ahead(list(pool), Preparer(pool, Contrast(), DEFAULT_LIMITS), workers=workers, batch_size=2))
    assert [one.ref.id for one in prepared] == [ref.id for ref in pool]
    for one in prepared:
        if one.ref.status == Status.OK:
            np.testing.assert_array_equal(one.item, pool.load(one.ref)[:, :, 1])
        else:
            assert (one.item, one.status, one.reason) == (None, one.ref.status, one.ref.reason)


def test_images_that_the_teacher_learned_from_are_left_out(pool: Pool):
    seen = pool.ok()[0].id
    prepare = Preparer(pool, Contrast(), DEFAULT_LIMITS, seen={seen})
    one = prepare(pool.by_id(seen))
    assert (one.item, one.status) == (None, Status.SEEN)


def test_a_crop_is_that_of_the_seed_and_named(pool: Pool):
    ref, crops = pool.ok()[0], RandomCrops(0.5, 0.9, seed=3)
    one = Preparer(pool, Contrast(), DEFAULT_LIMITS, crops=crops)(ref)
    assert one.view == crops.of(ref.id).view != FULL
    np.testing.assert_array_equal(one.item, crops.of(ref.id).cut(pool.load(ref))[:, :, 1])


def test_an_image_that_the_teacher_refuses_has_its_reason(pool: Pool):
    one = Preparer(pool, Contrast(refuse_wide=10), DEFAULT_LIMITS)(pool.ok()[0])
    assert (one.item, one.status) == (None, Status.FAILED)
    assert "pixels are too wide for me" in one.reason


def test_a_comparing_teacher_gets_the_clean_original(tmp_path: Path):
    pool = synthetic_pool(tmp_path, images=2, per_image=2)
    prepare = Preparer(pool, Comparing(), DEFAULT_LIMITS)
    for ref in pool.ok():
        image, reference = prepare(ref).item  # pyright: ignore
        np.testing.assert_array_equal(image, pool.load(ref))
        np.testing.assert_array_equal(reference, pool.load(pool.by_id(ref.ref_id or ref.id)))


def test_an_original_without_copies_has_no_reference(pool: Pool):
    one = Preparer(pool, Comparing(), DEFAULT_LIMITS)(pool.ok()[0])
    assert (one.item, one.status) == (None, Status.NO_REFERENCE)
    assert "an original that no distorted image of the pool refers to" in one.reason


def test_closing_early_waits_for_what_is_in_work(pool: Pool):
    ahead = read_ahead(list(pool), Preparer(pool, Contrast(), DEFAULT_LIMITS), workers=2, batch_size=1)
    next(ahead)
    ahead.close()
    assert list(ahead) == []
