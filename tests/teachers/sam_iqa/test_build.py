from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from teachers.checksummed import tensor_digest
from teachers.sam_iqa import SamIqaTeacher, build_sam_iqa
from teachers.sam_iqa.build import frozen_digest
from tests.teachers.sam_iqa.tiny_sam import random_vit


def new(checkpoint: Path, **options: Any) -> SamIqaTeacher:
    return build_sam_iqa(variant="tiny", weights=checkpoint, head="new", **options)


def test_the_encoder_gets_the_weights_of_the_checkpoint(checkpoint: Path):
    expected = random_vit().state_dict()
    state = new(checkpoint).model.encoder.vit.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], value) for name, value in expected.items())


def test_the_seed_draws_the_head_and_a_random_encoder(checkpoint: Path):
    def head(teacher: SamIqaTeacher) -> torch.Tensor:
        return teacher.trained_state()["regression.head.2.weight"]

    first, again, other = new(checkpoint), new(checkpoint), new(checkpoint, seed=1)
    assert torch.equal(head(first), head(again))
    assert not torch.equal(head(first), head(other))
    assert first.base == other.base
    random = [build_sam_iqa(variant="tiny", pretrained=False, seed=seed) for seed in (0, 0, 1)]
    assert random[0].base == random[1].base != random[2].base


@pytest.mark.parametrize(
    ("trainable", "frozen"),
    [
        ("head", lambda name: True),
        ("neck", lambda name: not name.startswith("neck.")),
        ("all", lambda name: False),
    ],
)
def test_the_base_is_the_digest_of_the_frozen_tensors(trainable: str, frozen: Any, checkpoint: Path):
    vit = random_vit()
    expected = tensor_digest({name: value for name, value in vit.state_dict().items() if frozen(name)})
    assert frozen_digest(vit, trainable) == expected
    assert new(checkpoint, trainable=trainable).base == expected


def test_the_base_depends_on_neither_input_size_nor_precision(checkpoint: Path):
    teachers = [new(checkpoint, **options) for options in ({}, {"input_side_px": 64}, {"precision": "bf16"})]
    assert len({teacher.base for teacher in teachers}) == 1
    assert teachers[1].model.encoder.vit.pos_embed.shape[1:3] == (8, 8)  # type: ignore[union-attr] - SAM has one


def test_only_the_encoder_computes_in_lower_precision(checkpoint: Path):
    model = new(checkpoint, precision="bf16").model
    assert {value.dtype for value in model.encoder.vit.parameters()} == {torch.bfloat16}
    assert {value.dtype for part in (model.branches, model.regression) for value in part.parameters()} == {
        torch.float32
    }


def test_checkpointed_blocks_give_the_same_scores(checkpoint: Path, pictures: list[np.ndarray]):
    plain, checkpointed = new(checkpoint), new(checkpoint, checkpoint_blocks=True)
    items = [plain.preprocess(picture, None) for picture in pictures]
    assert torch.equal(checkpointed(items).score, plain(items).score)


def test_the_licence_is_that_of_the_weights(checkpoint: Path):
    assert "Apache-2.0" in new(checkpoint).stamp.licence
    assert build_sam_iqa(variant="tiny", pretrained=False).stamp.licence == "random weights"


def test_building_leaves_the_callers_randomness_alone():
    before = torch.get_rng_state()
    build_sam_iqa(variant="tiny", pretrained=False)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"tiny has no head: give head=FILE .*`pocketiqa fit-teacher` made, or head='new'"),
        ({"head": "new"}, "'tiny' has no official weights"),
        ({"head": "new", "precision": "fp16"}, "precision 'fp16': choose fp32, bf16"),
        ({"pretrained": False, "weights": "x.pth"}, r"pretrained is False and weights is 'x.pth'"),
    ],
)
def test_nothing_random_or_contradictory_is_taken_silently(options: dict[str, Any], message: str):
    with pytest.raises(PocketiqaError, match=message):
        build_sam_iqa(variant="tiny", **options)
