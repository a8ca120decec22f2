"""What holds for every distortion."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pseudo_labels.distort import CATALOGUE, DISTORTIONS, distort

NAMES = list(DISTORTIONS)
# Those without chance; every other one must give different images for different seeds.
FIXED = {
    "gaussian_blur",
    "lens_blur",
    "color_diffusion",
    "color_quantization",
    "color_saturation_hsv",
    "color_saturation_lab",
    "jpeg2000",
    "jpeg",
    "brighten",
    "darken",
    "pixelate",
    "quantization",
    "high_sharpen",
    "camera_sharpness",
    "camera_compression",
    "waterloo_jpeg",
    "waterloo_jpeg2000",
    "waterloo_gaussian_blur",
}
SIZES = [(64, 64), (65, 97), (64, 301), (230, 64)]


def _distortion(clean: np.ndarray, name: str, level: float, chance: int = 0) -> float:
    """Mean squared error, with the same chance at every level."""
    distorted = DISTORTIONS[name].apply(clean, level / 5, np.random.default_rng(chance))
    return float(np.mean((distorted.astype(float) - clean) ** 2))


@pytest.mark.parametrize("name", NAMES)
def test_gives_an_image_of_the_same_kind(name: str, photo: np.ndarray) -> None:
    before = photo.copy()
    distorted = distort(photo, name, 3, seed=0, image_id="a")
    assert distorted.shape == photo.shape
    assert distorted.dtype == np.uint8
    assert distorted.flags.c_contiguous
    assert distorted.flags.writeable
    assert not np.shares_memory(distorted, photo)
    assert np.array_equal(photo, before)
    assert not np.array_equal(distorted, photo)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("level", [0.01, 1, 5])
def test_takes_any_size_and_any_level(name: str, size: tuple[int, int], level: float) -> None:
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width]
    rgb = np.stack([rows % 256, columns % 256, (rows * columns) % 256], axis=-1).astype(np.uint8)
    assert distort(rgb, name, level, seed=1, image_id="x").shape == rgb.shape


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, 128, 255])
def test_takes_flat_images(name: str, value: int) -> None:
    """No contrast, no colour, no edges: the divisions by a spread must not fail."""
    flat = np.full((80, 70, 3), value, np.uint8)
    assert distort(flat, name, 4, seed=0, image_id="flat").shape == flat.shape


# Those of the Waterloo set need a larger picture: ``test_waterloo``.
@pytest.mark.parametrize("name", CATALOGUE)
def test_damage_grows_with_the_level(name: str, photo: np.ndarray, cat: np.ndarray) -> None:
    """Strictly, with chance held still; several chances, so that two-sided distortions go both ways. No exceptions."""
    for chance in range(1 if name in FIXED else 4):
        for clean in (photo, cat):
            distortions = [_distortion(clean, name, level, chance) for level in (1, 2, 3, 4, 5)]
            assert distortions == sorted(set(distortions)), (chance, distortions)
            assert distortions[0] > 0


@pytest.mark.parametrize("name", NAMES)
def test_levels_in_between_lie_in_between(name: str, photo: np.ndarray) -> None:
    """A tenth of slack: rounding to whole qualities, colours and patches, and resampling phases, are not monotone."""
    for low in (1, 2, 3, 4):
        lower, middle, upper = (_distortion(photo, name, level) for level in (low, low + 0.5, low + 1))
        assert 0.9 * lower <= middle <= 1.1 * upper, (low, lower, middle, upper)


@pytest.mark.parametrize("name", NAMES)
def test_chance_comes_from_seed_image_name_and_level_alone(name: str, photo: np.ndarray) -> None:
    first = distort(photo, name, 3, seed=5, image_id="a")
    assert np.array_equal(first, distort(photo, name, 3.0, seed=5, image_id="a"))
    assert np.array_equal(first, distort(np.asfortranarray(photo), name, 3, seed=5, image_id="a"))
    by_seed = {distort(photo, name, 3, seed=seed, image_id="a").tobytes() for seed in range(10)}
    by_image = {distort(photo, name, 3, seed=5, image_id=image_id).tobytes() for image_id in "abcdefghij"}
    assert (len(by_seed) == len(by_image) == 1) == (name in FIXED)
    assert (len(by_seed) > 1 and len(by_image) > 1) == (name not in FIXED)


_OTHER_PROCESS = """
import hashlib, json, sys
import numpy as np
from pseudo_labels.distort import DISTORTIONS, distort
rgb = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(160, 192, 3)
print(json.dumps({n: hashlib.sha256(distort(rgb, n, 2.7, seed=3, image_id="id")).hexdigest() for n in DISTORTIONS}))
"""


def test_another_process_gives_the_same_bytes(photo: np.ndarray) -> None:
    """With other hash randomisation and other numbers of threads."""
    made = {name: distort(photo, name, 2.7, seed=3, image_id="id") for name in NAMES}
    here = {name: hashlib.sha256(rgb.tobytes()).hexdigest() for name, rgb in made.items()}
    environment = os.environ | {"PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", _OTHER_PROCESS]
    ran = subprocess.run(command, cwd=root, env=environment, input=photo.tobytes(), capture_output=True, check=True)
    assert json.loads(ran.stdout) == here
