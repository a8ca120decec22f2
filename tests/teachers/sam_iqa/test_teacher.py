from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import ImageError
from pseudo_labels.records import Status
from teachers.base import check_output, check_teacher
from teachers.sam_iqa import SamIqaTeacher, build_sam_iqa
from tests.teachers.sam_iqa.tiny_sam import save_sam


@pytest.fixture(scope="module")
def teacher(checkpoint: Path) -> SamIqaTeacher:
    return build_sam_iqa(variant="tiny", weights=checkpoint, head="new")


def tiny(**options: Any) -> SamIqaTeacher:
    return build_sam_iqa(variant="tiny", pretrained=False, **options)


def test_it_is_a_teacher(teacher: SamIqaTeacher, pictures: list[np.ndarray]):
    assert check_teacher(teacher, "sam_iqa") is teacher
    items = [teacher.preprocess(picture, None) for picture in pictures]
    output = check_output(teacher(items), len(items), teacher.feature_names, "sam_iqa")
    assert output.score_std is None
    assert output.features["map"].shape == (5, 8, 16, 16)
    assert output.features["pooled"].shape == (5, 16)
    assert len(set(output.score.tolist())) == len(items)


@pytest.mark.parametrize("form", ["nr", "fr"])
def test_scores_and_features_do_not_depend_on_batch_size_or_order(form: str, pictures: list[np.ndarray]):
    teacher = tiny(form=form)
    items = [teacher.preprocess(picture, picture[::-1, ::-1].copy()) for picture in pictures]
    order = [3, 0, 4, 2, 1]
    together, shuffled = teacher(items), teacher([items[index] for index in order])
    for position, index in enumerate(order):
        alone = teacher([items[index]])
        for output, row in ((together, index), (shuffled, position)):
            assert output.score[row].item() == pytest.approx(alone.score.item(), abs=1e-5)
            for name in teacher.feature_names:
                torch.testing.assert_close(output.features[name][row], alone.features[name][0], atol=1e-5, rtol=0)


def test_the_input_is_the_whole_image_as_a_square(teacher: SamIqaTeacher, pictures: list[np.ndarray]):
    square = pictures[1][:128, :128].copy()
    item = teacher.preprocess(square, None)
    assert isinstance(item, torch.Tensor)
    np.testing.assert_array_equal(item.numpy(), square.transpose(2, 0, 1))  # its own size: not resampled
    wide = teacher.preprocess(pictures[4], None)
    assert isinstance(wide, torch.Tensor)
    resized = np.asarray(Image.fromarray(pictures[4]).resize((128, 128), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(wide.numpy(), resized.transpose(2, 0, 1))


def test_an_image_smaller_than_a_patch_is_too_small(teacher: SamIqaTeacher):
    assert teacher.preprocess(np.zeros((8, 8, 3), np.uint8), None) is not None
    with pytest.raises(ImageError, match="300x7 pixels: a patch of SAM has 8x8") as caught:
        teacher.preprocess(np.zeros((7, 300, 3), np.uint8), None)
    assert caught.value.status == Status.TOO_SMALL


def test_the_full_reference_form_needs_a_fitting_reference(pictures: list[np.ndarray]):
    teacher = tiny(form="fr")
    assert teacher.needs_reference
    with pytest.raises(PocketiqaError, match="needs the clean image"):
        teacher.preprocess(pictures[0], None)
    with pytest.raises(PocketiqaError, match="the image is 200x150, but its reference 130x130"):
        teacher.preprocess(pictures[0], pictures[1])


def test_the_stamp_changes_with_weights_and_options(checkpoint: Path, tmp_path: Path):
    other = save_sam(tmp_path / "other.pth", seed=1)
    options: list[dict[str, Any]] = [{}, {"seed": 1}, {"form": "fr"}, {"input_side_px": 64}, {"precision": "bf16"}]
    teachers = [build_sam_iqa(variant="tiny", weights=checkpoint, head="new", **extra) for extra in options]
    teachers += [build_sam_iqa(variant="tiny", weights=other, head="new"), tiny()]
    digests = {teacher.stamp.digest for teacher in teachers}
    assert len(digests) == len(teachers)
    again = build_sam_iqa(variant="tiny", weights=checkpoint, head="new")
    assert again.stamp == teachers[0].stamp
    again.trained_state()["regression.head.2.bias"].add_(1e-3)
    assert again.stamp.digest not in digests


def test_bfloat16_changes_scores_little(checkpoint: Path, pictures: list[np.ndarray]):
    scores = []
    for precision in ("fp32", "bf16"):
        teacher = build_sam_iqa(variant="tiny", weights=checkpoint, head="new", precision=precision)
        output = teacher([teacher.preprocess(picture, None) for picture in pictures])
        assert output.score.dtype == output.features["map"].dtype == torch.float32
        scores.append(output.score)
    assert 0 < (scores[0] - scores[1]).abs().max() < 5e-3
