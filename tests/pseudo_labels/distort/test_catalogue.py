"""Names, groups and refusals."""

import numpy as np
import pytest

from pseudo_labels.crops import generator
from pseudo_labels.distort import CATALOGUE, DISTORTIONS, WATERLOO, distort, effects, families, groups, select
from pseudo_labels.errors import PocketiqaError


def test_catalogue_holds_kadid_in_order_and_six_of_a_camera() -> None:
    sources = [distortion.source for distortion in CATALOGUE.values()]
    assert sources == [f"KADID-10k #{number}" for number in range(1, 26)] + ["SEAGULL-100w"] * 6
    assert [name for name in CATALOGUE if name.startswith("camera_")] == [
        "camera_blur",
        "camera_sharpness",
        "camera_exposure",
        "camera_contrast",
        "camera_colorfulness",
        "camera_compression",
    ]
    assert all(name == distortion.name for name, distortion in CATALOGUE.items())


def test_families_partition_the_catalogue() -> None:
    sizes = {family: len(members) for family, members in families().items()}
    assert sizes == {
        "blur": 3,
        "colour": 5,
        "compression": 2,
        "noise": 5,
        "brightness": 3,
        "spatial": 5,
        "sharpness": 2,
        "camera": 6,
    }
    assert [one.name for members in families().values() for one in members] == list(CATALOGUE)
    assert all(one.summary.endswith((".", ":")) for members in families().values() for one in members)


def test_effects_put_those_of_a_camera_to_their_like_and_contrast_by_itself() -> None:
    by_effect = effects()
    assert sorted(name for names in by_effect.values() for name in names) == sorted(CATALOGUE)
    assert by_effect["contrast"] == ("contrast_change", "camera_contrast")
    assert by_effect["sharpness"] == ("high_sharpen", "camera_sharpness")
    assert by_effect["brightness"] == ("brighten", "darken", "mean_shift", "camera_exposure")
    plain = {name: one for name, one in CATALOGUE.items() if one.family != "camera" and name != "contrast_change"}
    assert all(one.effect == one.family for one in plain.values())


def test_select_expands_groups_once_and_in_order() -> None:
    assert select() == select(["kadid"]) == tuple(CATALOGUE)[:25]
    assert select(["camera"]) == tuple(CATALOGUE)[25:]
    assert select(["all"]) == select(["camera", "kadid"]) == tuple(CATALOGUE)
    assert select(["jpeg", "blur", "jpeg", "lens_blur"]) == ("gaussian_blur", "lens_blur", "motion_blur", "jpeg")
    assert not set(groups()) & set(DISTORTIONS)


def test_the_strengths_of_the_waterloo_set_are_apart() -> None:
    names = ("waterloo_jpeg", "waterloo_jpeg2000", "waterloo_white_noise", "waterloo_gaussian_blur")
    assert tuple(WATERLOO) == groups()["waterloo"] == select(["waterloo"]) == names
    assert not set(select(["all"])) & set(names)
    assert not any(set(names) & set(own) for own in effects().values())
    assert select(["waterloo_jpeg", "all"]) == (*CATALOGUE, "waterloo_jpeg")
    assert {one.family for one in WATERLOO.values()} == {"waterloo"}
    assert [one.effect for one in WATERLOO.values()] == ["compression", "compression", "noise", "blur"]
    assert all(one.summary.endswith(".") for one in WATERLOO.values())


def test_select_refuses_what_it_does_not_know() -> None:
    with pytest.raises(PocketiqaError, match=r"unknown distortion 'gausian_blur': did you mean 'gaussian_blur'.*jpeg"):
        select(["jpeg", "gausian_blur"])
    with pytest.raises(PocketiqaError, match="unknown distortion 'zzz': known are all, kadid, blur"):
        select(["zzz"])
    with pytest.raises(PocketiqaError, match="no distortion was named"):
        select([])


@pytest.mark.parametrize("level", [0, -1, 5.01, float("nan"), float("inf")])
def test_distort_refuses_a_level_out_of_range(level: float, photo: np.ndarray) -> None:
    with pytest.raises(PocketiqaError, match=f"level {level!r} of jpeg is out of range.*above 0 and at most 5"):
        distort(photo, "jpeg", level, seed=0, image_id="a")


def test_distort_refuses_an_unknown_name(photo: np.ndarray) -> None:
    with pytest.raises(PocketiqaError, match="unknown distortion 'jpg'"):
        distort(photo, "jpg", 1, seed=0, image_id="a")


@pytest.mark.parametrize(
    ("array", "named"),
    [
        (np.zeros((64, 64), np.uint8), r"uint8 \(64, 64\)"),
        (np.zeros((64, 64, 4), np.uint8), r"\(64, 64, 4\)"),
        (np.zeros((64, 64, 3), np.float32), "float32"),
        ([[1]], "list"),
        (np.zeros((64, 63, 3), np.uint8), "63x64"),
    ],
)
def test_distort_refuses_what_is_not_such_an_image(array: np.ndarray, named: str) -> None:
    with pytest.raises(PocketiqaError, match=named):
        distort(array, "jpeg", 1, seed=0, image_id="a")


def test_generators_of_different_keys_are_unrelated() -> None:
    """Also where texts run together or a number is written as text."""
    keys = [(1, "ab", "c"), (1, "a", "bc"), ("1", "ab", "c"), (11, "b", "c"), (1, "ab", "c", 1.0)]
    assert len({generator(*key).random() for key in keys}) == len(keys)
    assert generator(1, "ab", "c").random() == generator(1, "ab", "c").random()
