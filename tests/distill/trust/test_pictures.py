from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.stress.photograph import Photograph
from distill.trust.definitions import CATALOGUE, VIEWS, WATERLOO
from distill.trust.pictures import CLEAN, CROPS, LABELS, PhotographFile, picture, pictures, version_of
from pseudo_labels.distort import CATALOGUE as DISTORTIONS
from pseudo_labels.distort import distort
from pseudo_labels.errors import PocketiqaError
from tests.helpers.pools import photograph


@pytest.fixture
def coffee() -> Photograph:
    return Photograph("coffee.png", photograph("coffee", 160))


def test_each_test_has_its_pictures_and_each_can_be_made_again(coffee: Photograph):
    assert (len(LABELS[WATERLOO]), len(LABELS[CATALOGUE])) == (21, 5 * len(DISTORTIONS) + 1)
    made = dict(pictures(coffee, VIEWS))
    assert tuple(made) == LABELS[VIEWS]
    assert made[CLEAN] is coffee.rgb
    assert all(made[crop].shape == (80, 120, 3) for crop in CROPS)
    assert np.array_equal(made["crop bottom right"], coffee.rgb[-80:, -120:])
    assert [max(made[f"side {side}"].shape) for side in (384, 1024)] == [384, 1024]
    theirs = distort(coffee.rgb, "motion_blur", 4, seed=0, image_id="coffee.png")
    assert np.array_equal(picture(coffee, CATALOGUE, "motion_blur 4"), theirs)
    theirs = distort(coffee.rgb, "waterloo_gaussian_blur", 3, seed=0, image_id="coffee.png")
    assert np.array_equal(picture(coffee, WATERLOO, "gaussian_blur 3"), theirs)
    assert not np.array_equal(picture(coffee, CATALOGUE, "gaussian_blur 3"), theirs)
    assert len({version_of(test) for test in LABELS}) == len(LABELS)


def test_a_file_is_known_by_name_and_content(tmp_path: Path):
    rgb = photograph("coffee", 96)
    for name in ("a.png", "b.png"):
        Image.fromarray(rgb).save(tmp_path / name)
    first, second = (PhotographFile.read(tmp_path / name) for name in ("a.png", "b.png"))
    assert first.key != second.key
    assert first == PhotographFile.read(tmp_path / "a.png")
    assert np.array_equal(first.open().rgb, rgb)


def test_what_cannot_be_used_is_named(tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"gone\.png cannot be used \(missing\)"):
        PhotographFile.read(tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(PocketiqaError, match=r"text\.png cannot be used \(not_an_image\)"):
        PhotographFile.read(tmp_path / "text.png").open()
    Image.new("RGB", (63, 90)).save(tmp_path / "small.png")
    with pytest.raises(PocketiqaError, match=r"small\.png cannot be used \(too_small\): 63x90"):
        PhotographFile.read(tmp_path / "small.png").open()
