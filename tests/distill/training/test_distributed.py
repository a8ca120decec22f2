from copy import deepcopy

import pytest
import timm
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from distill.training.distributed import SyncNorm, freeze, synchronise

CPU = torch.device("cpu")


def reference(kind: str) -> nn.BatchNorm2d:
    torch.manual_seed(1)
    norm = {
        "plain": lambda: nn.BatchNorm2d(5),
        "cumulative": lambda: nn.BatchNorm2d(5, momentum=None),  # type: ignore[arg-type]
        "not affine": lambda: nn.BatchNorm2d(5, affine=False),
        "not tracking": lambda: nn.BatchNorm2d(5, track_running_stats=False),
        "timm": lambda: BatchNormAct2d(5, act_layer=nn.SiLU, momentum=0.3),
    }[kind]()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm.double()


@pytest.mark.parametrize("kind", ["plain", "cumulative", "not affine", "not tracking", "timm"])
def test_one_process_agrees_with_torch_in_output_gradient_and_statistics(kind: str):
    norm = reference(kind)
    ours = SyncNorm(deepcopy(norm))
    batches = torch.randn(3, 4, 5, 6, 7, dtype=torch.float64) * 3 + 100
    for batch in batches:
        sides = []
        for module in (norm, ours):
            module.zero_grad()
            leaf = batch.clone().requires_grad_()
            output = module(leaf)
            output.sin().sum().backward()
            sides.append([output, leaf.grad, *(parameter.grad for parameter in module.parameters())])
        for theirs, mine in zip(*sides, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
    assert list(ours.state_dict()) == list(norm.state_dict())
    torch.testing.assert_close(ours.state_dict(), norm.state_dict(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.eval()(batches[0]), norm.eval()(batches[0]))


def test_gradients_agree_with_finite_differences():
    ours = SyncNorm(reference("timm"))
    assert torch.autograd.gradcheck(ours, torch.randn(2, 5, 2, 2, dtype=torch.float64).requires_grad_())


def test_half_precision_is_normalised_in_float32():
    norm = nn.BatchNorm2d(3)
    batch = (torch.randn(8, 3, 32, 32) + 50).to(torch.bfloat16)
    output = SyncNorm(norm)(batch)
    assert output.dtype == torch.bfloat16
    expected = nn.BatchNorm2d(3)(batch.float())
    assert (output.float() - expected).abs().max() < 0.02  # bfloat16 has 8 bits; values reach 4


def test_a_timm_model_keeps_its_names_parameters_and_outputs():
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", features_only=True)
    twin = deepcopy(model)
    synced = synchronise(model, CPU)
    assert sum(isinstance(module, SyncNorm) for module in synced.modules()) > 10
    assert list(synced.state_dict()) == list(twin.state_dict())
    images = torch.randn(2, 3, 64, 64)
    for mine, theirs in zip(synced(images), twin(images), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_frozen_norms_keep_their_statistics_while_the_rest_trains():
    model = synchronise(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)), CPU)
    before = {name: value.clone() for name, value in model.named_buffers()}
    freeze(model.train())
    model(torch.randn(4, 3, 5, 5)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert model[2].training  # type: ignore[index]
    assert all(parameter.grad is not None for parameter in model.parameters())
