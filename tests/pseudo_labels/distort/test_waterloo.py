import numpy as np
import pytest
from scipy import ndimage

from pseudo_labels.distort import WATERLOO, distort
from pseudo_labels.distort.waterloo import BLUR_SIGMA_PX, JPEG2000_BITS_A_PIXEL, JPEG_QUALITY, NOISE_VARIANCE
from tests.helpers.pools import photograph

LEVELS = (1, 2, 3, 4, 5)


@pytest.mark.parametrize("name", WATERLOO)
def test_each_level_is_farther_from_the_photograph(name: str):
    # The headers of JPEG 2000 leave nothing of a small picture at the highest compression.
    rgb = photograph("coffee", 512 if name == "waterloo_jpeg2000" else 128)
    copies = [distort(rgb, name, level, seed=0, image_id="coffee") for level in (0.5, *LEVELS)]
    errors = [float(np.square(copy.astype(float) - rgb).mean()) for copy in copies]
    assert errors == sorted(errors)
    assert errors[0] > 0
    assert len(set(errors)) == len(copies)


def test_strengths_are_those_of_the_paper():
    grey = np.full((96, 96, 3), 128, np.uint8)
    noisy = distort(grey, "waterloo_white_noise", 1, seed=0, image_id="grey").astype(float)
    assert noisy.std() / 255 == pytest.approx(2**-5, rel=0.02)
    rgb = photograph("coffee", 128)
    blurred = distort(rgb, "waterloo_gaussian_blur", 1, seed=0, image_id="coffee").astype(float)
    theirs = np.stack([ndimage.gaussian_filter(rgb[..., at].astype(float), 7 / 6, mode="nearest") for at in range(3)])
    assert np.abs(blurred - np.moveaxis(theirs, 0, -1)).max() < 2
    # Half the side of the window of the published script, in pixels.
    assert [round(6 * sigma) for sigma in BLUR_SIGMA_PX[1:]] == [7, 15, 39, 91, 199]
    assert [round(24 / bits) for bits in JPEG2000_BITS_A_PIXEL[1:]] == [52, 150, 343, 600, 1200]
    assert [round(np.log2(variance), 6) for variance in NOISE_VARIANCE[1:]] == [-10, -7.5, -5.5, -3.5, 0]
    assert JPEG_QUALITY[1:] == (43, 12, 7, 4, 0)
