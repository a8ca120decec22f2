import copy

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from teachers.qfm_iqm import QfmIqmTeacher
from teachers.qfm_iqm.sensitivity import sensitivity_among
from tests.teachers.qfm_iqm.tiny_qfm import batch, picture, tiny

SCORES = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
WEIGHT = torch.ones(5)
# Everything matches everything but itself, so that few images suffice.
LOOSE = {"score_threshold": 1.0, "semantic_threshold": 0.9}


def inputs(teacher: QfmIqmTeacher, pictures: list[np.ndarray]) -> tuple[Tensor, ...]:
    return (batch(teacher, pictures),)


def test_with_an_empty_memory_the_loss_is_the_plain_one_exactly(pictures: list[np.ndarray]):
    teacher = tiny()
    fit = teacher.fitting_module().train()
    score, further = fit(inputs(teacher, pictures), SCORES, WEIGHT)
    plain = teacher.model(*inputs(teacher, pictures)).score
    assert torch.equal(score, plain)
    assert {name: float(term) for name, term in further.items()} == {"noise": 0.0}
    loss = functional.mse_loss(score, SCORES) + sum(further.values())
    expected = functional.mse_loss(plain, SCORES)
    assert torch.equal(loss, expected)
    parameters = [value for value in teacher.model.parameters() if value.requires_grad]
    for one, other in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("matching", ["quality", "opposite"])
def test_with_a_memory_the_term_acts_on_the_weights_but_not_on_the_score(matching: str, pictures: list[np.ndarray]):
    teacher = tiny(matching=matching, **(LOOSE if matching == "quality" else {}))
    fit = teacher.fitting_module().train()
    # The memory holds each image twice with different scores: equal semantics, which is what ``opposite`` matches.
    fit(inputs(teacher, pictures), SCORES.flip(0), WEIGHT)
    fit(inputs(teacher, pictures), SCORES, WEIGHT)
    score, further = fit(inputs(teacher, pictures), SCORES, WEIGHT)
    assert torch.equal(score, teacher.model(*inputs(teacher, pictures)).score)
    ((name, term),) = further.items()
    assert name == {"quality": "noise", "opposite": "contrast"}[matching]
    assert float(term.detach()) > 0
    term.backward()
    gate = teacher.model.decoder.gate.shift.grad
    assert gate is not None
    assert gate.any()


def test_noise_is_off_in_evaluation_and_nothing_is_remembered(pictures: list[np.ndarray]):
    teacher = tiny(**LOOSE)
    fit = teacher.fitting_module().train()
    fit(inputs(teacher, pictures), SCORES, WEIGHT)
    memory = {name: value.clone() for name, value in fit.memory.state_dict().items()}
    assert float(fit(inputs(teacher, pictures), SCORES, WEIGHT)[1]["noise"].detach()) > 0
    fit.memory.load_state_dict(memory)
    fit.eval()
    score, further = fit(inputs(teacher, pictures), SCORES, WEIGHT)
    assert further == {}
    assert torch.equal(score, teacher.model(*inputs(teacher, pictures)).score)
    assert all(torch.equal(value, memory[name]) for name, value in fit.memory.state_dict().items())


def test_a_weight_of_zero_leaves_plain_fitting(pictures: list[np.ndarray]):
    teacher = tiny(noise_weight=0.0, **LOOSE)
    fit = teacher.fitting_module().train()
    for _ in range(2):
        assert fit(inputs(teacher, pictures), SCORES, WEIGHT)[1] == {}


def test_the_term_is_weighted_by_the_option_and_by_the_images(pictures: list[np.ndarray]):
    def term(noise_weight: float, weight: Tensor) -> float:
        teacher = tiny(noise_weight=noise_weight, **LOOSE)
        fit = teacher.fitting_module().train()
        fit(inputs(teacher, pictures), SCORES, WEIGHT)
        return float(fit(inputs(teacher, pictures), SCORES, weight)[1]["noise"].detach())

    whole = term(1.0, WEIGHT)
    assert term(0.25, WEIGHT) == pytest.approx(whole / 4)
    assert term(1.0, 3 * WEIGHT) == pytest.approx(whole)
    each = [term(1.0, torch.eye(5)[image]) for image in range(5)]
    assert sum(each) / 5 == pytest.approx(whole)
    assert term(1.0, 0 * WEIGHT) == 0


def test_images_of_weight_zero_are_not_remembered(pictures: list[np.ndarray]):
    teacher = tiny()
    fit = teacher.fitting_module().train()
    fit(inputs(teacher, pictures), SCORES, torch.tensor([1.0, 0.0, 0.5, 0.0, 1.0]))
    assert fit.memory.entries().score.tolist() == pytest.approx([0.1, 0.5, 0.9])


def test_the_memory_is_training_state_and_no_part_of_the_teacher(pictures: list[np.ndarray]):
    teacher = tiny(memory_length=8)
    fit = teacher.fitting_module().train()
    fit(inputs(teacher, pictures), SCORES, WEIGHT)
    own = {f"model.{name}" for name in teacher.model.state_dict()}
    assert {name for name in fit.state_dict() if name not in own} == {
        "memory.semantics", "memory.features", "memory.score", "memory.written"
    }  # fmt: skip
    again = teacher.fitting_module()
    assert int(again.memory.written) == 0
    again.load_state_dict(fit.state_dict())
    assert torch.equal(again.memory.score, fit.memory.score)
    assert not any("memory" in name for name in teacher.trained_state())


def test_fitting_leaves_the_frozen_backbone_and_its_statistics_alone(pictures: list[np.ndarray]):
    teacher = tiny(trainable="blocks.4,conv_head,bn2", **LOOSE)
    before = copy.deepcopy(teacher.model.state_dict())
    fit = teacher.fitting_module().train()
    optimizer = torch.optim.SGD([value for value in fit.parameters() if value.requires_grad], lr=0.1)
    for _ in range(2):
        score, further = fit(inputs(teacher, pictures), SCORES, WEIGHT)
        optimizer.zero_grad()
        (functional.mse_loss(score, SCORES) + further["noise"]).backward()
        optimizer.step()
    changed = {name for name, value in teacher.model.state_dict().items() if not torch.equal(value, before[name])}
    parts = ("tokeniser.", "decoder.", "backbone.model.blocks.4.", "backbone.model.conv_head.", "backbone.model.bn2.")
    assert all(name.startswith(parts) for name in changed)
    assert changed <= set(teacher.trained_state())
    assert {"backbone.model.bn2.weight", "backbone.model.conv_head.weight"} <= changed
    assert not any("running" in name for name in changed)


def sensitivity_after_fitting(noise_weight: float) -> float:
    teacher = tiny(noise_weight=noise_weight, noise_scale=1.0, memory_length=24, **LOOSE)
    images = batch(teacher, [picture(seed) for seed in range(24)])
    target = torch.rand(24, generator=torch.Generator().manual_seed(0))
    fit = teacher.fitting_module().train()
    optimizer = torch.optim.Adam([value for value in fit.parameters() if value.requires_grad], lr=3e-3)
    for step in range(24):
        rows = torch.arange(8 * (step % 3), 8 * (step % 3) + 8)
        score, further = fit((images[rows],), target[rows], torch.ones(8))
        optimizer.zero_grad()
        torch.stack([functional.mse_loss(score, target[rows]), *further.values()]).sum().backward()
        optimizer.step()
    fit.eval()
    batches = [(images[:8], target[:8]), (images[8:], target[8:])]
    measured = sensitivity_among(teacher.model, batches, teacher.settings)
    assert measured.change.shape == measured.ungated.shape == (24,)
    return measured.mean


def test_fitting_with_noise_makes_scores_less_sensitive_to_it():
    assert sensitivity_after_fitting(3.0) < 0.7 * sensitivity_after_fitting(0.0)
