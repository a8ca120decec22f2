import math

import numpy as np
import pytest
import torch
from torch import nn

from distill.recipe.training import OptimizerSettings
from distill.training.optim import Ema, build_optimizer, learning_rate
from pseudo_labels.errors import PocketiqaError


def test_learning_rate_rises_linearly_then_follows_half_a_cosine():
    settings = OptimizerSettings(learning_rate=2.0, warmup_steps=4, min_learning_rate_ratio=0.1)
    learning_rate_multipliers = [learning_rate(step, 14, settings) for step in range(14)]
    assert learning_rate_multipliers[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert learning_rate_multipliers[9] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))  # half way down
    assert learning_rate_multipliers[13] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.9))))


def test_only_matrices_are_decayed():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 1))
    optimizer = build_optimizer(model, OptimizerSettings(learning_rate=0.1, weight_decay=0.5, betas=(0.9, 0.99)))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in model.named_parameters()} == {
        "0.weight": 0.5, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0, "2.weight": 0.5, "2.bias": 0.0,
    }  # fmt: skip


def test_steps_multiply_the_rate_at_their_shares_of_the_run():
    settings = OptimizerSettings(
        learning_rate=1.0, warmup_steps=2, schedule="step", step_factor=0.2, step_at=(0.5, 0.75)
    )
    learning_rate_multipliers = [learning_rate(step, 12, settings) for step in range(12)]
    assert learning_rate_multipliers == pytest.approx([1 / 3, 2 / 3] + [1.0] * 4 + [0.2] * 3 + [0.04] * 3)


def test_the_longest_prefix_decides_a_parameters_share_of_the_rate():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)))
    optimizer = build_optimizer(model, OptimizerSettings(learning_rate_multipliers={"1.": 0.1, "1.1.": 0.5}))
    rate = {id(p): group["rate"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: rate[id(p)] for name, p in model.named_parameters() if name.endswith("weight")} == {
        "0.weight": 1.0, "1.0.weight": 0.1, "1.1.weight": 0.5,
    }  # fmt: skip


def test_a_share_for_parameters_that_do_not_exist_is_refused():
    with pytest.raises(PocketiqaError, match=r"no trained parameter begins with 'head'; there are 0\."):
        build_optimizer(nn.Sequential(nn.Linear(1, 1)), OptimizerSettings(learning_rate_multipliers={"head": 2.0}))


def averaged(values: list[float], decay: float) -> float:
    model = nn.Linear(1, 1).double()
    ema = Ema(model, decay)
    for value in values:
        nn.init.constant_(model.weight, value)
        ema.update(model)
    return ema.model.weight.item()


def test_the_average_starts_at_the_first_weights():
    assert averaged([3.5], 0.9) == 3.5


def test_a_young_average_has_a_power_functions_profile():
    """Weights i / N under the profile x^gamma on [0, 1]: mean (g + 1) / (g + 2), and a second moment likewise."""
    steps = np.arange(1, 2001) / 2000
    assert averaged(list(steps), 0.9999) == pytest.approx(7.94 / 8.94, abs=2e-3)
    mean, square = averaged(list(steps), 0.9999), averaged(list(steps**2), 0.9999)
    assert (square - mean**2) ** 0.5 == pytest.approx(0.10, abs=2e-3)  # the sigma_rel of its definition


def test_an_old_average_is_exponential():
    rest = averaged([1.0] * 3000 + [0.0] * 100, 0.98)
    assert rest == pytest.approx(0.98**100, rel=1e-6)


def test_statistics_are_averaged_and_counters_copied():
    torch.manual_seed(0)
    model = nn.BatchNorm1d(3).double()
    ema = Ema(model, 0.25)
    expected = torch.zeros(3, dtype=torch.float64)
    for update in range(1, 8):
        model(torch.randn(5, 3, dtype=torch.float64))
        ema.update(model)
        kept = min(0.25, (1 - 1 / update) ** 7.94)
        expected = kept * expected + (1 - kept) * torch.as_tensor(model.running_mean)
    state = ema.model.state_dict()
    torch.testing.assert_close(state["running_mean"], expected, rtol=1e-12, atol=1e-12)
    assert state["num_batches_tracked"].item() == 7
    assert not ema.model.training
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())


def test_without_decay_the_average_is_the_last_weights():
    model = nn.Linear(2, 1)
    ema = Ema(model, 0.0)
    for value in (1.0, 2.0):
        nn.init.constant_(model.weight, value)
        ema.update(model)
    assert torch.equal(ema.model.state_dict()["weight"], model.weight)
