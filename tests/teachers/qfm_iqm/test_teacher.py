import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import ImageError
from teachers.base import check_output, check_teacher
from teachers.fitting import check_fittable
from teachers.qfm_iqm import build_qfm_iqm
from tests.teachers.qfm_iqm.tiny_qfm import TINY, batch, picture, tiny

SCALE = {"scale": "MOS of a test", "licence": "none"}


@pytest.mark.parametrize(("backbone", "halvings"), [("test_efficientnet", 1), ("test_resnet", 0), ("test_vit", 1)])
def test_it_is_a_teacher_that_can_be_fitted(backbone: str, halvings: int, pictures: list[np.ndarray]):
    teacher = tiny(backbone=backbone, halvings=halvings)
    assert check_teacher(teacher, "qfm_iqm") is teacher
    assert check_fittable(teacher, "qfm_iqm") is teacher
    items = [teacher.preprocess(picture, None) for picture in pictures]
    output = check_output(teacher(items), len(items), teacher.feature_names, "qfm_iqm")
    assert output.score_std is None
    assert output.features["map"].shape == (5, 16, 3, 3)
    assert output.features["pooled"].shape == (5, 32)
    assert len(set(output.score.tolist())) == len(items)


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_vit"])
def test_scores_and_features_do_not_depend_on_batch_size_or_order(backbone: str, pictures: list[np.ndarray]):
    teacher = tiny(backbone=backbone)
    items = [teacher.preprocess(picture, None) for picture in pictures]
    whole = teacher(items)
    order = [3, 0, 4, 2, 1]
    turned = teacher([items[index] for index in order])
    alone = [teacher([item]) for item in items]
    for position, index in enumerate(order):
        torch.testing.assert_close(turned.score[position], whole.score[index], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone[index].score[0], whole.score[index], atol=1e-5, rtol=0)
        for name in teacher.feature_names:
            torch.testing.assert_close(
                turned.features[name][position], whole.features[name][index], atol=1e-4, rtol=1e-4
            )
    assert whole.score.std() > 1e-3


def test_images_of_any_shape_are_scored_and_give_features_of_one_shape():
    teacher = tiny()
    for height, width in ((64, 64), (70, 300), (301, 65 * 3)):
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        # The shorter side after shrinking to 96; the backbone's 32 pixels are needed at half the size.
        if min(height, width) * 96 / max(height, width, 96) < 64:
            with pytest.raises(PocketiqaError, match="64 are needed"):
                teacher.preprocess(image, None)
            continue
        output = teacher([teacher.preprocess(image, None)])
        assert output.features["map"].shape == (1, 16, 3, 3)


def test_scores_beyond_the_scale_are_clamped_but_not_while_fitting(pictures: list[np.ndarray]):
    teacher = tiny()
    items = [teacher.preprocess(picture, None) for picture in pictures]
    with torch.no_grad():
        teacher.model.decoder.head.bias.add_(5.0)
    assert teacher(items).score.tolist() == [1.0] * 5
    fit = teacher.fitting_module().train()
    assert fit((batch(teacher, pictures),), torch.ones(5), torch.ones(5))[0].min() > 1


def test_the_stamp_tells_teachers_apart_but_not_by_settings_of_fitting():
    options: list[dict[str, Any]] = [
        {}, {"seed": 1}, {"halvings": 0}, {"max_side_px": 64}, {"precision": "bf16"}, {"mean": (0.4, 0.4, 0.4)},
        {"depths": "blocks.3,final"}, {"backbone": "test_vit"},
    ]  # fmt: skip
    common: dict[str, Any] = {"backbone": "test_efficientnet"} | TINY
    digests = {build_qfm_iqm(**(common | extra)).stamp.digest for extra in options}
    assert len(digests) == len(options)
    same = build_qfm_iqm(**common, noise_weight=0.0, matching="opposite")
    assert same.stamp.digest in digests
    with torch.no_grad():
        same.model.decoder.head.bias.add_(1e-3)
    assert same.stamp.digest not in digests


@pytest.mark.parametrize("trainable", ["head", "blocks.4, conv_head,bn2", "all"])
def test_a_saved_teacher_comes_back_the_same(trainable: str, tmp_path: Path, pictures: list[np.ndarray]):
    path = tmp_path / "fitted.safetensors"
    first = tiny(trainable=trainable)
    generator = torch.Generator().manual_seed(0)
    for value in first.trained_state().values():
        value += 0.02 * torch.randn(value.shape, generator=generator)
    first.save_trained(path, **SCALE)
    options: dict[str, Any] = {"backbone": "test_efficientnet"} | TINY
    second = build_qfm_iqm(**options, trainable=trainable, head=path)
    items = [first.preprocess(picture, None) for picture in pictures]
    assert torch.equal(first(items).score, second(items).score)
    assert second.stamp.weights == first.stamp.weights
    assert second.stamp.scale == SCALE["scale"]
    held = set(load_file(path))
    assert ("backbone.model.conv_head.weight" in held) == (trainable != "head")
    assert ("backbone.model.conv_stem.weight" in held) == (trainable == "all")
    assert not any("running" in name or "memory" in name for name in held)
    options["cells"] = 4
    with pytest.raises(PocketiqaError, match="cells: 3 -> 4"):
        build_qfm_iqm(**options, trainable=trainable, head=path)
    other = tiny(trainable=trainable)
    other.base = "0" * 64  # the digest of other weights
    with pytest.raises(PocketiqaError, match="fitted on the frozen base"):
        other.load_trained(path)


def test_a_copy_of_the_model_works_on_its_own(pictures: list[np.ndarray]):
    teacher = tiny()
    items = batch(teacher, pictures)
    model = copy.deepcopy(teacher.model)
    with torch.no_grad():
        before = model(items).score
        for value in model.backbone.parameters():
            value.mul_(0.5)
        assert not torch.allclose(model(items).score, before)
        assert torch.equal(teacher.model(items).score, before)


def test_bfloat16_changes_scores_little(pictures: list[np.ndarray]):
    scores = []
    for precision in ("fp32", "bf16"):
        teacher = tiny(precision=precision)
        output = teacher([teacher.preprocess(picture, None) for picture in pictures])
        assert output.score.dtype == output.features["map"].dtype == torch.float32
        scores.append(output.score)
    assert 0 < (scores[0] - scores[1]).abs().max() < 0.05


def test_images_of_any_size_fit_into_one_batch_as_squares():
    teacher = tiny(square_px=96)
    items = [teacher.preprocess(picture(0, *size), None) for size in ((80, 96), (200, 100), (64, 64))]
    assert {tuple(item.shape) for item in items if isinstance(item, torch.Tensor)} == {(3, 96, 96)}
    assert teacher(items).score.shape == (3,)
    with pytest.raises(ImageError, match="40x90 pixels"):
        teacher.preprocess(picture(0, 90, 40), None)
