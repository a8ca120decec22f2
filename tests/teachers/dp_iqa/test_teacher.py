from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import ImageError, load
from pseudo_labels.records import Status
from teachers.base import Teacher, check_output
from teachers.dp_iqa import DpIqaTeacher, build_dp_iqa
from tests.helpers.shared import shared_data


def build(**options) -> DpIqaTeacher:
    return build_dp_iqa(variant="tiny", pretrained=False, **options)


def spread_out(teacher: DpIqaTeacher, items: list[torch.Tensor]) -> None:
    """Move the scores of ``items`` about the middle of the scale: random weights hover about zero, nearly constant.

    A fitted model spreads much further on the same rounding (a difference of 5e-7 at a deviation of 0.14 was measured).
    """
    last = teacher.model.decoder.tail[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        raw = teacher.model(torch.stack(items)).score
        factor = 0.005 / raw.std()
        last.bias.sub_(raw.mean()).mul_(factor).add_(0.5)
        last.weight.mul_(factor)


@pytest.fixture
def teacher() -> DpIqaTeacher:
    return build()


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    return [load(path) for path in sorted(shared_data("kodak").glob("*.png"))[:5]]


def test_it_meets_the_protocol(teacher: DpIqaTeacher):
    assert isinstance(teacher, Teacher)
    assert not teacher.needs_reference
    assert teacher.feature_names == ("feature_map",)


def test_pixels_are_resized_to_a_square_in_zero_to_one(teacher: DpIqaTeacher, photographs: list[np.ndarray]):
    item = teacher.preprocess(photographs[0])
    assert item.dtype == torch.float32
    assert tuple(item.shape) == (3, 64, 64)
    expected = np.asarray(Image.fromarray(photographs[0]).resize((64, 64), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal((item * 255).round().byte().numpy(), expected.transpose(2, 0, 1))
    white = teacher.preprocess(np.full((100, 30, 3), 255, np.uint8))
    assert torch.all(white == 1)
    square = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal((teacher.preprocess(square) * 255).round().byte().numpy(), square.transpose(2, 0, 1))


def test_an_image_smaller_than_a_latent_is_a_bad_row(teacher: DpIqaTeacher):
    with pytest.raises(ImageError, match="7x100 pixels: a latent of DP-IQA covers 8x8") as caught:
        teacher.preprocess(np.zeros((100, 7, 3), np.uint8))
    assert caught.value.status == Status.TOO_SMALL
    assert tuple(teacher.preprocess(np.zeros((8, 5000, 3), np.uint8)).shape) == (3, 64, 64)


def test_scores_of_photographs_do_not_depend_on_batch_or_order(teacher: DpIqaTeacher, photographs: list[np.ndarray]):
    items = [teacher.preprocess(image) for image in photographs]
    spread_out(teacher, items)
    together = check_output(teacher(items), 5, teacher.feature_names, "dp_iqa")
    backwards = teacher(items[::-1])
    alone = torch.cat([teacher([item]).score for item in items])
    assert len(set(together.score.tolist())) == 5
    assert together.score_std is None
    assert tuple(together.features["feature_map"].shape) == (5, 8, 16, 16)
    for other in (backwards.score.flip(0), alone):
        torch.testing.assert_close(other, together.score, atol=1e-5, rtol=0)


def test_scores_beyond_the_scale_are_clamped():
    teacher = build()
    last = teacher.model.decoder.tail[-1]
    assert isinstance(last, torch.nn.Linear)
    item = torch.rand(3, 64, 64)
    for bias, expected in ((5.0, 1.0), (-5.0, 0.0)):
        with torch.no_grad():
            last.bias.fill_(bias)
        assert teacher([item]).score.item() == expected


def test_the_stamp_changes_with_every_option_that_changes_a_score():
    first = build()
    assert first.stamp == build().stamp
    assert first.stamp.name == "dp_iqa"
    assert first.stamp.scale.startswith("none")
    others = [
        build(seed=1),
        build(timestep=2),
        build(scale_input=True),
        build(posterior="sample"),
        build(posterior="sample", posterior_seed=1),
        build(interpolation="bilinear"),
        build(input_side_px=128),
        build(precision="bf16"),
    ]
    assert len({first.stamp.digest, *(other.stamp.digest for other in others)}) == 9
    assert others[-1].stamp.weights == first.stamp.weights
    same = [build(posterior_seed=1), build(channels_last=True), build(attention_slicing="auto")]
    assert all(other.stamp.digest == first.stamp.digest for other in same)


def test_the_stamp_follows_the_weights():
    teacher = build()
    before = teacher.stamp.weights
    optimiser = torch.optim.SGD(teacher.model.decoder.fuse.parameters(), lr=0.1)
    teacher.model(torch.rand(2, 3, 64, 64)).score.sum().backward()
    optimiser.step()
    assert teacher.stamp.weights != before


def test_what_was_fitted_can_be_saved_and_taken_over(tmp_path: Path, teacher: DpIqaTeacher):
    path = tmp_path / "head.safetensors"
    item = torch.rand(3, 64, 64)
    spread_out(teacher, [item, torch.zeros(3, 64, 64)])
    teacher.save_trained(path, scale="MOS of BIQ2021", licence="research")
    loaded = build(head=path)
    assert 0 < loaded([item]).score.item() < 1
    assert torch.equal(loaded([item]).score, teacher([item]).score)
    assert loaded.stamp.scale == "MOS of BIQ2021"
    assert loaded.stamp.licence == "research"
    assert loaded.stamp.weights == teacher.stamp.weights
    with pytest.raises(PocketiqaError, match=r"other options \(timestep: 1 -> 7\)"):
        build(head=path, timestep=7)
    with pytest.raises(PocketiqaError, match="was fitted on the frozen base"):
        build(head=path, seed=3)
    low = build(head=path, precision="bf16")
    assert low.model.unet.dtype == torch.bfloat16
    assert low.stamp.weights == teacher.stamp.weights
    assert low.stamp.digest != teacher.stamp.digest


def test_the_file_holds_only_what_was_trained(tmp_path: Path, teacher: DpIqaTeacher):
    path = tmp_path / "head.safetensors"
    teacher.save_trained(path, scale="", licence="")
    with safe_open(path, "pt") as file:
        names = set(file.keys())
    assert names == set(teacher.trained_state())
    assert not any(name.startswith(("vae.", "unet.conv_out")) for name in names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_side_px": 100}, "input_side_px is 100, but a multiple of 64 is needed"),
        ({"input_side_px": -64}, "input_side_px is -64"),
        ({"interpolation": "nearest"}, "interpolation is 'nearest': choose bicubic, bilinear, lanczos"),
    ],
)
def test_impossible_input_sizes_and_filters_are_refused(options: dict, message: str):
    with pytest.raises(PocketiqaError, match=message):
        build(**options)
