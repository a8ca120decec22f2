import json
from typing import Any

import numpy as np
import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from teachers.qfm_iqm.model import QfmConfig, QfmIqm, frozen_state, names_in
from teachers.qfm_iqm.tokens import summary
from tests.teachers.qfm_iqm.tiny_qfm import batch, tiny

CONFIG: dict[str, Any] = {
    "backbone": "test_efficientnet", "pad_type": "", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5),
    "depths": ("blocks.1", "final"), "halvings": 1, "max_side_px": 96, "square_px": None, "cells": 3, "width": 16,
    "heads": 2, "trainable": ("head",),
}  # fmt: skip


def trained(model: QfmIqm) -> set[str]:
    return {name for name, value in model.backbone.model.named_parameters() if value.requires_grad}


@torch.no_grad()
def test_the_forward_pass_is_encode_then_decode(pictures: list[np.ndarray]):
    teacher = tiny()
    images = batch(teacher, pictures)
    whole, steps = teacher.model(images), teacher.model.decode(teacher.model.encode(images))
    assert torch.equal(whole.score, steps.score)
    assert torch.equal(whole.map, steps.map)
    # The score is linear in the pooled features.
    head = teacher.model.decoder.head
    torch.testing.assert_close(whole.score, whole.pooled @ head.weight[0] + head.bias)


@torch.no_grad()
def test_each_halving_reads_means_of_two_by_two_pixels(pictures: list[np.ndarray]):
    teacher = tiny(halvings=2, max_side_px=512)
    images = batch(teacher, [np.tile(picture, (2, 2, 1)) for picture in pictures[:2]])
    maps, image = [], images.double()
    for _ in range(3):
        maps += teacher.model.backbone(image)
        image = image.unflatten(3, (-1, 2)).mean(4).unflatten(2, (-1, 2)).mean(3)
    torch.testing.assert_close(teacher.model.summarise(images), summary(maps, 3), atol=1e-4, rtol=1e-4)


def test_under_autocast_scores_are_not_rounded_to_bfloat16(pictures: list[np.ndarray]):
    teacher = tiny()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        quality = teacher.model(batch(teacher, pictures))
    assert quality.score.dtype == quality.pooled.dtype == torch.float32
    assert (quality.score != quality.score.bfloat16().float()).any()


def test_trainable_names_whole_modules():
    names = trained(tiny(trainable="blocks.1,bn2").model)
    assert names
    assert all(name.startswith(("blocks.1.", "bn2.")) for name in names)
    assert trained(tiny(trainable="head").model) == set()
    everything = tiny(trainable="all").model
    assert trained(everything) == {name for name, _ in everything.backbone.model.named_parameters()}
    assert all(value.requires_grad for value in tiny().model.decoder.parameters())


def test_the_frozen_state_is_the_backbone_without_what_is_trained():
    model = tiny(trainable="blocks.1").model
    state = model.backbone.model.state_dict()
    assert set(frozen_state(model)) == set(state) - trained(model)
    assert any(name.startswith("blocks.1.") and "running_mean" in name for name in frozen_state(model))


def test_names_come_from_lists_and_from_text():
    assert names_in("a.1, b ,,") == names_in(["a.1", "b"]) == ("a.1", "b")
    assert names_in("") == names_in([]) == ()
    assert names_in([0, 3]) == ("0", "3")  # depths of a token model


def test_the_settings_are_json_values():
    config = QfmConfig(**CONFIG)
    values = config.as_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["mean"] == [0.5, 0.5, 0.5]
    assert values.keys() == CONFIG.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": 0}, "cells 0: a whole number, at least 1, is needed"),
        ({"width": True}, "width True: a whole number, at least 1, is needed"),
        ({"max_side_px": 512.0}, "max_side_px 512.0: a whole number"),
        ({"square_px": -1}, "square_px -1: a whole number, at least 1, or none is needed"),
        ({"heads": 3}, "width 16 and heads 3: the heads must divide the width"),
        ({"halvings": 4}, "halvings 4: choose 0 to 3"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(PocketiqaError, match=message):
        QfmConfig(**CONFIG | options)


def test_a_part_that_the_backbone_lacks_is_refused_with_those_it_has():
    with pytest.raises(PocketiqaError, match=r"trainable 'layer9': test_efficientnet has no such part; .* blocks.0, "):
        tiny(trainable="blocks.1,layer9")
