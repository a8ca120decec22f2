from typing import Any

import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from teachers.sam_iqa.model import SamIqa, SamIqaConfig
from teachers.sam_iqa.regression import RegressionBlock
from tests.teachers.sam_iqa.tiny_sam import random_vit


def model(**options: Any) -> SamIqa:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SamIqa(SamIqaConfig("tiny", input_side_px=64, **options), random_vit())


def images(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 64, 64), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("trainable", "inside", "outside"),
    [
        ("head", ["branches.frequency.2.mix.0.weight", "regression.fuse.0.bias"], ["encoder.vit.neck.0.weight"]),
        ("neck", ["encoder.vit.neck.0.weight", "regression.fuse.0.bias"], ["encoder.vit.blocks.7.norm1.bias"]),
        ("all", ["encoder.vit.pos_embed", "encoder.vit.blocks.0.attn.rel_pos_h", "encoder.vit.neck.2.weight"], []),
    ],
)
def test_what_is_trained(trainable: str, inside: list[str], outside: list[str]):
    trained = {name for name, parameter in model(trainable=trainable).named_parameters() if parameter.requires_grad}
    assert trained.issuperset(inside)
    assert trained.isdisjoint(outside)


@torch.no_grad()
def test_the_full_reference_form_sees_differences_only():
    built = model(form="fr")
    equal = built(images(3), images(3))
    torch.testing.assert_close(equal.score, equal.score[:1].expand(3), atol=1e-6, rtol=0)
    one, other = built(images(3), images(3, 1)).score, built(images(3, 1), images(3)).score
    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)  # L1 differences have no sign
    assert bool((one - equal.score).abs().max() > 1e-4)


def test_each_form_takes_its_own_inputs():
    with pytest.raises(ValueError, match="'nr' with reference"):
        model()(images(1), images(1))
    with pytest.raises(ValueError, match="'fr' without reference"):
        model(form="fr")(images(1))


def test_pooling_is_mean_and_deviation_of_the_map():
    block = RegressionBlock(12, 32)
    quality = block(torch.randn(2, 12, 16, 16, generator=torch.Generator().manual_seed(0)))
    flat = quality.map.detach().flatten(2).numpy()  # 16x16 cells: nothing was averaged
    pooled = quality.pooled.detach().numpy()
    assert pooled[:, :8] == pytest.approx(flat.mean(2), abs=1e-6)
    assert pooled[:, 8:] ** 2 == pytest.approx(flat.var(2) + 1e-6, abs=1e-6)
    assert bool(((quality.score > 0) & (quality.score < 1)).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "vit_g"}, "unknown SAM variant 'vit_g': choose vit_b, vit_l, vit_h, tiny"),
        ({"form": "both"}, "form 'both': choose nr, fr"),
        ({"trainable": "everything"}, "trainable 'everything': choose head, neck, all"),
        ({"input_side_px": 1000}, "input_side_px 1000: it must be a multiple of 16 from 224 to 1024"),
    ],
)
def test_unknown_choices_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(PocketiqaError, match=message):
        SamIqaConfig(**options)
