import pytest
import torch
from segment_anything.modeling.image_encoder import Attention

from teachers.sam_iqa.attention import FusedAttention


def attention(side: int) -> Attention:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(side)
        original = Attention(24, num_heads=3, use_rel_pos=True, input_size=(side, side))
        for table in (original.rel_pos_h, original.rel_pos_w):
            torch.nn.init.normal_(table)
    return original


@pytest.mark.parametrize(("native", "height", "width"), [(5, 5, 5), (8, 8, 8), (8, 4, 4), (8, 3, 6)])
def test_values_and_gradients_are_those_of_segment_anything(native: int, height: int, width: int):
    original = attention(native)
    x = torch.randn(2, height, width, 24, generator=torch.Generator().manual_seed(0))
    results = []
    for module in (original, FusedAttention(original)):
        values = x.clone().requires_grad_()
        original.zero_grad()
        output = module(values)
        output.square().sum().backward()
        gradients = [p.grad.clone() for _, p in sorted(original.named_parameters()) if p.grad is not None]
        assert len(gradients) == 6
        results.append([output, values.grad, *gradients])
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_parameters_are_shared_under_their_names():
    original = attention(5)
    fused = dict(FusedAttention(original).named_parameters())
    theirs = dict(original.named_parameters())
    assert fused.keys() == theirs.keys()
    assert all(fused[name] is theirs[name] for name in theirs)
