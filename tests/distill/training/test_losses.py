import math

import numpy as np
import pytest
import torch
from scipy import spatial
from torch import Tensor

from distill.recipe.training import LossSettings
from distill.training import losses
from distill.training.losses import LossInputs, total_loss

ONES = torch.ones(12, dtype=torch.float64)


def rows(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def batch(size: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    prediction, target = rows(1, size), rows(2, size)
    return prediction, prediction * 0.3 + target, torch.linspace(0.2, 1.8, size, dtype=torch.float64)


def pearson(first: Tensor, second: Tensor) -> float:
    return float(np.corrcoef(first.numpy(), second.numpy())[0, 1])


def test_score_loss_is_the_weighted_error_over_the_number_of_rows():
    prediction, target, weight = (value.numpy() for value in batch())
    error = prediction - target
    huber = np.where(abs(error) <= 0.4, 0.5 * error**2 / 0.4, abs(error) - 0.2)
    assert losses.score_loss(*batch(), "mse", 0.4).item() == pytest.approx((weight * error**2).sum() / 12)
    assert losses.score_loss(*batch(), "huber", 0.4).item() == pytest.approx((weight * huber).sum() / 12)


def test_plcc_loss_agrees_with_numpy_and_integer_weights_are_repetitions():
    prediction, target, _ = batch()
    expected = 1 - pearson(prediction, target)
    assert losses.plcc_loss(prediction, target, ONES).item() == pytest.approx(expected, abs=1e-12)
    times = torch.tensor([1, 3, 0, 2] * 3)
    repeated = 1 - pearson(prediction.repeat_interleave(times), target.repeat_interleave(times))
    assert losses.plcc_loss(prediction, target, times.double()).item() == pytest.approx(repeated, abs=1e-12)


@pytest.mark.parametrize("kind", ["relative", "fixed"])
def test_ranking_loss_agrees_with_a_loop_over_pairs(kind: str):
    prediction, target, weight = (value.numpy() for value in batch())
    limit = 0.7 * np.std(target) if kind == "relative" else 0.7
    cost = total = 0.0
    for i in range(12):
        for j in range(12):
            if target[i] > target[j]:
                margin = min(target[i] - target[j], limit)
                cost += weight[i] * weight[j] * max(0.0, margin - (prediction[i] - prediction[j]))
                total += weight[i] * weight[j]
    assert losses.ranking_loss(*batch(), 0.7, kind).item() == pytest.approx(cost / total)  # type: ignore[arg-type]


def test_ranking_loss_vanishes_for_the_targets_themselves():
    _, target, weight = batch()
    assert losses.ranking_loss(target, target, weight, 0.5, "relative").item() == 0
    assert losses.ranking_loss(-target, target, weight, 0.5, "relative").item() > 0


def test_feature_error_is_the_mean_square_of_each_row():
    student, teacher = rows(3, 4, 5, 2, 2), rows(4, 4, 5, 2, 2)
    expected = ((student - teacher).numpy() ** 2).reshape(4, -1).mean(1)
    np.testing.assert_allclose(losses.feature_error(student, teacher).numpy(), expected)


def test_relational_loss_agrees_with_scipy_distances():
    student, teacher = rows(5, 12, 6), rows(6, 12, 9)
    ours = spatial.distance.pdist(student.numpy())
    theirs = spatial.distance.pdist(teacher.numpy())
    difference = abs(ours / ours.mean() - theirs / theirs.mean())
    huber = np.where(difference <= 1, 0.5 * difference**2, difference - 0.5)
    assert losses.relational_loss(student, teacher, ONES).item() == pytest.approx(huber.mean())


def test_relational_loss_ignores_scale_shift_and_rows_without_weight():
    teacher = rows(6, 12, 9)
    weight = ONES.clone()
    weight[3:5] = 0
    student = 4 * teacher + 2
    student[3:5] += 100
    assert losses.relational_loss(student, teacher, weight).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "loss",
    [
        lambda p, t, w: losses.score_loss(p, t, w, "huber", 0.4),
        lambda p, t, w: losses.score_loss(p, t, w, "mse", 0.4),
        losses.plcc_loss,
        lambda p, t, w: losses.ranking_loss(p, t, w, 0.5, "relative"),
        lambda p, t, w: losses.relational_loss(p.view(4, 3), t.view(4, 3), w[:4]),
    ],
)
def test_gradients_agree_with_finite_differences(loss):  # noqa: ANN001, RUF100
    prediction, target, weight = batch()
    assert torch.autograd.gradcheck(lambda p: loss(p, target, weight), prediction.requires_grad_())


def degenerate() -> list[tuple[str, LossInputs]]:
    def inputs(prediction: Tensor, target: Tensor, weight: Tensor, student: Tensor, teacher: Tensor) -> LossInputs:
        error = losses.feature_error(student, teacher[:, :3])
        return LossInputs(
            prediction,
            target,
            weight=weight,
            feature_error=error,
            feature_weight=weight,
            student_embedding=student,
            teacher_embedding=teacher,
        )

    one, eight = torch.ones(1), torch.ones(8)
    varied = torch.linspace(0, 1, 8)
    wide = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    return [
        ("one row", inputs(one * 0.4, one * 0.5, one, torch.ones(1, 3), torch.ones(1, 5))),
        ("constant targets", inputs(varied, eight * 0.5, eight, wide[:, :3], wide)),
        ("constant predictions", inputs(eight * 0.5, varied, eight, torch.ones(8, 3), wide)),
        ("constant teacher", inputs(varied, varied, eight, wide[:, :3], torch.ones(8, 5))),
        ("no weight", inputs(varied, varied, eight * 0, wide[:, :3], wide)),
    ]


@pytest.mark.parametrize(("name", "inputs"), degenerate(), ids=[name for name, _ in degenerate()])
def test_degenerate_batches_have_finite_losses_and_bounded_gradients(name: str, inputs: LossInputs):
    assert inputs.student_embedding is not None
    assert inputs.feature_error is not None
    leaves = [inputs.prediction.clone().requires_grad_(), inputs.student_embedding.clone().requires_grad_()]
    live = LossInputs(
        leaves[0],
        inputs.target,
        weight=inputs.weight,
        feature_error=inputs.feature_error,
        feature_weight=inputs.feature_weight,
        student_embedding=leaves[1],
        teacher_embedding=inputs.teacher_embedding,
    )
    options = LossSettings(plcc=1, ranking=1, feature=1, relational=1, feature_name="f")
    total, terms = total_loss(live, options)
    total.backward()
    assert set(terms) == {"score", "plcc", "ranking", "feature", "relational"}
    assert all(math.isfinite(term.item()) and term.item() >= 0 for term in terms.values())
    for leaf in leaves:
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
        assert leaf.grad.abs().max() < 1000


def test_constant_predictions_are_pulled_apart_in_the_right_order():
    prediction = torch.full((8,), 0.5, requires_grad=True)
    target = torch.linspace(0, 1, 8)
    losses.plcc_loss(prediction, target, torch.ones(8)).backward()
    assert prediction.grad is not None
    assert (torch.diff(-prediction.grad) > 0).all()


def test_total_is_the_weighted_sum_and_zero_weights_are_not_computed():
    inputs = LossInputs(*batch())
    options = LossSettings(score=0.5, score_kind="mse", plcc=2.0, ranking=0.25)
    total, terms = total_loss(inputs, options)
    assert set(terms) == {"score", "plcc", "ranking"}
    assert total.item() == pytest.approx(
        0.5 * terms["score"].item() + 2 * terms["plcc"].item() + 0.25 * terms["ranking"].item()
    )
    assert set(total_loss(inputs, LossSettings(plcc=0))[1]) == {"score"}


def test_a_feature_loss_without_features_says_what_is_missing():
    with pytest.raises(ValueError, match="feature_error"):
        total_loss(LossInputs(*batch()), LossSettings(feature=1, feature_name="f"))
