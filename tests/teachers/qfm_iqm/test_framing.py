import numpy as np
import pytest
from PIL import Image

from pseudo_labels.images import ImageError
from pseudo_labels.records import Status
from teachers.qfm_iqm.framing import cut_to_multiple, fitted_size, frame
from tests.teachers.qfm_iqm.tiny_qfm import picture

ANY_SIZE = {"multiple_px": 1, "smallest_px": 32, "fixed_px": None}


@pytest.mark.parametrize(
    ("size", "expected"),
    [((512, 512), (512, 512)), ((300, 200), (300, 200)), ((1024, 768), (512, 384)), ((500, 4000), (64, 512)),
     ((1, 9000), (1, 512))],
)  # fmt: skip
def test_large_images_shrink_with_their_aspect_and_others_stay(size: tuple[int, int], expected: tuple[int, int]):
    assert fitted_size(*size, 512) == expected


def test_an_image_that_fits_keeps_its_pixels():
    image = picture(0, 70, 90)
    found = frame(image, max_side_px=90, **ANY_SIZE)
    np.testing.assert_array_equal(found.numpy(), image.transpose(2, 0, 1))


def test_a_larger_one_is_resized_once():
    image = picture(0, 120, 160)
    found = frame(image, max_side_px=80, **ANY_SIZE)
    expected = np.asarray(Image.fromarray(image).resize((80, 60), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(found.numpy(), expected.transpose(2, 0, 1))


def test_the_sides_are_cut_to_the_largest_multiple_around_the_middle():
    image = picture(0, 70, 97)
    found = frame(image, max_side_px=512, multiple_px=16, smallest_px=32, fixed_px=None)
    np.testing.assert_array_equal(found.numpy(), image[3:67, :96].transpose(2, 0, 1))
    assert cut_to_multiple(image, 1) is not None
    np.testing.assert_array_equal(cut_to_multiple(image, 1), image)


def test_a_backbone_of_one_size_gets_that_size():
    found = frame(picture(0, 64, 200), max_side_px=80, multiple_px=16, smallest_px=32, fixed_px=(160, 160))
    assert found.shape == (3, 160, 160)


def test_too_small_is_said_with_the_size_of_the_image():
    assert frame(picture(0, 32, 90), max_side_px=512, **ANY_SIZE).shape == (3, 32, 90)
    for image in (picture(0, 31, 90), picture(0, 50, 1000)):
        with pytest.raises(ImageError, match=rf"{image.shape[1]}x{image.shape[0]} pixels: .* 32 are needed") as caught:
            frame(image, max_side_px=512, **ANY_SIZE)
        assert caught.value.status == Status.TOO_SMALL
