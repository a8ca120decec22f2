import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from distill.stress.large_copies import CLEAN, LADDERS, SCALED, SCALES, damaged, displayed, large_copies, scaled
from distill.stress.large_reference import FAST_METRICS, reference_of
from pseudo_labels.errors import PocketiqaError
from tests.helpers.tiny_students import photographs


def test_blur_is_that_of_a_gaussian_of_so_many_pixels() -> None:
    step = np.zeros((64, 200, 3), np.uint8)
    step[:, 100:] = 200
    for sigma in LADDERS["blur"]:
        row = damaged(step, "blur", sigma, name="a")[32, :, 0].astype(float)
        # A blurred edge rises by 200 / (sigma sqrt(2 pi)) a pixel at its steepest.
        assert np.diff(row).max() == pytest.approx(200 / (sigma * np.sqrt(2 * np.pi)), rel=0.07)


def test_noise_has_its_strength_and_follows_from_the_name() -> None:
    gray = np.full((200, 200, 3), 128, np.uint8)
    for strength in LADDERS["noise"][:2]:
        assert damaged(gray, "noise", strength, name="a").std() == pytest.approx(strength, rel=0.02)
    one, same, other = (damaged(gray, "noise", 10, name=name) for name in ("a", "a", "b"))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert (gray == 128).all()


def test_jpeg_and_upscaling_are_those_of_pillow() -> None:
    rgb = photographs()[0]
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=40, subsampling="4:2:0")
    np.testing.assert_array_equal(damaged(rgb, "jpeg", 40, name="a"), np.asarray(Image.open(file)))
    small = Image.fromarray(rgb).resize((rgb.shape[1] // 2, rgb.shape[0] // 2), Image.Resampling.LANCZOS)
    large = np.asarray(small.resize((rgb.shape[1], rgb.shape[0]), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(damaged(rgb, "upscaling", 2, name="a"), large)
    with pytest.raises(PocketiqaError, match="unknown kind 'sharpening': choose one of blur, noise, jpeg, upscaling"):
        damaged(rgb, "sharpening", 2, name="a")


def test_a_display_shows_two_megapixels_of_the_same_aspect() -> None:
    shown = displayed(np.zeros((3000, 4000, 3), np.uint8))
    assert shown.shape == (1225, 1633, 3)
    small = photographs()[0]
    assert displayed(small) is small or (displayed(small) == small).all()


def test_copies_come_in_order_and_the_reference_falls_with_strength() -> None:
    rgb = photographs()[0]
    copies = list(large_copies(rgb, reference_of(FAST_METRICS), name="a"))
    assert [(copy.kind, copy.strength) for copy in copies] == [
        (CLEAN, 0.0),
        *((kind, strength) for kind, strengths in LADDERS.items() for strength in strengths),
        *((SCALED, factor) for factor in SCALES),
    ]
    for kind in LADDERS:
        references = [1.0, *(copy.reference for copy in copies if copy.kind == kind)]
        assert references == sorted(references, reverse=True)
    assert copies[-2].rgb.shape[0] == round(rgb.shape[0] * 0.5)
    assert scaled(rgb, 1.0).shape == rgb.shape


def test_the_reference_is_one_for_the_same_picture_and_knows_all_its_metrics() -> None:
    rgb = photographs()[1]
    blurred = np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(2)))
    for metrics in (None, FAST_METRICS):
        judge = reference_of(metrics)
        assert judge(rgb, rgb) == 1.0
        assert judge(blurred, rgb) < 0.8
