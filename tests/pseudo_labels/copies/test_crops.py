"""Crop pools from real photographs on a real disk."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

from pseudo_labels.copies.crops import build_crop_pool
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.pool import Pool, build_pool
from pseudo_labels.records import Status


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """Three scenes; one of them 70 pixels high."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, rgb in {
        "face.png": skimage.data.astronaut()[:200, 150:350],
        "cat.png": skimage.data.chelsea()[30:230, 80:400],
        "flat.png": skimage.data.coffee()[100:170, 100:400],
    }.items():
        Image.fromarray(rgb).save(folder / name)
    return build_pool([str(folder)], tmp_path / "pool")


def _window(uri: str) -> tuple[int, int, int, int]:
    found = re.search(r"crop-(\d+)-(\d+)-(\d+)x(\d+)\.png$", uri)
    assert found, uri
    return tuple(int(number) for number in found.groups())  # type: ignore[return-value]


def test_crops_are_windows_of_their_photographs_at_full_resolution(pool: Pool, tmp_path: Path):
    crops = build_crop_pool(pool, tmp_path / "crops", per_image=4, smallest=0.4, largest=0.8)
    assert len(crops) == 3 * 5
    for number, original in enumerate(pool):
        whole, *windows = [crops[row] for row in range(5 * number, 5 * number + 5)]
        assert (whole.id, whole.group) == (original.id, original.group)
        photo = pool.load(original)
        for row in windows:
            assert (row.status, row.group, row.ref_id, row.distortion) == (Status.OK, original.group, "", "")
            top, left, height, width = _window(row.uri)
            assert np.array_equal(crops.load(row), photo[top : top + height, left : left + width])
            assert (row.height, row.width) == (height, width)
            for side, of in ((height, original.height), (width, original.width)):
                assert side == 64 or 0.4 * of - 0.5 <= side <= 0.8 * of + 0.5
            assert height == 64 or abs(height / original.height - width / original.width) < 0.01
        assert len({_window(row.uri) for row in windows}) == 4


def test_crops_follow_from_seed_and_image_alone(pool: Pool, tmp_path: Path):
    first = build_crop_pool(pool, tmp_path / "1", per_image=3)
    again = build_crop_pool(pool, tmp_path / "2", per_image=3, workers=2)
    more = build_crop_pool(pool, tmp_path / "3", per_image=5)
    other = build_crop_pool(pool, tmp_path / "4", per_image=3, seed=1)
    assert list(first) == list(again)
    assert {ref.id for ref in first} < {ref.id for ref in more}
    assert {ref.id for ref in first} & {ref.id for ref in other} == {ref.id for ref in pool}
    with pytest.raises(OutputConflictError, match="per_image: 3 -> 5"):
        build_crop_pool(pool, tmp_path / "1", per_image=5)


def test_a_photograph_without_room_gives_fewer_crops(tmp_path: Path):
    Image.fromarray(skimage.data.chelsea()[100:164, 100:164]).save(tmp_path / "small.png")
    pool = build_pool([str(tmp_path / "small.png")], tmp_path / "pool")
    crops = build_crop_pool(pool, tmp_path / "crops", per_image=3)
    assert [ref.id for ref in crops] == [ref.id for ref in pool]
    Image.fromarray(skimage.data.chelsea()[100:166, 100:164]).save(tmp_path / "taller.png")
    taller = build_pool([str(tmp_path / "taller.png")], tmp_path / "taller")
    few = build_crop_pool(taller, tmp_path / "few", per_image=9, smallest=0.1)
    assert sorted(_window(ref.uri) for ref in list(few)[1:]) == [(0, 0, 64, 64), (1, 0, 64, 64), (2, 0, 64, 64)]


def test_a_photograph_that_vanished_gives_rows_that_say_so(pool: Pool, tmp_path: Path):
    (tmp_path / "photos" / "cat.png").unlink()
    crops = build_crop_pool(pool, tmp_path / "crops", per_image=2)
    bad = [ref for ref in crops if ref.status != Status.OK]
    assert [ref.status for ref in bad] == [Status.MISSING, Status.NO_REFERENCE, Status.NO_REFERENCE]
    assert all("missing" in ref.reason for ref in bad[1:])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"per_image": 0}, "per_image is 0, but must be a whole number of at least 1"),
        ({"smallest": 0.0}, "crops from 0.0 to 0.9 of a side: give two shares above 0 and at most 1"),
        ({"smallest": 0.95}, "the smaller first"),
        ({"largest": 1.5}, "crops from 0.5 to 1.5"),
        ({"smallest": float("nan")}, "crops from nan"),
    ],
)
def test_arguments_out_of_range_are_refused_before_anything_is_written(
    argument: dict[str, Any], message: str, pool: Pool, tmp_path: Path
):
    with pytest.raises(PocketiqaError, match=message):
        build_crop_pool(pool, tmp_path / "crops", **{"per_image": 1, **argument})
    assert not (tmp_path / "crops").exists()
