import itertools
import math

import numpy as np
import pytest
import torch
from scipy import spatial
from torch import Tensor

from distill.recipe.training import LossSettings
from distill.training import losses
from distill.training.losses import LossInputs, RegionBatch, total_loss

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


def region_batch() -> tuple[Tensor, Tensor, RegionBatch]:
    """Maps of three images, five regions of the first and the last, the second without any."""
    quality, weight = rows(3, 3, 4, 5).sigmoid(), rows(4, 3, 4, 5).sigmoid()
    overlap, inside = rows(5, 5, 4, 5).sigmoid(), rows(6, 3, 4, 5).sigmoid()
    columns = (rows(7, 5).sigmoid(), rows(8, 5).sigmoid(), rows(9, 5).exp(), torch.tensor([1.0, 2, 0, 1, 1]).double())
    return quality, weight, RegionBatch(overlap, torch.tensor([0, 0, 2, 2, 2]), *columns, inside)


def test_a_region_is_the_weighted_mean_inside_and_its_fraction_of_the_weights():
    quality, weight, regions = region_batch()
    pooled = losses.pool_regions(quality, weight, regions)
    for number, image in enumerate(regions.image.tolist()):
        inside = weight[image] * regions.overlap[number]
        assert pooled[0][number].item() == pytest.approx((quality[image] * inside).sum().item() / inside.sum().item())
        total = (weight[image] * regions.inside[image]).sum().item()
        assert pooled[1][number].item() == pytest.approx(inside.sum().item() / total)


def test_the_region_that_is_the_whole_image_has_its_score():
    quality, weight, regions = region_batch()
    ones = torch.ones(3, 4, 5, dtype=torch.float64)
    whole = regions._replace(overlap=ones, image=torch.arange(3), inside=ones)
    pooled = losses.pool_regions(quality, weight, whole)
    score = (quality * weight).sum((1, 2)) / weight.sum((1, 2))
    torch.testing.assert_close(pooled[0], score)
    torch.testing.assert_close(pooled[1], torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["mse", "huber"])
def test_region_errors_agree_with_a_loop_over_images(kind: str):
    quality, weight, regions = region_batch()
    pooled = losses.pool_regions(quality, weight, regions)
    options = LossSettings(region_ranking=1.0, region_margin=0.15, score_kind=kind, huber_delta=0.1)  # type: ignore[arg-type]
    errors = losses.region_errors(pooled, regions, options)
    for image in range(3):
        own = np.flatnonzero(regions.image.numpy() == image)
        ranking = 0.0
        for name, predicted, target, weights in (
            ("quality", pooled[0], regions.quality, regions.weight),
            ("importance", pooled[1], regions.importance, regions.importance_weight),
        ):
            p, t, w = (values.numpy()[own] for values in (predicted, target, weights))
            huber = np.where(abs(p - t) < 0.1, (p - t) ** 2 / 0.2, abs(p - t) - 0.05)
            error = (p - t) ** 2 if kind == "mse" else huber
            expected = (w * error).mean() if len(own) else 0.0
            assert getattr(errors, name)[image].item() == pytest.approx(expected)
            pairs = [(i, j) for i in range(len(own)) for j in range(len(own)) if t[i] > t[j]]
            total = sum(w[i] * w[j] for i, j in pairs)
            cost = sum(w[i] * w[j] * max(0.0, min(t[i] - t[j], 0.15) - (p[i] - p[j])) for i, j in pairs)
            ranking += cost / total if total else 0.0
        assert errors.ranking[image].item() == pytest.approx(ranking)


def levels_of(lists: list[int], levels: list[float], least: float, most: float = float("inf")) -> torch.Tensor:
    columns = (lists, levels, [least] * len(lists), [most] * len(lists))
    return torch.tensor(list(zip(*columns, strict=True)), dtype=torch.float64)


def test_levels_cost_what_the_score_falls_too_little_or_too_much():
    generator = np.random.default_rng(3)
    lists, level = [0, 1, 0, -1, 1, 0, -1, 1], [0.0, 0.0, 1.5, 0.0, 5.0, 4.0, 3.0, 2.0]
    score = generator.random(8)
    costs = []
    for i, j in itertools.product(range(8), repeat=2):
        if lists[i] == lists[j] >= 0 and level[j] > level[i]:
            further, drop = level[j] - level[i], score[i] - score[j]
            costs.append(max(0.0, 0.1 * further - drop) + max(0.0, drop - 0.15 * further))
    assert len(costs) == 6
    measured = losses.level_ranking_loss(torch.from_numpy(score), levels_of(lists, level, 0.1, 0.15))
    assert measured.item() == pytest.approx(np.mean(costs))


def test_levels_without_an_upper_limit_pull_the_wrong_order_apart_and_nothing_else():
    score = torch.tensor([0.5, 0.6, 0.1, 0.9], requires_grad=True)
    levels = levels_of([7, 7, 8, 9], [0.0, 2.0, 3.0, 0.0], 0.05).float()
    cost = losses.level_ranking_loss(score, levels)
    assert cost.item() == pytest.approx(0.2)
    cost.backward()
    assert score.grad is not None
    assert score.grad.tolist() == [-1, 1, 0, 0]
    right = torch.tensor([0.8, 0.6, 0.1, 0.9], requires_grad=True)
    kept = losses.level_ranking_loss(right, levels)
    kept.backward()
    assert (kept.item(), right.grad.tolist()) == (0, [0, 0, 0, 0])  # type: ignore[union-attr]
    alone = losses.level_ranking_loss(right, levels_of([-1, -1, 3, 4], [0.0, 1.0, 2.0, 3.0], 0.05).float())
    alone.backward()
    assert alone.item() == 0


def test_the_loss_on_levels_is_added_by_its_weight_and_needs_lists():
    score = torch.tensor([0.5, 0.6])
    options = LossSettings(score=0, plcc=0, level_ranking=3.0)
    total, terms = total_loss(LossInputs(score, score, score, levels=levels_of([0, 0], [0, 1], 0.1).float()), options)
    assert list(terms) == ["level_ranking"]
    assert total.item() == pytest.approx(0.6)
    with pytest.raises(ValueError, match="the batch has no levels"):
        total_loss(LossInputs(score, score, score), options)


def test_losses_of_regions_are_means_over_images_and_pull_the_maps():
    quality, weight, regions = region_batch()
    quality, weight = quality.requires_grad_(), weight.requires_grad_()
    options = LossSettings(score=0, plcc=0, region_quality=2.0, region_importance=3.0, region_ranking=0.5)
    errors = losses.region_errors(losses.pool_regions(quality, weight, regions), regions, options)
    prediction = torch.zeros(3, dtype=torch.float64)
    total, terms = total_loss(LossInputs(prediction, prediction, prediction, regions=errors), options)
    assert list(terms) == ["region_quality", "region_importance", "region_ranking"]
    expected = 2 * errors.quality.mean() + 3 * errors.importance.mean() + 0.5 * errors.ranking.mean()
    torch.testing.assert_close(total, expected)
    total.backward()
    assert quality.grad is not None
    assert weight.grad is not None
    assert quality.grad[0].abs().min() > 0
    assert not quality.grad[1].any()  # no region, no gradient
    with pytest.raises(ValueError, match="the batch has no regions"):
        total_loss(LossInputs(prediction, prediction, prediction), options)


def test_a_batch_without_regions_and_a_region_that_is_not_shown_cost_nothing():
    quality, weight, regions = region_batch()
    none = RegionBatch(*(values[:0] for values in regions[:-1]), inside=regions.inside)
    errors = losses.region_errors(losses.pool_regions(quality, weight, none), none, LossSettings(region_quality=1.0))
    assert not torch.stack(errors).any()
    hidden = regions._replace(overlap=torch.zeros_like(regions.overlap), weight=torch.zeros_like(regions.weight))
    pooled = losses.pool_regions(quality.requires_grad_(), weight, hidden)
    assert torch.isfinite(torch.stack(pooled)).all()
    losses.region_errors(pooled, hidden, LossSettings(region_quality=1.0)).quality.sum().backward()
    assert quality.grad is not None
    assert torch.isfinite(quality.grad).all()
