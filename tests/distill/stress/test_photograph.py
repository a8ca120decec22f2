from pathlib import Path

import numpy as np
import pytest

from distill.stress.photograph import Photograph, resized
from pseudo_labels.distort import distort
from pseudo_labels.errors import PocketiqaError
from tests.helpers.pools import photograph


def test_damage_is_made_once_and_is_that_of_the_catalogue():
    taken = Photograph("a", photograph("coffee"))
    copy = taken.distorted("white_noise", 3)
    assert np.array_equal(copy, distort(taken.rgb, "white_noise", 3, seed=0, image_id="a"))
    assert taken.distorted("white_noise", 3) is copy
    assert not np.array_equal(Photograph("b", taken.original).distorted("white_noise", 3), copy)


def test_forgotten_copies_are_made_again_alike():
    taken = Photograph("a", photograph("coffee", 128))
    noisy, blurred = taken.distorted("white_noise", 3), taken.distorted("gaussian_blur", 3)
    taken.forget("white_noise")
    assert taken.distorted("gaussian_blur", 3) is blurred
    again = taken.distorted("white_noise", 3)
    assert again is not noisy
    assert np.array_equal(again, noisy)


@pytest.mark.parametrize(("size", "expected"), [((900, 1800), (512, 1024)), ((80, 1024), (80, 1024)), ((64, 90), None)])
def test_only_large_photographs_are_reduced(size: tuple[int, int], expected: tuple[int, int] | None):
    original = np.zeros((*size, 3), np.uint8)
    taken = Photograph("a", original)
    assert taken.rgb.shape[:2] == (expected or size)
    assert taken.original is original


def test_resized_keeps_the_aspect_and_what_fits():
    rgb = photograph("coffee", 128)
    assert resized(rgb, 256).shape[1] == 256
    assert resized(rgb, 256).shape[0] == pytest.approx(256 * rgb.shape[0] / rgb.shape[1], abs=0.5)
    assert resized(rgb, 128) is rgb


def test_a_bad_file_is_named_with_the_reason(tmp_path: Path):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(PocketiqaError, match=r"empty\.jpg cannot be used \(empty\): the file has zero bytes"):
        Photograph.open(tmp_path / "empty.jpg")
