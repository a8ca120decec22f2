import json

import numpy as np
import pytest
from PIL import Image

from pseudo_labels.errors import PocketiqaError
from students.preprocess import Preprocess
from tests.helpers.tiny_students import photographs


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (768, 1024, (288, 384)),
        (1024, 768, (384, 288)),
        (384, 384, (384, 384)),
        (100, 200, (100, 200)),  # never enlarged
        (385, 385, (384, 384)),
        (64, 5000, (64, 384)),  # too slender: the aspect is given up
        (5000, 64, (384, 64)),
        (500, 3000, (64, 384)),  # exactly 6 : 1
        (40, 50, (64, 80)),  # below min_side: enlarged, aspect kept
        (1, 1, (64, 64)),
        (1, 5000, (64, 384)),
        (3, 40, (64, 384)),
    ],
)
def test_size_rule(height: int, width: int, expected: tuple[int, int]) -> None:
    assert Preprocess(max_side=384, min_side=64).size(height, width) == expected


def test_any_size_obeys_the_limits_and_keeps_the_aspect() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        height, width = (int(2 ** rng.uniform(0, 13)) for _ in range(2))
        plan = Preprocess(max_side=int(rng.integers(64, 600)), min_side=64)
        new = plan.size(height, width)
        assert min(new) >= plan.min_side
        assert max(new) <= plan.max_side
        assert (height >= width) == (new[0] >= new[1]) or new[0] == new[1]
        if min(height, width) >= 64 and max(height, width) <= plan.max_side:
            assert new == (height, width)
        if max(height, width) / min(height, width) < plan.max_side / plan.min_side:
            # Each side is rounded by at most half a pixel.
            assert abs(new[0] / new[1] - height / width) <= (0.5 + 0.5 * height / width) / (new[1] - 0.5)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (3000, 4000, (96, 128)),
        (4000, 3000, (128, 96)),
        (600, 590, (128, 128)),
        (100, 5000, (64, 128)),  # the most slender there is
        (10, 11, (128, 128)),  # enlarged
    ],
)
def test_where_sizes_are_fixed_the_nearest_aspect_is_taken(height: int, width: int, expected: tuple[int, int]) -> None:
    sizes = ((64, 128), (96, 128), (128, 64), (128, 96), (128, 128))
    plan = Preprocess(max_side=128, multiple=32, sizes=sizes)
    assert plan.size(height, width) == expected
    assert plan.resize(np.zeros((height, width, 3), np.uint8)).shape == (*expected, 3)
    assert Preprocess.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([[96, 128]], "has 96x128: .* and each size turned by 90 degrees too"),
        ([[100, 100]], r"has 100x100: sides of 64 to 128 in multiples of 32 are needed"),
        ([[160, 160]], "has 160x160: sides of 64 to 128"),
        ("96x128", "is '96x128': a list of heights and widths in pixels is needed"),
        ([[96.0, 128]], "a list of heights and widths"),
    ],
)
def test_wrong_sizes_are_refused(sizes: object, message: str) -> None:
    with pytest.raises(PocketiqaError, match=message):
        Preprocess.from_dict({"max_side": 128, "min_side": 64, "multiple": 32, "sizes": sizes})


def test_image_that_fits_is_returned_to_the_bit() -> None:
    image = photographs()[0]
    assert np.array_equal(Preprocess(384).resize(image), image)


def test_strided_view_becomes_contiguous() -> None:
    image = photographs()[2]
    turned = Preprocess(128).resize(image[:, ::-1])
    assert turned.flags.c_contiguous
    assert np.abs(turned[:, ::-1].astype(int) - Preprocess(128).resize(image)).max() <= 1


def test_reduction_by_two_agrees_with_lanczos_and_with_block_means() -> None:
    image = photographs()[0]
    half = Preprocess(128).resize(image).astype(float)
    lanczos = np.asarray(Image.fromarray(image).resize((128, 128), Image.Resampling.LANCZOS), dtype=float)
    blocks = image.reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(half - lanczos).mean() < 3  # worst seen 1.9 of 255
    assert np.abs(half - blocks).mean() < 3


@pytest.mark.parametrize("side", [500, 1000])
def test_fine_chequers_become_grey_and_not_a_coarser_pattern(side: int) -> None:
    cells = (np.indices((side, side)).sum(0) % 2 * 255).astype(np.uint8)
    small = Preprocess(128).resize(np.repeat(cells[:, :, None], 3, axis=2))
    # Nearest-neighbour sampling would give a deviation near 127.
    assert abs(small.mean() - 127.5) < 2
    assert small.std() < 12


def test_colour_planes_are_not_mixed() -> None:
    image = np.zeros((300, 200, 3), np.uint8)
    image[..., 0], image[..., 2] = 10, 250
    small = Preprocess(96).resize(image)
    assert small.shape == (96, 64, 3)
    assert np.array_equal(np.unique(small.reshape(-1, 3), axis=0), [[10, 0, 250]])


def test_small_image_is_enlarged_smoothly() -> None:
    ramp = np.repeat(np.linspace(0, 255, 16, dtype=np.uint8)[None, :, None], 16, axis=0).repeat(3, axis=2)
    large = Preprocess(128).resize(ramp)[:, :, 0].astype(int)
    assert large.shape == (64, 64)
    assert np.diff(large[32]).min() >= 0
    assert np.diff(large[32]).max() <= 9  # one source step is 17; nearest-neighbour enlargement keeps it whole


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((70, 70), np.uint8),
        np.zeros((70, 70, 4), np.uint8),
        np.zeros((70, 70, 3), np.float32),
        np.zeros((0, 70, 3), np.uint8),
    ],
)
def test_wrong_array_is_named(wrong: np.ndarray) -> None:
    with pytest.raises(PocketiqaError, match=rf"{wrong.dtype} of shape \({wrong.shape[0]}, 70"):
        Preprocess().resize(wrong)


def test_wrong_type_is_named() -> None:
    with pytest.raises(PocketiqaError, match="an image is str"):
        Preprocess().resize("photo.jpg")  # pyright: ignore[reportArgumentType]


def test_json_round_trip_and_strictness() -> None:
    plan = Preprocess(max_side=512, min_side=96)
    assert Preprocess.from_dict(plan.as_dict()) == plan
    with pytest.raises(PocketiqaError, match="lacks 'min_side'"):
        Preprocess.from_dict({"max_side": 384})
    with pytest.raises(PocketiqaError, match="unknown field 'crop'"):
        Preprocess.from_dict({**plan.as_dict(), "crop": 1})
    for name, value in (
        ("max_side", 50),
        ("max_side", 384.0),
        ("max_side", True),
        ("min_side", 10),
        ("max_side", 9999),
    ):
        with pytest.raises(PocketiqaError, match=rf"preprocess.{name} is {value}"):
            Preprocess.from_dict({**plan.as_dict(), name: value})


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (768, 1024, (192, 256)),
        (480, 640, (192, 256)),
        (450, 750, (160, 256)),  # 162 rows: nearer to 160 than to 192
        (100, 200, (96, 192)),  # small ones, too
        (64, 5000, (64, 256)),
        (1, 1, (64, 64)),
        (270, 200, (256, 192)),
    ],
)
def test_sides_become_the_nearest_multiples_within_the_limits(height: int, width: int, expected: tuple[int, int]):
    plan = Preprocess(max_side=270, min_side=64, multiple=32)
    assert plan.size(height, width) == expected
    assert plan.size(width, height) == expected[::-1]
    assert plan.resize(np.zeros((height, width, 3), np.uint8)).shape == (*expected, 3)
    assert (plan.least, plan.largest) == (64, 256)


def test_a_multiple_is_written_only_where_there_is_one():
    assert Preprocess(240).as_dict() == {"max_side": 240, "min_side": 64}
    plan = Preprocess(240, multiple=16)
    assert plan.as_dict() == {"max_side": 240, "min_side": 64, "multiple": 16}
    assert Preprocess.from_dict(plan.as_dict()) == plan
    assert Preprocess.from_dict({"max_side": 240, "min_side": 64}) == Preprocess(240)


def test_a_multiple_that_no_side_can_have_is_refused():
    with pytest.raises(PocketiqaError, match=r"no multiple of 60 lies within preprocess.min_side 64 and max_side 100"):
        Preprocess(100, multiple=60)
    with pytest.raises(PocketiqaError, match=r"preprocess\.multiple is 0"):
        Preprocess(100, multiple=0)
