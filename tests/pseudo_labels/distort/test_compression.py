"""Codecs against Pillow called directly."""

import io

import numpy as np
import pytest
from PIL import Image

from pseudo_labels.distort.compression import JPEG2000_RATIO, JPEG_QUALITY, jpeg, jpeg2000

_RNG = np.random.default_rng(0)


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_jpeg_is_a_file_written_and_read_again(level: int, photo: np.ndarray) -> None:
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=int(JPEG_QUALITY[level]), subsampling=2)
    assert np.array_equal(jpeg(photo, level / 5, _RNG), np.asarray(Image.open(file)))


@pytest.mark.parametrize("level", [1, 3, 5])
def test_jpeg2000_meets_its_ratio(level: int, photo: np.ndarray) -> None:
    """The pixels are those of a file that has the declared size, to 15 % and 200 bytes of headers."""
    file = io.BytesIO()
    options = {"quality_mode": "rates", "irreversible": True, "no_jp2": True}
    ratio = min(JPEG2000_RATIO[level], photo.size / 400)
    Image.fromarray(photo).save(file, "JPEG2000", quality_layers=[ratio], **options)
    assert np.array_equal(jpeg2000(photo, level / 5, _RNG), np.asarray(Image.open(file)))
    assert len(file.getvalue()) == pytest.approx(photo.size / ratio, rel=0.15, abs=200)


def test_jpeg2000_leaves_something_of_the_smallest_image(photo: np.ndarray) -> None:
    small = photo[:64, 60:124]
    distorted = jpeg2000(small, 1.0, _RNG)
    assert np.corrcoef(distorted.ravel(), small.ravel())[0, 1] > 0.5
